//! `[policy]` and `[hooks]` of `agent.toml`: which recovery points are made, and how.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use blocks::ByteLen;
use control::Span;
use tracker::cut::Freeze;

use super::{Bytes, Interval, layer};

const POINT_EVERY: Span = Span::from_secs(5).expect("not zero");
const FREEZE_LIMIT: Duration = Duration::from_secs(2);

/// Which recovery points are made, and how.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// How old the replica may be, and how often points are made. How long they are kept is for the
    /// target.
    pub(crate) points: control::Policy,
    /// From one point to the next; without, points are made only when somebody asks.
    pub(crate) point_interval: Option<Duration>,
    /// Whether file systems may be frozen when a point does not succeed without.
    pub(crate) freeze: Freeze,
    /// The longest freeze.
    pub(crate) freeze_limit: Duration,
    /// The memory for what is read at one instant.
    pub(crate) cut_memory: ByteLen,
}

/// Commands that make applications ready for a point.
#[derive(Clone, Debug)]
pub(crate) struct Hooks {
    /// Run before an application-consistent point.
    pub(crate) pre: Option<String>,
    /// Run after it, whether it succeeded or not.
    pub(crate) post: Option<String>,
    /// How long each may take.
    pub(crate) timeout: Duration,
}

layer!(PolicyLayer {
    objective: Interval,
    point_interval: Interval,
    application_interval: Interval,
    freeze: String,
    freeze_limit: Interval,
    cut_memory: Bytes,
});

layer!(HooksLayer { pre: String, post: String, timeout: Interval });

impl Policy {
    pub(super) fn check(layer: &PolicyLayer) -> Result<Self> {
        let default = control::Policy::default();
        let application = layer.application_interval;
        let on_request = layer.point_interval.is_some_and(|interval| interval.0.is_zero());
        ensure!(
            !on_request || application.is_none(),
            "application_interval: there are none without a point_interval"
        );
        let interval = layer.point_interval.filter(|_| !on_request);
        let points = control::Policy {
            rpo: span("objective", layer.objective)?.unwrap_or(default.rpo),
            point_every: span("point_interval", interval)?.unwrap_or(POINT_EVERY),
            application_every: span("application_interval", application)?,
            ..default
        };
        let freeze = match layer.freeze.as_deref() {
            None | Some("if-needed") => Freeze::IfNeeded,
            Some("never") => Freeze::Never,
            Some("always") => Freeze::Always,
            Some(other) => bail!("freeze: {other:?} is none of never, if-needed, always"),
        };
        let points = points.checked()?;
        let policy = Self {
            point_interval: (!on_request).then(|| points.point_every.duration()),
            points,
            freeze,
            freeze_limit: layer.freeze_limit.map_or(FREEZE_LIMIT, |interval| interval.0),
            cut_memory: layer.cut_memory.map_or(ByteLen(64 << 20), |bytes| bytes.0),
        };
        let freezes = Duration::from_millis(10)..=Duration::from_secs(30);
        ensure!(freezes.contains(&policy.freeze_limit), "freeze_limit: between 10ms and 30s");
        let memory = 1 << 20..=1 << 30;
        ensure!(memory.contains(&policy.cut_memory.0), "cut_memory: between 1 MiB and 1 GiB");
        Ok(policy)
    }
}

/// A length of time that policies are made of.
fn span(key: &str, value: Option<Interval>) -> Result<Option<Span>> {
    let whole = |interval: Interval| {
        let seconds = Span::from_secs(interval.0.as_secs());
        let whole = seconds.filter(|span| span.duration() == interval.0);
        whole.with_context(|| format!("{key}: whole seconds, at least 1s, at most 100 years"))
    };
    value.map(whole).transpose()
}

impl Hooks {
    pub(super) fn check(layer: HooksLayer) -> Result<Self> {
        let timeout = layer.timeout.map_or(Duration::from_secs(60), |interval| interval.0);
        ensure!(timeout >= Duration::from_millis(100), "timeout: at least 100ms");
        Ok(Self { pre: layer.pre, post: layer.post, timeout })
    }

    /// Whether there is anything that could make an application ready.
    pub(crate) fn are_there(&self) -> bool {
        self.pre.is_some() || self.post.is_some()
    }
}
