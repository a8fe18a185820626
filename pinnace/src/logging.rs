//! Structured logs: to journald when systemd started us, else to standard error.

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging; `PINNACE_LOG` selects what, `info` unless set.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("PINNACE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let under_journald = std::env::var_os("JOURNAL_STREAM").is_some();
    if under_journald && let Ok(journald) = tracing_journald::layer() {
        registry.with(journald).init();
    } else {
        registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(false)).init();
    }
}
