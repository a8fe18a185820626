//! Online verification: a disk is held against its replica while both are at work.
//!
//! A thread goes over the disk, a piece at a time and no faster than it is told. What differs is
//! worth nothing by itself: the disk may have been written since. So the core is told before the
//! replica's hashes are asked for, and again after the disk was read, and answers which chunks were
//! dirty at any time in between: marked, sealed or on their way. The others were the same on both
//! sides all that time, and if one of them differs then, and again when it is looked at later, it
//! is different.
//!
//! Chunks that were dirty are looked at again, a few times; those that are dirty every time are
//! said to be unsettled.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::Result;
use blocks::{ByteLen, ChunkIndex, ChunkRange, DiskId, Extent, Geometry};
use crossbeam_channel::{Sender, bounded};
use wire::COMPARE_BLOCK;
use wire::message::{HashedFrom, LEAF_BLOCKS_MAX};

use super::core::Event;
use super::probe::{Found, Probe};

/// How often what differed, or was dirty, is looked at again.
const LOOKS_MAX: u32 = 5;
/// From one such look to the next: longer than a write takes to be done and marked.
const LATER: Duration = Duration::from_millis(1500);
/// From one question to the core to the next, while it can't answer.
const SOON: Duration = Duration::from_millis(20);
/// Without an answer for as long as this the verification is given up.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the core is asked.
pub(super) struct Question {
    pub(super) disk: DiskId,
    pub(super) about: About,
    pub(super) answer: Sender<Answer>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum About {
    /// Chunks are about to be looked at.
    Begin(ChunkRange),
    /// They were.
    End,
}

pub(super) enum Answer {
    /// The chunks that were dirty at any time since the beginning.
    Dirty(BTreeSet<ChunkIndex>),
    /// Not now: a cut is under way, the target does not answer, or a comparison is due.
    NotNow,
    /// The verification is over.
    Over,
}

/// How far a verification has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) looked_at: ByteLen,
    pub(super) differing: Vec<Extent>,
    /// Those of them of which the replica's medium holds something else than was written to it.
    pub(super) decayed: Vec<Extent>,
    /// Dirty whenever they were looked at.
    pub(super) unsettled: ByteLen,
}

/// What a verification tells the core.
pub(super) enum Told {
    So(Progress),
    Done(Scope, Progress),
    Failed(Scope, String),
}

/// What is to be verified, and how.
pub(super) struct Verification {
    pub(super) disk: DiskId,
    pub(super) geometry: Geometry,
    pub(super) probe: Probe,
    /// What is looked at: blocks that ascend.
    pub(super) blocks: Vec<u64>,
    pub(super) scope: Scope,
    /// Bytes a second, at most.
    pub(super) rate: ByteLen,
    pub(super) events: Sender<Event>,
    /// Of what the replica's medium was found, at any look, to hold something else than was
    /// written to it. Only the first look at it shows that.
    pub(super) decayed: HashSet<Extent>,
}

/// Of what a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of the disk: somebody has asked.
    Whole,
    /// Blocks anywhere, to know how likely it is that the whole differs.
    Sample,
}

/// Blocks to look at again.
struct Again {
    block: u64,
    /// Chunks that differed and were not dirty, if that is why.
    suspects: BTreeSet<ChunkIndex>,
    looks: u32,
    due: Instant,
}

/// The verification is over before its end.
struct Over;

impl Verification {
    /// Goes over the whole disk, and tells the core how it went.
    pub(super) fn run(mut self) {
        let mut progress = Progress::default();
        let told = match self.verify(&mut progress) {
            Ok(Ok(())) => Told::Done(self.scope, progress),
            Ok(Err(Over)) => return,
            Err(error) => Told::Failed(self.scope, format!("{error:#}")),
        };
        self.tell(told);
    }

    fn verify(&mut self, progress: &mut Progress) -> Result<Result<(), Over>> {
        let mut again: VecDeque<Again> = VecDeque::new();
        let began = Instant::now();
        for blocks in std::mem::take(&mut self.blocks).chunks(LEAF_BLOCKS_MAX as usize) {
            let Ok(looked) = self.look(blocks)? else { return Ok(Err(Over)) };
            progress.looked_at.0 += looked.found.bytes;
            self.decayed.extend(&looked.found.decayed);
            again.extend(looked.to_look_at_again(self.geometry, 1));
            self.tell(Told::So(progress.clone()));
            self.keep_to_rate(began, progress.looked_at);
        }
        while let Some(Again { block, suspects, looks, due }) = again.pop_front() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let Ok(looked) = self.look(&[block])? else { return Ok(Err(Over)) };
            self.decayed.extend(&looked.found.decayed);
            if looks < LOOKS_MAX {
                again.extend(looked.to_look_at_again(self.geometry, looks + 1));
            } else {
                looked.conclude(self.geometry, &suspects, progress);
                let decayed = |extent: &&Extent| self.decayed.contains(extent);
                progress.decayed = progress.differing.iter().filter(decayed).copied().collect();
                self.tell(Told::So(progress.clone()));
            }
        }
        Ok(Ok(()))
    }

    /// Looks at blocks that ascend, and waits until the core can say what that is worth.
    fn look(&mut self, blocks: &[u64]) -> Result<Result<Looked, Over>> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
            return Ok(Err(Over));
        };
        let chunks = chunks_of(self.geometry, *first, *last);
        let began = Instant::now();
        loop {
            if self.ask(About::Begin(chunks)).is_err() {
                return Ok(Err(Over));
            }
            match self.probe.look(HashedFrom::Medium, blocks) {
                Ok(found) => {
                    let Ok(dirty) = self.ask(About::End) else { return Ok(Err(Over)) };
                    return Ok(Ok(Looked { blocks: blocks.to_vec(), found, dirty }));
                }
                // The connection may be back when the core answers next.
                Err(error) if began.elapsed() < PATIENCE => {
                    tracing::debug!(DISK = %self.disk, "verification waits: {error:#}");
                    std::thread::sleep(LATER);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn ask(&self, about: About) -> Result<BTreeSet<ChunkIndex>, Over> {
        loop {
            let (answer, answered) = bounded(1);
            let question = Question { disk: self.disk, about, answer };
            self.events.send(Event::Verify(question)).map_err(|_| Over)?;
            match answered.recv().map_err(|_| Over)? {
                Answer::Dirty(dirty) => return Ok(dirty),
                Answer::NotNow => std::thread::sleep(SOON),
                Answer::Over => return Err(Over),
            }
        }
    }

    fn keep_to_rate(&self, began: Instant, looked_at: ByteLen) {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let due = Duration::from_secs_f64(looked_at.0 as f64 / self.rate.0.max(1) as f64);
        std::thread::sleep((began + due).saturating_duration_since(Instant::now()));
    }

    fn tell(&self, told: Told) {
        if self.scope == Scope::Sample && matches!(told, Told::So(_)) {
            return;
        }
        // The agent may have stopped.
        drop(self.events.send(Event::Verified(self.disk, told)));
    }
}

/// What a look has found, and what was dirty meanwhile.
struct Looked {
    blocks: Vec<u64>,
    found: Found,
    dirty: BTreeSet<ChunkIndex>,
}

impl Looked {
    /// Chunks that differ though they were not dirty.
    fn suspects(&self, geometry: Geometry) -> BTreeSet<ChunkIndex> {
        let differing = self.found.differing.iter().flat_map(|extent| indices(geometry, *extent));
        differing.filter(|chunk| !self.dirty.contains(chunk)).collect()
    }

    /// The blocks that are not known to be equal.
    fn to_look_at_again(&self, geometry: Geometry, looks: u32) -> Vec<Again> {
        let (all, due) = (self.suspects(geometry), Instant::now() + LATER);
        let again = self.blocks.iter().filter_map(|block| {
            let ChunkRange { start, end } = chunks_of(geometry, *block, *block);
            let suspects: BTreeSet<ChunkIndex> = all.range(start..end).copied().collect();
            let is_settled = suspects.is_empty() && self.dirty.range(start..end).next().is_none();
            (!is_settled).then_some(Again { block: *block, suspects, looks, due })
        });
        again.collect()
    }

    /// What is to be said of a block after the last look: that a chunk differs if it did so, and was
    /// not dirty, at this look and at the one before.
    fn conclude(&self, geometry: Geometry, before: &BTreeSet<ChunkIndex>, progress: &mut Progress) {
        let now = self.suspects(geometry);
        let differs = |extent: &&Extent| {
            indices(geometry, **extent).all(|chunk| now.contains(&chunk) && before.contains(&chunk))
        };
        progress.differing.extend(self.found.differing.iter().filter(differs));
        let unsettled = self.dirty.len() + now.difference(before).count();
        progress.unsettled.0 += unsettled as u64 * geometry.chunk().bytes().min(COMPARE_BLOCK.0);
    }
}

fn indices(geometry: Geometry, extent: Extent) -> impl Iterator<Item = ChunkIndex> {
    let chunks = geometry.chunks_of(extent);
    (chunks.start.0..chunks.end.0).map(ChunkIndex)
}

/// The chunks from one block to another, with both.
fn chunks_of(geometry: Geometry, first: u64, last: u64) -> ChunkRange {
    let chunk = geometry.chunk().bytes();
    let start = ChunkIndex(first * COMPARE_BLOCK.0 / chunk);
    let end = ((last + 1) * COMPARE_BLOCK.0).div_ceil(chunk).min(geometry.chunks());
    ChunkRange { start, end: ChunkIndex(end) }
}
