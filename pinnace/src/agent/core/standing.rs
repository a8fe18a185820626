//! Where the protection of each disk stands, looked at after every event.

use std::time::Instant;

use blocks::{Coverage, DiskId, GapReason};
use control::{Circumstances, Facts, ProtectionState, Replicated, explain};

use super::Core;
use crate::admin::agent::LinkStatus;
use crate::agent::clock::now;
use crate::agent::disk::{ProtectedDisk, Session};
use crate::agent::resync::Difference;
use crate::agent::state::{Refusal, Standing};

impl Core {
    /// Takes a disk to the state that follows from the facts, and keeps it if it must survive.
    pub(super) fn settle(&mut self, id: DiskId) {
        let refused = matches!(self.link_status, LinkStatus::Refused { .. });
        let objective = self.config.policy.points.rpo.duration();
        let may_compare = self.disks.get(&id).is_some_and(|disk| self.may_pass(disk));
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let facts = Facts {
            replicated: match disk.tracker.coverage() {
                Coverage::Complete => Replicated::Follows,
                Coverage::Gap(GapReason::NeverReplicated) => Replicated::Never,
                Coverage::Gap(_) => Replicated::Suspect,
            },
            sending: may_compare && matches!(disk.session, Session::Open { .. }),
            late: disk.tracker.lag(now()) > objective,
            paused: disk.record.paused,
            refused: refused
                || matches!(disk.session, Session::Refused { .. })
                || disk.is_known_to_differ(),
        };
        let stood = disk.standing().state;
        let passed: Vec<ProtectionState> = stood.steps(&facts).collect();
        let Some(state) = passed.last().copied() else { return };
        tracing::info!(DISK = disk.name, STATE = %state, ?passed, "was {stood}");
        let refusal = match &disk.session {
            Session::Refused { reason, replica, .. } => Some(Refusal {
                reason: reason.clone(),
                replica: replica.map(|line| line.to_string()),
            }),
            _ => None,
        };
        disk.record.standing = Some(Standing { state, since: jiff::Timestamp::now(), refusal });
        // Of a state that comes and goes with the load the next agent makes up its own mind.
        let of_load = [ProtectionState::Protected, ProtectionState::Lagging];
        if (!of_load.contains(&state) || !of_load.contains(&stood))
            && let Err(error) = self.state.write_disk(&disk.record)
        {
            tracing::error!(DISK = disk.name, "keeping its state: {error:#}");
        }
    }

    /// Why a disk is not green and what mends it.
    pub(super) fn explain(&self, disk: &ProtectedDisk) -> Option<String> {
        let refused_machine = match &self.link_status {
            LinkStatus::Refused { reason } => {
                Some(format!("the target refuses this machine: {reason}"))
            }
            _ => None,
        };
        let (refusal, failed) = match &disk.session {
            Session::Refused { reason, replica: None, .. } => {
                (Some(format!("the target refuses it: {reason}")), None)
            }
            Session::Refused { reason, replica: Some(_), .. } => {
                let (name, dirty) = (&disk.name, disk.tracker.status(now()).active);
                let words = format!(
                    "the target refuses it: {reason} Here {dirty} are dirty. To keep what this \
                     machine has and discard the replica's own: `pinnace resync {name} \
                     --discard-target`; to keep what the replica became: `pinnace unprotect {name}`."
                );
                (Some(words), None)
            }
            Session::Failed { reason, until, .. } => (None, Some((reason, *until))),
            Session::Closed | Session::Opening | Session::Open { .. } => (None, None),
        };
        let refusal = refused_machine.or(refusal);
        let held = disk.held.as_ref().map(|held| (&held.reason, held.until));
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let failing = failed.or(held).map(|(reason, until)| (reason.as_str(), left(until)));
        let since = disk.record.resync.as_ref().map(|kept| local_time(kept.since));
        let waits_for = self.comparison_waits_for(disk);
        let difference = disk.record.difference.as_ref().map(|found| of_difference(disk, found));
        let circumstances = Circumstances {
            disk: &disk.name,
            refusal: refusal.as_deref(),
            failing,
            connected: matches!(self.link_status, LinkStatus::Connected { .. }),
            gap: disk.gap().filter(|reason| *reason != GapReason::NeverReplicated),
            since: since.as_deref(),
            waits_for: waits_for.as_deref(),
            difference: difference.as_deref(),
            objective: self.config.policy.points.rpo.duration(),
        };
        explain(disk.standing().state, &circumstances)
    }

    /// What the comparison of a disk waits for, if it does.
    fn comparison_waits_for(&self, disk: &ProtectedDisk) -> Option<String> {
        if self.may_pass(disk) {
            return None;
        }
        let name = &disk.name;
        Some(match self.window_opens_in() {
            Some(_) => {
                let window = self.config.resync.window;
                format!("its window, {window}; `pinnace resync {name} --now` begins at once")
            }
            None => format!("somebody to ask: `pinnace resync {name} --now` begins at once"),
        })
    }
}

fn of_difference(disk: &ProtectedDisk, found: &Difference) -> String {
    let Difference { bytes, found, cause, .. } = found;
    let (at, name) = (local_time(*found), &disk.name);
    format!(
        "the verification at {at} found {bytes} bytes that differ from the replica (likely cause: \
         {cause}); `pinnace resync {name} --now` sends them"
    )
}

fn local_time(at: jiff::Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string()
}
