//! Verifications: what was dirty while somebody looked, and what they found.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use anyhow::{Context, Result};
use blocks::{Bitmap, ByteLen, ChunkIndex, ChunkRange, DiskId};
use wire::message::Features;

use super::Core;
use crate::admin::agent::{Response, VerifyPhase, VerifyStatus};
use crate::agent::disk::{ProtectedDisk, Session};
use crate::agent::probe::Probe;
use crate::agent::resync::Difference;
use crate::agent::verify::{About, Answer, Progress, Question, Scope, Told, Verification};
use crate::exit::{Exit, Failure};
use crate::identity::random_bytes;

/// Extents of differences that are kept and shown.
const EXTENTS_MAX: usize = 64;
/// Blocks of a sample, drawn with replacement.
const SAMPLED: u64 = 64;
/// A sample is read no faster than this.
const SAMPLE_RATE: ByteLen = ByteLen(16 << 20);

/// Chunks that somebody is looking at, and those of them that were dirty since.
#[derive(Debug)]
pub(in crate::agent) struct Looking {
    chunks: ChunkRange,
    dirty: BTreeSet<ChunkIndex>,
}

impl Looking {
    /// Takes it that chunks were dirty until now.
    pub(in crate::agent) fn note(&mut self, chunks: &Bitmap) {
        let mut next = chunks.first_from(self.chunks.start);
        while let Some(chunk) = next.filter(|chunk| *chunk < self.chunks.end) {
            self.dirty.insert(chunk);
            next = chunks.first_from(ChunkIndex(chunk.0 + 1));
        }
    }
}

impl Core {
    /// An operator wants a disk verified.
    pub(super) fn ask_for_verification(&mut self, wanted: &str, rate: ByteLen) -> Result<Response> {
        let id = self.find_disk(wanted)?;
        let Some(disk) = self.disks.get(&id) else { return Ok(Response::Done(String::new())) };
        let name = disk.name.clone();
        let wrong = |why: &str| Failure::new(Exit::WrongState, format!("{name}: {why}"));
        if disk.verifying.as_ref().is_some_and(|verify| verify.phase == VerifyPhase::Running) {
            return Err(wrong("it is being verified already").into());
        }
        if disk.gap().is_some() {
            return Err(
                wrong("its replica does not follow; a comparison finds what differs").into()
            );
        }
        if !matches!(disk.session, Session::Open { .. }) {
            let words = format!("{name}: the target does not answer");
            return Err(Failure::new(Exit::Unreachable, words).into());
        }
        if !self.features.contain(Features::LEAVES) {
            return Err(wrong("the target's version can't verify").into());
        }
        if disk.is_sampling {
            return Err(wrong("blocks of it are being sampled; try again in a moment").into());
        }
        let len = disk.geometry.len();
        self.verify(id, Scope::Whole, rate)?;
        if let Some(disk) = self.disks.get_mut(&id) {
            disk.verifying = Some(VerifyStatus::begin(len));
        }
        let words = "verification has begun; `pinnace status` shows how it goes";
        Ok(Response::Done(format!("{name}: {words}")))
    }

    /// Begins to look at some blocks of a disk, if it is time.
    pub(super) fn sample(&mut self, id: DiskId, now: Instant) -> Result<()> {
        let Some(interval) = self.config.verify.sample_interval else { return Ok(()) };
        let has_leaves = self.features.contain(Features::LEAVES);
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(()) };
        if disk.gap().is_some() {
            // What was seen before a comparison says nothing of what comes after it.
            disk.sampled_blocks = 0;
        }
        let running =
            disk.verifying.as_ref().is_some_and(|verify| verify.phase == VerifyPhase::Running);
        let open = matches!(disk.session, Session::Open { .. });
        if now < disk.next_sample || disk.gap().is_some() || running || disk.is_sampling || !open {
            return Ok(());
        }
        disk.next_sample = now + interval;
        if !has_leaves || disk.record.paused {
            return Ok(());
        }
        disk.is_sampling = true;
        self.verify(id, Scope::Sample, SAMPLE_RATE)
    }

    fn verify(&self, id: DiskId, scope: Scope, rate: ByteLen) -> Result<()> {
        let disk = self.disks.get(&id).context("a disk that is protected")?;
        let (geometry, events) = (disk.geometry, self.events.clone());
        let probe = Probe::open(&disk.record.path, geometry, self.link.clone(), id)?;
        let blocks = match scope {
            Scope::Whole => (0..probe.blocks()).collect(),
            Scope::Sample => {
                let mut drawn = BTreeSet::new();
                for _ in 0..SAMPLED {
                    drawn.insert(u64::from_le_bytes(random_bytes()?) % probe.blocks());
                }
                drawn.into_iter().collect()
            }
        };
        let verification = Verification {
            disk: id,
            geometry,
            probe,
            blocks,
            scope,
            rate,
            events,
            decayed: HashSet::new(),
        };
        std::thread::Builder::new().name("verify".into()).spawn(move || verification.run())?;
        Ok(())
    }

    /// Says which chunks were dirty while somebody looked at them.
    pub(super) fn apply_question(&mut self, question: &Question) {
        let id = question.disk;
        let cuts = self.points.cuts(id);
        let answer = match self.disks.get_mut(&id) {
            None => Answer::Over,
            // The cut has harvested what the tracker does not know of yet.
            Some(_) if cuts => Answer::NotNow,
            Some(disk) => look(disk, question.about),
        };
        // Whoever asked may have ended.
        drop(question.answer.send(answer));
    }

    pub(super) fn apply_verified(&mut self, id: DiskId, told: Told) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        match told {
            Told::So(progress) => disk.verifying.iter_mut().for_each(|it| it.take(&progress)),
            Told::Done(Scope::Whole, progress) => {
                if let Some(status) = &mut disk.verifying {
                    status.take(&progress);
                    status.finish(VerifyPhase::Done);
                }
                note_difference(disk, &progress);
            }
            Told::Done(Scope::Sample, progress) => {
                disk.is_sampling = false;
                let settled = progress.looked_at.0.saturating_sub(progress.unsettled.0);
                disk.sampled_blocks += settled / wire::COMPARE_BLOCK.0;
                if progress.differing.is_empty() {
                    return;
                }
                disk.sampled_blocks = 0;
                note_difference(disk, &progress);
            }
            Told::Failed(scope, why) => {
                tracing::warn!(DISK = disk.name, "verification ended: {why}");
                match (scope, &mut disk.verifying) {
                    (Scope::Whole, Some(status)) => {
                        status.finish(VerifyPhase::Failed);
                        status.error = Some(why);
                    }
                    _ => disk.is_sampling = false,
                }
                return;
            }
        }
        if let Err(error) = self.state.write_disk(&disk.record) {
            tracing::error!(DISK = %id, "{error:#}");
        }
    }
}

/// The greatest share of a disk's blocks that may differ without one of so many, drawn at random,
/// showing it more often than once in twenty times.
#[expect(clippy::cast_precision_loss, reason = "a bound")]
pub(in crate::agent) fn divergence_max(sampled: u64) -> f64 {
    if sampled == 0 { 1.0 } else { 1.0 - 0.05_f64.powf(1.0 / sampled as f64) }
}

fn look(disk: &mut ProtectedDisk, about: About) -> Answer {
    if disk.gap().is_some() || !matches!(disk.session, Session::Open { .. }) {
        return Answer::NotNow;
    }
    // What was marked until now, from the bitmap: the ring may have lost it.
    let harvest = disk.harvest();
    disk.tracker.handle_harvest(&harvest);
    let outstanding = disk.tracker.outstanding();
    if let About::Begin(chunks) = about {
        disk.looking = Some(Looking { chunks, dirty: BTreeSet::new() });
    }
    let Some(looking) = &mut disk.looking else { return Answer::Over };
    looking.note(&outstanding);
    match about {
        About::Begin(_) => Answer::Dirty(BTreeSet::new()),
        About::End => Answer::Dirty(disk.looking.take().map_or_else(BTreeSet::new, |it| it.dirty)),
    }
}

/// Keeps on record, loudly, what a verification has found; or that it has found nothing.
fn note_difference(disk: &mut ProtectedDisk, progress: &Progress) {
    let Progress { differing, decayed, .. } = progress;
    if differing.is_empty() {
        disk.record.difference = None;
        return;
    }
    let bytes: u64 = differing.iter().map(|extent| extent.len().0).sum();
    let cause = match decayed.len() {
        0 => {
            "writes to the source that tracking did not see, or to the replica behind the store's \
              back"
        }
        all if all == differing.len() => {
            "the replica's medium does not hold what was written to it: look at its health"
        }
        _ => {
            "the replica's medium does not hold all that was written to it, and there were writes \
              that tracking did not see"
        }
    };
    tracing::error!(DISK = disk.name, bytes, cause, "VERIFICATION FOUND A DIFFERENCE");
    let extents = differing.iter().take(EXTENTS_MAX);
    disk.record.difference = Some(Difference {
        found: jiff::Timestamp::now(),
        bytes,
        extents: extents.map(|extent| (extent.start.bytes(), extent.len().0)).collect(),
        decayed_bytes: decayed.iter().map(|extent| extent.len().0).sum(),
        cause: cause.to_owned(),
    });
}

impl VerifyStatus {
    fn begin(len: ByteLen) -> Self {
        Self {
            phase: VerifyPhase::Running,
            began: jiff::Timestamp::now(),
            ended: None,
            bytes: 0,
            of_bytes: len.0,
            differing_bytes: 0,
            unsettled_bytes: 0,
            error: None,
        }
    }

    fn take(&mut self, progress: &Progress) {
        self.bytes = progress.looked_at.0;
        self.differing_bytes = progress.differing.iter().map(|extent| extent.len().0).sum();
        self.unsettled_bytes = progress.unsettled.0;
    }

    fn finish(&mut self, phase: VerifyPhase) {
        self.phase = phase;
        self.ended = Some(jiff::Timestamp::now());
    }
}
