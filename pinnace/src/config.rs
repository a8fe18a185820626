//! Configuration files: one TOML file a role and its `*.d/` drop-ins, later files overriding.
//!
//! Unknown keys are errors that name file, line and the keys that exist. No secret is ever read
//! from here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;

mod agent;
mod amount;
mod policy;
mod resync;
mod target;

pub(crate) use agent::AgentConfig;
pub(crate) use amount::{Bytes, Interval};
pub(crate) use policy::{Hooks, Policy};
pub(crate) use resync::{ResyncConfig, VerifyConfig};
pub(crate) use target::{RetentionConfig, ScrubConfig, TargetConfig};

/// A layer of settings: every key may be absent, and another layer may be laid over it.
trait Layer: DeserializeOwned + Default {
    fn overlay(self, over: Self) -> Self;
}

/// Reads `main` and the drop-ins beside it (`agent.toml` has `agent.toml.d/*.toml` and
/// `agent.d/*.toml`). A missing main file is an empty one unless `required`.
fn load<L: Layer>(main: &Path, required: Required) -> Result<L> {
    let mut layers = Vec::new();
    if main.exists() || required == Required::Yes {
        layers.push(main.to_owned());
    }
    layers.extend(drop_ins(main)?);
    let mut read = layers.iter().map(|path| parse::<L>(path));
    read.try_fold(L::default(), |under, over| Ok(under.overlay(over?)))
}

/// Whether a configuration file must exist: it must when the user named it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Required {
    /// It was named on the command line.
    Yes,
    /// It is the default path.
    No,
}

fn drop_ins(main: &Path) -> Result<Vec<PathBuf>> {
    let dir = main.with_extension("d");
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", dir.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn parse<L: DeserializeOwned>(path: &Path) -> Result<L> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading the configuration {}", path.display()))?;
    toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        anyhow!("{}, line {line}: {}", path.display(), error.message())
    })
}

/// Declares a layer: a struct of optional keys and of tables, which are layers, with
/// `deny_unknown_fields` and its overlay.
macro_rules! layer {
    ($name:ident { $($key:ident: $kind:ty),* $(,)? }
     $(tables { $($table:ident: $layer:ty),* $(,)? })?) => {
        #[derive(Default, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $($key: Option<$kind>,)*
            $($(#[serde(default)] $table: $layer,)*)?
        }

        impl $crate::config::Layer for $name {
            fn overlay(self, over: Self) -> Self {
                Self {
                    $($key: over.$key.or(self.$key),)*
                    $($($table: $crate::config::Layer::overlay(self.$table, over.$table),)*)?
                }
            }
        }
    };
}
use layer;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_named_with_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "# a comment\n\nstate_dri = \"/x\"\n").unwrap();
        let error = format!("{:#}", AgentConfig::load(&path, Required::Yes).unwrap_err());
        assert!(error.contains("agent.toml, line 3"), "{error}");
        assert!(error.contains("state_dri") && error.contains("state_dir"), "{error}");
    }

    #[test]
    fn drop_ins_override_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, "interval = \"5s\"\nbuffer_pool = \"64 MiB\"\n").unwrap();
        std::fs::create_dir(dir.path().join("agent.d")).unwrap();
        std::fs::write(dir.path().join("agent.d/10.toml"), "interval = \"2s\"\n").unwrap();
        std::fs::write(dir.path().join("agent.d/20.toml"), "interval = \"1s\"\n").unwrap();
        let policy = |name, text| std::fs::write(dir.path().join("agent.d").join(name), text);
        policy("30.toml", "[policy]\npoint_interval = \"9s\"\nfreeze = \"never\"\n").unwrap();
        policy("40.toml", "[policy]\npoint_interval = \"7s\"\n").unwrap();
        let config = AgentConfig::load(&path, Required::Yes).unwrap();
        assert_eq!(config.interval.as_secs(), 1);
        assert_eq!(config.buffer_pool.0, 64 << 20);
        assert_eq!(config.policy.points.point_every.duration().as_secs(), 7);
        assert_eq!(config.policy.freeze, tracker::cut::Freeze::Never, "a table is laid over too");
    }

    #[test]
    fn retention_is_a_table_of_its_own_and_its_keys_are_laid_over_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("target.toml");
        let load = || TargetConfig::load(&path, Required::Yes);
        std::fs::write(&path, "[retention]\nladder = \"all 1h, 1d 7d\"\n").unwrap();
        std::fs::create_dir(dir.path().join("target.d")).unwrap();
        let drop_in = dir.path().join("target.d/10.toml");
        std::fs::write(&drop_in, "[retention]\nquota = \"5 GiB\"\n").unwrap();
        let config = load().unwrap().retention;
        assert_eq!(
            (config.ladder.to_string().as_str(), config.quota),
            ("all 1h, 1d 7d", Some(blocks::ByteLen(5 << 30)))
        );
        std::fs::remove_file(&drop_in).unwrap();
        let wrong = [
            ("ladder = \"all the time\"", "line 3", "all 2h, 1h 24h, 1d 15d"),
            ("ladders = \"all 2h\"", "line 3", "ladder"),
            ("quota = \"much\"", "line 3", "64 MiB"),
        ];
        for (setting, line, allowed) in wrong {
            std::fs::write(&path, format!("\n[retention]\n{setting}\n")).unwrap();
            let error = format!("{:#}", load().unwrap_err());
            assert!(error.contains(line) && error.contains(allowed), "{error}");
        }
    }

    #[test]
    fn the_cache_of_a_view_is_what_is_set_or_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("target.toml");
        let cache = |text: &str| {
            std::fs::write(&path, text).unwrap();
            TargetConfig::load(&path, Required::Yes).unwrap().view_cache
        };
        assert_eq!(cache(""), replica::VIEW_CACHE_DEFAULT);
        assert_eq!(cache("view_cache = \"16 MiB\"\n"), blocks::ByteLen(16 << 20));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let point = "[policy]\npoint_interval = \"10ms\"";
        for bad in ["interval = \"0s\"", "chunk = \"5 KiB\"", "buffer_pool = \"1 KiB\"", point] {
            std::fs::write(&path, bad).unwrap();
            assert!(AgentConfig::load(&path, Required::Yes).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_an_interval_points_are_made_on_request_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let load = |text: &str| {
            std::fs::write(&path, format!("[policy]\n{text}")).unwrap();
            AgentConfig::load(&path, Required::Yes)
        };
        assert_eq!(load("point_interval = \"0s\"\n").unwrap().policy.point_interval, None);
        let every = load("point_interval = \"9s\"\n").unwrap().policy.point_interval;
        assert_eq!(every.unwrap().as_secs(), 9);
        let both = load("point_interval = \"0s\"\napplication_interval = \"1h\"\n");
        assert!(format!("{:#}", both.unwrap_err()).contains("application_interval"));
    }
}
