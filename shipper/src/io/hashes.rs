//! Asking for the replica's hashes, ahead of the reader.
//!
//! One thread for each comparison walks the plan, has the hashes of the blocks that its batches
//! read, and passes both on. The channel to the reader holds about one request's batches, so that
//! the next request is made while they are read.

use std::collections::VecDeque;

use crossbeam_channel::Sender;

use super::{parcel::Planned, wake::Waker};
use crate::{
    compare::{BlockHash, BlockRange, HASHES_PER_REQUEST, HashSource, blocks_of, next_range},
    plan::{BATCH_BYTES, Batch, Plan},
    shipment::ShipError,
};

/// Batches of one full request.
pub(crate) const BATCHES_AHEAD: usize =
    (HASHES_PER_REQUEST as u64 / (BATCH_BYTES.0 / wire::COMPARE_BLOCK.0)) as usize;

/// What the reader is told.
#[derive(Debug)]
pub(crate) enum Step {
    /// The next batch.
    Batch(Planned),
    /// There are no more.
    End,
    /// The hashes could not be had.
    Failed(ShipError),
}

/// The thread's own things.
pub(crate) struct HashFetcher {
    plan: Plan,
    source: HashSource,
    steps: Sender<Step>,
    waker: Waker,
    /// Batches whose blocks are still to be looked up, in order.
    ahead: VecDeque<Batch>,
    /// The hashes asked for last.
    known: (BlockRange, Vec<BlockHash>),
}

impl HashFetcher {
    pub(crate) fn new(plan: Plan, source: HashSource, steps: Sender<Step>, waker: Waker) -> Self {
        let known = (BlockRange { first: 0, count: 0 }, Vec::new());
        Self { plan, source, steps, waker, ahead: VecDeque::new(), known }
    }

    /// Runs until the plan ends, or the reader no longer listens.
    pub(crate) fn run(mut self) {
        loop {
            let step = self.next_step();
            let last = !matches!(step, Step::Batch(_));
            let sent = self.steps.send(step);
            self.waker.wake_if_wanted();
            if last || sent.is_err() {
                return;
            }
        }
    }

    fn next_step(&mut self) -> Step {
        while self.ahead.len() < BATCHES_AHEAD
            && let Some(batch) = self.plan.next()
        {
            self.ahead.push_back(batch);
        }
        let Some(batch) = self.ahead.front() else { return Step::End };
        let blocks: Vec<u64> = blocks_of(batch).collect();
        let hashes = blocks.into_iter().map(|block| self.hash(block)).collect::<Result<_, _>>();
        match (hashes, self.ahead.pop_front()) {
            (Ok(hashes), Some(batch)) => Step::Batch(Planned { batch, hashes: Some(hashes) }),
            (Ok(_), None) => Step::End,
            (Err(error), _) => Step::Failed(error),
        }
    }

    /// The replica's hash of a block, asked for together with those that come after it.
    fn hash(&mut self, block: u64) -> Result<BlockHash, ShipError> {
        let (range, _) = self.known;
        if block < range.first || block >= range.first + u64::from(range.count) {
            let range = next_range(block, self.ahead.iter().flat_map(blocks_of));
            let hashes = (self.source)(range).map_err(ShipError::Hashes)?;
            let (wanted, got) = (range.count as usize, hashes.len());
            if wanted != got {
                return Err(ShipError::HashCount { wanted, got });
            }
            self.known = (range, hashes);
        }
        let (range, hashes) = &self.known;
        let at = usize::try_from(block - range.first).expect("within a range of u32 blocks");
        Ok(hashes[at])
    }
}
