//! `[resync]` and `[verify]` of `agent.toml`: when comparisons may begin, and how often blocks are
//! sampled.

use std::time::Duration;

use anyhow::{Result, ensure};
use control::ResyncWindow;

use super::{Interval, layer};

/// When comparisons may begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResyncConfig {
    /// In which part of the day, in local time. Whoever asks may have one begin at once.
    pub(crate) window: ResyncWindow,
}

/// How often a few blocks are held against the replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VerifyConfig {
    /// From one sample to the next; none without.
    pub(crate) sample_interval: Option<Duration>,
}

layer!(ResyncLayer { window: String });

layer!(VerifyLayer { sample_interval: Interval });

impl VerifyConfig {
    pub(super) fn check(layer: &VerifyLayer) -> Result<Self> {
        let interval = layer.sample_interval.map_or(Duration::from_secs(900), |it| it.0);
        ensure!(
            interval.is_zero() || interval >= Duration::from_secs(1),
            "sample_interval: at least 1s, or 0 for no samples"
        );
        Ok(Self { sample_interval: (!interval.is_zero()).then_some(interval) })
    }
}

impl ResyncConfig {
    pub(super) fn check(layer: &ResyncLayer) -> Result<Self> {
        let window = layer.window.as_deref().map(str::parse).transpose()?;
        Ok(Self { window: window.unwrap_or_default() })
    }
}
