//! What a daemon owes systemd: readiness, the watchdog, an orderly stop.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

/// Calls `stop` at the first SIGTERM or SIGINT. A file size limit is an error of the write that
/// meets it, not the daemon's end.
pub(crate) fn on_stop(stop: impl FnOnce() + Send + 'static) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGXFSZ]).context("taking over signals")?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.forever().any(|signal| signal != SIGXFSZ) {
            // Not under systemd: nobody to tell.
            drop(sd_notify::notify(&[NotifyState::Stopping]));
            stop();
        }
    })?;
    Ok(())
}

/// Lets this process have as many open files as the system lets it: a view of a recovery point
/// keeps one open for each delta it shows.
pub(crate) fn allow_many_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(errno) = raised {
        tracing::warn!(%errno, "the limit of open files stays as it is");
    }
}

/// Tells systemd that the daemon serves, and keeps its watchdog content from now on.
pub(crate) fn ready() {
    // Not under systemd: nobody to tell.
    drop(sd_notify::notify(&[NotifyState::Ready]));
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let ping = move || {
        loop {
            drop(sd_notify::notify(&[NotifyState::Watchdog]));
            std::thread::sleep((patience / 2).max(Duration::from_millis(100)));
        }
    };
    drop(std::thread::Builder::new().name("watchdog".into()).spawn(ping));
}
