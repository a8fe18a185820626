//! The metrics of this moment.

use anyhow::Result;

use super::Core;
use crate::agent::metrics::{self, Measured, MeasuredDisk};
use crate::metrics::{Distribution, Page};
use crate::pki;

impl Core {
    pub(super) fn metrics(&mut self) -> Result<Page> {
        let status = self.status()?;
        let stats = &self.points.stats;
        let disks = self.disks.values().map(|disk| {
            let of = MeasuredDisk {
                cycle: Distribution::spans(&disk.sent.cycle),
                latency: Distribution::spans(&disk.sent.latency),
                lost: disk.sent.lost.clone(),
            };
            (disk.id.to_string(), of)
        });
        let measured = Measured {
            disks: disks.collect(),
            window: Distribution::moments(&stats.window),
            freeze: Distribution::moments(&stats.freeze),
            attempts: Distribution::tries(&stats.attempts),
            // There is none before the machine has enrolled.
            certificate_expiry: pki::expiry_of(&self.state.pki(), "machine").ok(),
        };
        Ok(metrics::page(&status, measured))
    }
}
