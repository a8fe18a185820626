//! An open disk as the target sees it: its epochs in flight and its open requests.
//!
//! Invariants: `opened_at <= durable`; at most one epoch is being committed, and it follows
//! `durable`; no epoch is both in flight and answered.
//!
//! An epoch that was built on a failed one may arrive after others, with higher numbers, have
//! become durable. So a number below `durable` is no replay by itself.

use std::collections::{BTreeMap, BTreeSet};

use blocks::{ByteLen, Epoch, Generation, Geometry};

use crate::COMPARE_BLOCK;
use crate::frame::{ChainError, CheckedFrame, EpochChain};
use crate::message::{HashRequest, LeafRequest, RequestId};
use crate::session::{EPOCHS_IN_FLIGHT_MAX, HASH_REQUESTS_MAX, StreamId, Violation};

/// Answers of either kind that are remembered. Older ones matter only to frames that were on the
/// way for as long as 64 answers took; those are refused as out of order.
const ANSWERS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct OpenDisk {
    generation: Generation,
    geometry: Geometry,
    /// The newest durable epoch when the disk was opened.
    opened_at: Epoch,
    /// The newest durable epoch.
    durable: Epoch,
    in_flight: BTreeMap<Epoch, Incoming>,
    /// Epochs that became durable in this session, the last of them.
    committed: BTreeSet<Epoch>,
    /// Epochs of which the source was told that they failed, the last of them.
    failed: BTreeSet<Epoch>,
    requests: BTreeMap<RequestId, Asked>,
}

/// What an open request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Blocks(HashRequest),
    LeavesOf { blocks: usize },
}

#[derive(Debug)]
struct Incoming {
    stream: StreamId,
    chain: EpochChain,
    stage: Stage,
    /// Bytes of frames that were received and not consumed.
    unconsumed: u64,
    /// Bytes that were consumed and not credited.
    uncredited: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Receiving,
    Complete,
    Committing,
}

/// What becomes of a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is in flight now.
    Begun,
    /// It failed before it arrived, and the source knows.
    FailedBefore,
    /// The epoch it follows failed, or is not the newest durable one and never will be again.
    OutOfOrder,
}

impl OpenDisk {
    pub(super) fn new(generation: Generation, geometry: Geometry, durable: Epoch) -> Self {
        Self {
            generation,
            geometry,
            opened_at: durable,
            durable,
            in_flight: BTreeMap::new(),
            committed: BTreeSet::new(),
            failed: BTreeSet::new(),
            requests: BTreeMap::new(),
        }
    }

    /// Judges the first frame of a stream.
    pub(super) fn admit(
        &mut self,
        stream: StreamId,
        frame: &CheckedFrame,
    ) -> Result<Admission, Violation> {
        let header = frame.header();
        let (epoch, follows) = (header.epoch, header.follows);
        if header.generation != self.generation {
            return Err(Violation::Generation(header.disk));
        }
        if self.held(epoch) || self.in_flight.contains_key(&epoch) {
            return Err(Violation::EpochAgain(epoch));
        }
        if self.failed.contains(&epoch) {
            return Ok(Admission::FailedBefore);
        }
        if follows < self.durable || self.failed.contains(&follows) {
            return Ok(Admission::OutOfOrder);
        }
        if self.in_flight.len() >= EPOCHS_IN_FLIGHT_MAX {
            return Err(Violation::TooManyEpochs);
        }
        self.check_extents(frame)?;
        let chain = EpochChain::begin(frame);
        let stage = if chain.has_ended() { Stage::Complete } else { Stage::Receiving };
        let unconsumed = frame.bytes().len() as u64;
        let incoming = Incoming { stream, chain, stage, unconsumed, uncredited: 0 };
        self.in_flight.insert(epoch, incoming);
        Ok(Admission::Begun)
    }

    /// Judges the next frame of an epoch in flight.
    pub(super) fn push(
        &mut self,
        epoch: Epoch,
        frame: &CheckedFrame,
        window: ByteLen,
    ) -> Result<(), Violation> {
        self.check_extents(frame)?;
        // Streams of failed epochs are not read, so what is not in flight is durable.
        let incoming = self.in_flight.get_mut(&epoch).ok_or(ChainError::AfterEnd)?;
        incoming.chain.push(frame)?;
        incoming.unconsumed += frame.bytes().len() as u64;
        if incoming.chain.has_ended() {
            incoming.stage = Stage::Complete;
        }
        // One window for all epochs of the disk, as the source reckons.
        let unconsumed: u64 = self.in_flight.values().map(|incoming| incoming.unconsumed).sum();
        if unconsumed > window.0 { Err(Violation::Window(epoch)) } else { Ok(()) }
    }

    /// The epoch whose turn to be committed it is, if it is complete; it is being committed then.
    pub(super) fn take_next(&mut self) -> Option<Epoch> {
        if self.in_flight.values().any(|incoming| incoming.stage == Stage::Committing) {
            return None;
        }
        let durable = self.durable;
        let mut in_flight = self.in_flight.iter_mut();
        let (epoch, incoming) = in_flight
            .find(|(_, it)| it.chain.first().follows == durable && it.stage == Stage::Complete)?;
        incoming.stage = Stage::Committing;
        Some(*epoch)
    }

    /// An epoch that is built on one older than the newest durable one.
    pub(super) fn stale(&self) -> Option<Epoch> {
        let stale = |(_, it): &(&Epoch, &Incoming)| it.chain.first().follows < self.durable;
        self.in_flight.iter().find(stale).map(|(epoch, _)| *epoch)
    }

    /// Takes it that an epoch is durable; whether it was being committed.
    pub(super) fn durable(&mut self, epoch: Epoch) -> bool {
        if self.in_flight.get(&epoch).is_none_or(|it| it.stage != Stage::Committing) {
            return false;
        }
        self.in_flight.remove(&epoch);
        self.durable = epoch;
        remember(&mut self.committed, epoch);
        true
    }

    /// Whether the source has still to be told what became of an epoch, and it is not being
    /// committed.
    pub(super) fn owes_an_answer(&self, epoch: Epoch) -> bool {
        let committing = self.in_flight.get(&epoch).is_some_and(|it| it.stage == Stage::Committing);
        !self.held(epoch) && !self.failed.contains(&epoch) && !committing
    }

    /// Whether frames of the epoch are missing.
    pub(super) fn is_receiving(&self, epoch: Epoch) -> bool {
        self.in_flight.get(&epoch).is_some_and(|it| it.stage == Stage::Receiving)
    }

    /// Takes an epoch out of flight, and returns its stream.
    pub(super) fn remove(&mut self, epoch: Epoch) -> Option<StreamId> {
        self.in_flight.remove(&epoch).map(|incoming| incoming.stream)
    }

    /// Remembers that an epoch failed, and returns those in flight that are built on it.
    pub(super) fn fail(&mut self, epoch: Epoch) -> Vec<Epoch> {
        remember(&mut self.failed, epoch);
        let built_on_it = |(_, it): &(&Epoch, &Incoming)| it.chain.first().follows == epoch;
        self.in_flight.iter().filter(built_on_it).map(|(epoch, _)| *epoch).collect()
    }

    /// The epochs that are not being committed, with their streams.
    pub(super) fn uncommitted(&self) -> impl Iterator<Item = (Epoch, StreamId)> {
        let uncommitted = self.in_flight.iter().filter(|(_, it)| it.stage != Stage::Committing);
        uncommitted.map(|(epoch, it)| (*epoch, it.stream))
    }

    /// Takes it that frames of an epoch were consumed; the credit to send, when it is `least`.
    pub(super) fn consume(
        &mut self,
        epoch: Epoch,
        consumed: ByteLen,
        least: ByteLen,
    ) -> Option<ByteLen> {
        let incoming = self.in_flight.get_mut(&epoch)?;
        assert!(consumed.0 <= incoming.unconsumed, "what is consumed was received");
        incoming.unconsumed -= consumed.0;
        incoming.uncredited += consumed.0;
        if incoming.uncredited < least.0 {
            return None;
        }
        Some(ByteLen(std::mem::take(&mut incoming.uncredited)))
    }

    /// Takes a request for hashes.
    pub(super) fn ask(&mut self, request: &HashRequest) -> Result<(), Violation> {
        let blocks = self.geometry.len().0.div_ceil(COMPARE_BLOCK.0);
        let end = request.first_block.checked_add(request.count.into());
        let within = end.is_some_and(|end| end <= blocks);
        self.take_request(within, request.request, Asked::Blocks(*request))
    }

    /// Takes a request for hashes of leaves, whose blocks ascend.
    pub(super) fn ask_leaves(&mut self, request: &LeafRequest) -> Result<(), Violation> {
        let blocks = self.geometry.len().0.div_ceil(COMPARE_BLOCK.0);
        let within = request.blocks.last().is_some_and(|last| *last < blocks);
        let asked = Asked::LeavesOf { blocks: request.blocks.len() };
        self.take_request(within, request.request, asked)
    }

    fn take_request(
        &mut self,
        within: bool,
        request: RequestId,
        asked: Asked,
    ) -> Result<(), Violation> {
        if !within || self.requests.len() >= HASH_REQUESTS_MAX {
            return Err(Violation::HashRequest);
        }
        match self.requests.insert(request, asked) {
            Some(_) => Err(Violation::HashRequest),
            None => Ok(()),
        }
    }

    /// Ends a request for hashes.
    pub(super) fn answer(&mut self, request: RequestId) -> Option<Asked> {
        self.requests.remove(&request)
    }

    /// Whether everything up to the epoch is durable.
    pub(super) fn holds(&self, through: Epoch) -> bool {
        through <= self.durable
    }

    /// Whether the replica holds the epoch.
    fn held(&self, epoch: Epoch) -> bool {
        epoch <= self.opened_at || self.committed.contains(&epoch)
    }

    fn check_extents(&self, frame: &CheckedFrame) -> Result<(), Violation> {
        if frame.extents().iter().all(|extent| self.geometry.holds(extent.extent())) {
            Ok(())
        } else {
            Err(Violation::PastEnd(frame.header().epoch))
        }
    }
}

fn remember(answers: &mut BTreeSet<Epoch>, epoch: Epoch) {
    answers.insert(epoch);
    if answers.len() > ANSWERS_MAX {
        answers.pop_first();
    }
}
