//! An open disk as the source sees it: its epochs in flight and its open requests.
//!
//! Invariants: `durable <= newest`; every epoch in flight is `<= newest`, and at most
//! [`EPOCHS_IN_FLIGHT_MAX`] are.

use std::collections::BTreeMap;

use blocks::{ByteLen, Epoch, Geometry};

use super::SourceError;
use crate::COMPARE_BLOCK;
use crate::message::{HASH_COUNT_MAX, Hashes, LEAF_BLOCKS_MAX, Leaves, RequestId};
use crate::session::{EPOCHS_IN_FLIGHT_MAX, HASH_REQUESTS_MAX, Violation};

#[derive(Debug)]
pub(super) struct OpenDisk {
    /// Blocks of the disk that have a hash.
    blocks: u64,
    /// The newest epoch the target said is durable.
    durable: Epoch,
    /// The highest number used.
    newest: Epoch,
    in_flight: BTreeMap<Epoch, InFlight>,
    requests: BTreeMap<RequestId, Asked>,
}

#[derive(Debug)]
struct InFlight {
    follows: Epoch,
    /// Bytes sent that no credit came back for.
    unconsumed: u64,
    /// Whether its end frame was sent.
    ended: bool,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// On its way.
    Sent,
    /// Given up; the target may have committed it before it heard.
    Aborting,
    /// Built on an epoch that failed: it will fail too.
    Doomed,
}

/// What an open request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Blocks { first: u64, count: usize },
    LeavesOf { blocks: usize },
}

impl OpenDisk {
    pub(super) fn new(geometry: Geometry, durable: Epoch) -> Self {
        let blocks = geometry.len().0.div_ceil(COMPARE_BLOCK.0);
        let (in_flight, requests) = (BTreeMap::new(), BTreeMap::new());
        Self { blocks, durable, newest: durable, in_flight, requests }
    }

    /// Begins an epoch, and returns the one it follows.
    pub(super) fn begin(&mut self, epoch: Epoch) -> Result<Epoch, SourceError> {
        let follows = self.follows(epoch)?;
        self.newest = epoch;
        let begun = InFlight { follows, unconsumed: 0, ended: false, fate: Fate::Sent };
        self.in_flight.insert(epoch, begun);
        Ok(follows)
    }

    /// What an epoch that begins now follows, if it may begin.
    pub(super) fn follows(&self, epoch: Epoch) -> Result<Epoch, SourceError> {
        if epoch <= self.newest {
            return Err(SourceError::EpochNotRising { epoch, newest: self.newest });
        }
        if self.in_flight.len() >= EPOCHS_IN_FLIGHT_MAX {
            return Err(SourceError::TooManyEpochs);
        }
        // Whether the next epoch is built on one that was given up is only known with the answer.
        let mut aborting = self.in_flight.iter().filter(|(_, it)| it.fate == Fate::Aborting);
        if let Some((pending, _)) = aborting.next() {
            return Err(SourceError::AbortPending(*pending));
        }
        let sent = self.in_flight.iter().filter(|(_, it)| it.fate == Fate::Sent);
        Ok(sent.map(|(epoch, _)| *epoch).next_back().unwrap_or(self.durable))
    }

    /// The newest epoch that the target said is durable.
    pub(super) fn durable_epoch(&self) -> Epoch {
        self.durable
    }

    /// Gives an epoch up; whether the target is to be told. It is told of a doomed epoch too, as
    /// it may not have seen a frame of it, and now never will.
    pub(super) fn abort(&mut self, epoch: Epoch) -> bool {
        let Some(it) = self.in_flight.get_mut(&epoch) else { return false };
        let told_before = it.fate == Fate::Aborting;
        if it.fate == Fate::Sent {
            it.fate = Fate::Aborting;
        }
        !told_before
    }

    pub(super) fn charge(&mut self, epoch: Epoch, len: ByteLen) {
        if let Some(it) = self.in_flight.get_mut(&epoch) {
            it.unconsumed += len.0;
        }
    }

    pub(super) fn end(&mut self, epoch: Epoch) {
        if let Some(it) = self.in_flight.get_mut(&epoch) {
            it.ended = true;
        }
    }

    pub(super) fn room(&self, window: ByteLen) -> ByteLen {
        let unconsumed = self.in_flight.values().map(|it| it.unconsumed).sum();
        ByteLen(window.0.saturating_sub(unconsumed))
    }

    pub(super) fn credit(&mut self, epoch: Epoch, consumed: ByteLen) -> Result<(), Violation> {
        let Some(it) = self.in_flight.get_mut(&epoch) else {
            return Err(Violation::Unasked("credit"));
        };
        let left = it.unconsumed.checked_sub(consumed.0);
        it.unconsumed = left.ok_or(Violation::Unasked("credit"))?;
        Ok(())
    }

    pub(super) fn durable(&mut self, epoch: Epoch) -> Result<(), Violation> {
        match self.in_flight.remove(&epoch) {
            Some(it) if it.ended && it.follows == self.durable && it.fate != Fate::Doomed => {
                self.durable = epoch;
                Ok(())
            }
            _ => Err(Violation::DurableOutOfOrder(epoch)),
        }
    }

    /// Takes it that an epoch failed; whether that is news.
    pub(super) fn failed(&mut self, epoch: Epoch) -> Result<bool, Violation> {
        if epoch > self.newest {
            return Err(Violation::Unasked("a failed epoch"));
        }
        // The target may have forgotten that it answered before; that an epoch failed is safe to
        // hear twice.
        if self.in_flight.remove(&epoch).is_none() {
            return Ok(false);
        }
        // Epochs follow lower ones, so one pass in order finds all that are built on it.
        let mut lost = vec![epoch];
        for (epoch, it) in &mut self.in_flight {
            if lost.contains(&it.follows) {
                it.fate = Fate::Doomed;
                lost.push(*epoch);
            }
        }
        Ok(true)
    }

    pub(super) fn request(
        &mut self,
        request: RequestId,
        first_block: u64,
        count: u32,
    ) -> Result<(), SourceError> {
        let within = first_block.checked_add(count.into()).is_some_and(|end| end <= self.blocks);
        if !within || !(1..=HASH_COUNT_MAX).contains(&count) {
            return Err(SourceError::Blocks);
        }
        self.ask(request, Asked::Blocks { first: first_block, count: count as usize })
    }

    /// As [`Self::request`], for the leaves of blocks, which ascend.
    pub(super) fn request_leaves(
        &mut self,
        request: RequestId,
        blocks: &[u64],
    ) -> Result<(), SourceError> {
        let ascend = blocks.is_sorted_by(|a, b| a < b);
        let within = blocks.last().is_some_and(|last| *last < self.blocks);
        if !ascend || !within || blocks.len() > LEAF_BLOCKS_MAX as usize {
            return Err(SourceError::Blocks);
        }
        self.ask(request, Asked::LeavesOf { blocks: blocks.len() })
    }

    pub(super) fn hashes(&mut self, hashes: &Hashes) -> Result<(), Violation> {
        let Hashes { first_block: first, hashes: ref got, .. } = *hashes;
        self.answer(hashes.request, Asked::Blocks { first, count: got.len() })
    }

    pub(super) fn leaves(&mut self, leaves: &Leaves) -> Result<(), Violation> {
        self.answer(leaves.request, Asked::LeavesOf { blocks: leaves.blocks.len() })
    }

    fn ask(&mut self, request: RequestId, asked: Asked) -> Result<(), SourceError> {
        if self.requests.len() >= HASH_REQUESTS_MAX {
            return Err(SourceError::TooManyRequests);
        }
        self.requests.insert(request, asked);
        Ok(())
    }

    fn answer(&mut self, request: RequestId, to: Asked) -> Result<(), Violation> {
        let asked = self.requests.remove(&request);
        if asked == Some(to) { Ok(()) } else { Err(Violation::Unasked("hashes")) }
    }
}
