//! `[policy]` and `[hooks]` of `agent.toml`: which recovery points are made, and how.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use blocks::ByteLen;
use tracker::cut::Freeze;

use super::{Bytes, Interval, layer};

/// Which recovery points are made, and how.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// How old the newest point may be.
    pub(crate) objective: Duration,
    /// From one point to the next.
    pub(crate) point_interval: Duration,
    /// From one application-consistent point to the next; none are made without.
    pub(crate) application_interval: Option<Duration>,
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
        let interval = |value: Option<Interval>, default| {
            value.map_or(Duration::from_secs(default), |interval| interval.0)
        };
        let freeze = match layer.freeze.as_deref() {
            None | Some("if-needed") => Freeze::IfNeeded,
            Some("never") => Freeze::Never,
            Some("always") => Freeze::Always,
            Some(other) => bail!("freeze: {other:?} is none of never, if-needed, always"),
        };
        let policy = Self {
            objective: interval(layer.objective, 30),
            point_interval: interval(layer.point_interval, 5),
            application_interval: layer.application_interval.map(|interval| interval.0),
            freeze,
            freeze_limit: interval(layer.freeze_limit, 2),
            cut_memory: layer.cut_memory.map_or(ByteLen(64 << 20), |bytes| bytes.0),
        };
        let second = Duration::from_secs(1);
        ensure!(policy.point_interval >= second, "point_interval: at least 1s");
        ensure!(policy.objective >= policy.point_interval, "objective: at least point_interval");
        let application = policy.application_interval;
        ensure!(
            application.is_none_or(|interval| interval >= policy.point_interval),
            "application_interval: at least point_interval"
        );
        let freezes = Duration::from_millis(10)..=Duration::from_secs(30);
        ensure!(freezes.contains(&policy.freeze_limit), "freeze_limit: between 10ms and 30s");
        let memory = 1 << 20..=1 << 30;
        ensure!(memory.contains(&policy.cut_memory.0), "cut_memory: between 1 MiB and 1 GiB");
        Ok(policy)
    }
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
