//! Comparisons: when they begin, and what is kept of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blocks::{DiskId, GapReason};
use crossbeam_channel::Sender;

use super::Core;
use crate::admin::agent::Response;
use crate::agent::disk::{ProtectedDisk, Session};
use crate::agent::probe::{self, Probe};
use crate::agent::resync::{Compared, ResyncRecord, opens_in};
use crate::exit::{Exit, Failure};

/// A comparison under way, as this agent has seen it.
pub(in crate::agent) struct UnderWay {
    began: Instant,
    /// What was sent and compared before it.
    sent: u64,
    compared: u64,
}

/// What is asked of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Begin {
    /// When the window opens.
    InWindow,
    AtOnce,
}

impl Core {
    /// Keeps on record why a disk needs a comparison, since when, and whether it has begun.
    pub(super) fn keep_resync(&mut self, id: DiskId) -> Result<()> {
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(()) };
        let due = disk.gap().filter(|reason| *reason != GapReason::NeverReplicated);
        let record = match (due, &disk.record.resync) {
            (None, None) => return Ok(()),
            (Some(reason), Some(kept)) if kept.reason == reason.code() => return Ok(()),
            (Some(reason), Some(kept)) => Some(kept.because(reason)),
            (Some(reason), None) => Some(ResyncRecord::new(reason)),
            (None, Some(_)) => None,
        };
        disk.record.resync = record;
        if disk.record.resync.is_none() {
            // Whatever it was, it was sent.
            disk.record.difference = None;
        }
        if disk.record.resync.is_none()
            && let Some(under_way) = disk.comparing.take()
        {
            let totals = disk.sent.totals;
            let compared = Compared {
                seconds: under_way.began.elapsed().as_secs_f64(),
                compared: totals.raw - under_way.compared,
                sent: totals.wire - under_way.sent,
            };
            tracing::info!(
                DISK = disk.name,
                seconds = compared.seconds,
                compared = compared.compared,
                sent = compared.sent,
                "compared"
            );
            disk.record.last_compared = Some(compared);
        }
        self.state.write_disk(&disk.record)
    }

    /// Whether an epoch of the disk's pass may be sealed: that of a comparison waits for its time.
    pub(super) fn may_pass(&self, disk: &ProtectedDisk) -> bool {
        match (disk.gap(), &disk.record.resync) {
            (None | Some(GapReason::NeverReplicated), _) => true,
            (Some(_), Some(kept)) if kept.asked || kept.begun.is_some() => true,
            (Some(_), _) => self.window_opens_in() == Some(Duration::ZERO),
        }
    }

    /// How long it is until comparisons may begin.
    pub(super) fn window_opens_in(&self) -> Option<Duration> {
        opens_in(self.config.resync.window)
    }

    /// A segment of a comparison is on its way.
    pub(super) fn note_comparing(&mut self, id: DiskId) -> Result<()> {
        self.keep_resync(id)?;
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(()) };
        let (sent, compared) = (disk.sent.totals.wire, disk.sent.totals.raw);
        disk.comparing.get_or_insert(UnderWay { began: Instant::now(), sent, compared });
        match &mut disk.record.resync {
            Some(kept) if kept.begun.is_none() => {
                kept.begun = Some(jiff::Timestamp::now());
                tracing::info!(DISK = disk.name, REASON = kept.reason, "the comparison begins");
                self.state.write_disk(&disk.record)
            }
            _ => Ok(()),
        }
    }

    /// So much is dirty that a comparison is due instead of a delta; whether that is so.
    pub(super) fn turn_to_comparison(&mut self, id: DiskId) -> bool {
        let policy = self.seal_policy();
        let Some(disk) = self.disks.get_mut(&id) else { return false };
        let harvest = disk.harvest();
        disk.tracker.handle_harvest(&harvest);
        if !disk.tracker.is_beyond_threshold(policy) {
            return false;
        }
        self.open_gap(id, GapReason::DirtyThreshold);
        true
    }

    /// An operator wants a disk compared.
    pub(super) fn ask_for_resync(&mut self, wanted: &str, begin: Begin) -> Result<Response> {
        let id = self.find_disk(wanted)?;
        let gap = self.disks.get(&id).and_then(ProtectedDisk::gap);
        match gap {
            Some(GapReason::NeverReplicated) => {
                let words = format!("{wanted}: its initial replication is not done yet");
                return Err(Failure::new(Exit::WrongState, words).into());
            }
            Some(_) => {}
            None => self.open_gap(id, GapReason::Requested),
        }
        self.keep_resync(id)?;
        let opens_in = self.window_opens_in();
        let window = self.config.resync.window;
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(Response::Done(String::new())) };
        let kept = disk.record.resync.as_mut().context("a gap is on record")?;
        kept.asked |= begin == Begin::AtOnce;
        let (name, at_once) = (disk.name.clone(), kept.asked || kept.begun.is_some());
        disk.next_cycle = Instant::now();
        self.state.write_disk(&disk.record)?;
        let connected = matches!(disk.session, Session::Open { .. });
        Ok(Response::Done(match opens_in {
            _ if !connected => format!("{name}: the comparison begins when the target answers"),
            Some(Duration::ZERO) => format!("{name}: the comparison begins"),
            _ if at_once => format!("{name}: the comparison begins"),
            Some(_) => format!(
                "{name}: the comparison waits for its window, {window}; `pinnace resync {name} \
                 --now` begins it at once"
            ),
            None => format!("{name}: the comparison waits for `pinnace resync {name} --now`"),
        }))
    }

    /// Says what a comparison of a disk would amount to. Looks at some blocks of it for that, on a
    /// thread of its own, which answers.
    pub(super) fn estimate_resync(&self, wanted: &str, answer: Sender<Result<Response>>) {
        let probe = self.find_disk(wanted).and_then(|id| self.probe(id));
        let (probe, whole, last) = match probe {
            Ok(found) => found,
            Err(error) => return drop(answer.send(Err(error))),
        };
        let estimate = move || {
            let estimate = probe::estimate(probe, whole, last).map(Response::Estimate);
            drop(answer.send(estimate));
        };
        if let Err(error) = std::thread::Builder::new().name("estimate".into()).spawn(estimate) {
            tracing::error!(%error, "no thread to estimate a comparison");
        }
    }

    /// What looks at blocks of a disk and of its replica, how much a comparison would compare, and
    /// what the last one amounted to.
    fn probe(&self, id: DiskId) -> Result<(Probe, blocks::ByteLen, Option<Compared>)> {
        let disk = self.disks.get(&id).context("the disk was found")?;
        if !matches!(disk.session, Session::Open { .. }) {
            let words = format!("{}: the target does not answer", disk.name);
            return Err(Failure::new(Exit::Unreachable, words).into());
        }
        let whole = match disk.gap() {
            Some(_) => disk.outstanding_bytes(),
            None => disk.geometry.len(),
        };
        let probe = Probe::open(&disk.record.path, disk.geometry, self.link.clone(), id)?;
        Ok((probe, whole, disk.record.last_compared))
    }

    /// The disk of a name, path or identity.
    pub(super) fn find_disk(&self, wanted: &str) -> Result<DiskId> {
        let found = self.disks.values().find(|disk| disk.is(wanted));
        let missing = || Failure::new(Exit::NotFound, format!("{wanted} is not protected"));
        Ok(found.ok_or_else(missing)?.id)
    }
}
