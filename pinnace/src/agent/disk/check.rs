//! Holding the programs' counters of a disk against the kernel's: losses, moments of rest, and what a
//! next agent has to know of both.

use std::time::{Duration, Instant};

use blocks::{GapReason, Taint};
use ebpf::device::Device;
use ebpf::{Counters, DiskClass, TrackedDisk};
use tracker::{Confirmation, CrossCheck, Reading, Sample, Verdict};

use super::ProtectedDisk;

/// Says that a baseline was kept beside the disk's maps.
const BASELINE_KEPT: u64 = 1;
/// Says that there is none any more, and that a comparison is owed once there is one again.
const BASELINE_LOST: u64 = 2;
/// Says that what is outstanding at rest was kept with it.
const REST_KEPT: u64 = 1;

/// How long a disk is looked at for a moment of rest before its initial replication begins. Only one
/// that is never idle, not for microseconds, takes so long, and its points are not confirmed.
const SETTLING: Duration = Duration::from_secs(1);
const BETWEEN_LOOKS: Duration = Duration::from_micros(500);

/// The cross-check of a disk that was tracked before: it goes on from the offset kept then, so that
/// a loss while no agent ran is found.
pub(in crate::agent) fn resumed_check(tracked: &TrackedDisk) -> CrossCheck {
    kept_offset(tracked).map_or_else(CrossCheck::default, CrossCheck::resume)
}

/// By how much the programs count more than the kernel, once that is settled.
pub(in crate::agent) fn kept_offset(tracked: &TrackedDisk) -> Option<i64> {
    match tracked.baseline() {
        [BASELINE_KEPT, offset, _, _] => Some(offset.cast_signed()),
        _ => None,
    }
}

/// A disk that was tracked before anything was written to it: both count from zero, and nothing was
/// under way.
pub(in crate::agent) fn begin_at_zero(tracked: &TrackedDisk) {
    tracked.keep_baseline([BASELINE_KEPT, 0, REST_KEPT, 0]);
}

/// Whether an agent before this one owed the disk a comparison: see
/// [`ProtectedDisk::owes_comparison`].
pub(in crate::agent) fn resumed_debt(tracked: &TrackedDisk) -> bool {
    tracked.baseline()[0] == BASELINE_LOST
}

/// The programs that count now are behind those that did: the kept offset follows. What is
/// outstanding at rest has to be learnt anew.
pub(in crate::agent) fn follow_upgrade(tracked: &TrackedDisk, device: &Device, behind: &Counters) {
    if let [BASELINE_KEPT, offset, _, _] = tracked.baseline() {
        let offset = offset.wrapping_sub(device.accounting.counted(behind));
        tracked.keep_baseline([BASELINE_KEPT, offset, 0, 0]);
    }
}

/// The confirmation of points of a disk that was tracked before.
pub(in crate::agent) fn resumed_confirmation(tracked: &TrackedDisk) -> Confirmation {
    match tracked.baseline() {
        [BASELINE_KEPT, _, REST_KEPT, rest] => Confirmation::resume(rest.cast_signed()),
        _ => Confirmation::default(),
    }
}

impl ProtectedDisk {
    /// Looks for what tracking could not follow and for writes it did not see: the reason of a
    /// gap, if there is one. Taints and the baseline stay as they are until the caller has put the
    /// gap on record, so that the next agent finds it again if this one does not come so far.
    pub(in crate::agent) fn look(&mut self) -> anyhow::Result<Option<GapReason>> {
        let mut taints = self.tracked.taints();
        let kept = self.device.keeps_statistics()?;
        if !kept {
            // From here on they are.
            if let Err(refusal) = self.device.enable_statistics() {
                tracing::error!(DISK = self.name, "{refusal}");
            }
            self.learn_anew();
        }
        let verdict = self.cross_check()?;
        if let Verdict::Unkept { sectors } = verdict {
            tracing::warn!(DISK = self.name, sectors, "written and not in the statistics");
            self.learn_anew();
        }
        let is_settled = self.check.settled_offset().is_some();
        let due = self.owes_comparison && is_settled;
        self.owes_comparison &= !is_settled;
        if !kept || matches!(verdict, Verdict::Unkept { .. }) || due {
            taints = taints.with(Taint::StatisticsOff);
        }
        if let Verdict::Missing { sectors } = verdict {
            self.points.confirmation.handle_missing(sectors);
        }
        let gap = match verdict {
            _ if !taints.is_empty() => Some(GapReason::Tainted(taints)),
            Verdict::Missing { sectors } => {
                Some(GapReason::CrossCheck { missing_sectors: sectors })
            }
            _ => None,
        };
        if gap.is_none() {
            self.keep_baseline();
        }
        Ok(gap)
    }

    /// Holds the programs' count against the kernel's statistics.
    fn cross_check(&mut self) -> anyhow::Result<Verdict> {
        // The statistics first: whatever they hold, the programs have counted before.
        let statistics = self.device.statistics()?;
        let counters = self.tracked.counters()?;
        let counted = self.device.accounting.counted(&counters);
        if counters.ring_lost > self.ring_lost {
            self.ring_lost = counters.ring_lost;
            self.tracker.handle_loss();
        }
        let led = self.device.class != DiskClass::RequestBased;
        let statistics_lead = led && statistics.in_flight > 0;
        let statistics = self.device.accounting.kept(&statistics);
        Ok(match statistics_lead {
            true => Verdict::Plausible,
            false => self.check.handle_reading(Reading { statistics, counted }),
        })
    }

    /// Forgets what separated the statistics from the counters, since the statistics were not kept
    /// for a while. A comparison must follow that begins once it is known again, in whatever agent.
    pub(in crate::agent) fn learn_anew(&mut self) {
        self.check = CrossCheck::default();
        // What was missed meanwhile is outstanding for good.
        self.points.confirmation = Confirmation::default();
        (self.proves, self.owes_comparison) = (false, true);
        self.tracked.keep_baseline([BASELINE_LOST, 0, 0, 0]);
        self.settle();
    }

    /// Leaves what this agent has settled for the next one, if it proves anything.
    pub(in crate::agent) fn keep_baseline(&self) {
        let Some(offset) = self.check.settled_offset().filter(|_| self.proves) else { return };
        let (kept, rest) = match self.points.confirmation.rest() {
            Some(rest) => (REST_KEPT, rest.cast_unsigned()),
            None => (0, 0),
        };
        self.tracked.keep_baseline([BASELINE_KEPT, offset.cast_unsigned(), kept, rest]);
    }

    /// Waits for moments of rest, but not for long, so that the cross-check misses nothing from
    /// here on.
    pub(in crate::agent) fn settle(&mut self) {
        let deadline = Instant::now() + SETTLING;
        while self.check.settled_offset().is_none() && Instant::now() < deadline {
            match self.sample().map(|sample| sample.at_rest()) {
                Ok(Some(reading)) => drop(self.check.handle_rest(reading)),
                Ok(None) => {}
                Err(error) => return tracing::warn!(DISK = self.name, "counters: {error:#}"),
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// A look at all counters, to confirm points.
    pub(in crate::agent) fn sample(&self) -> anyhow::Result<Sample> {
        let accounting = self.device.accounting;
        let before = self.device.statistics()?;
        let counters = self.tracked.counters()?;
        let after = self.device.statistics()?;
        Ok(Sample {
            statistics: accounting.kept(&before),
            counted: accounting.counted(&counters),
            outstanding: counters.outstanding(),
            statistics_after: accounting.kept(&after),
            in_flight: before.in_flight > 0 || after.in_flight > 0,
        })
    }
}
