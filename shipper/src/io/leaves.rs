//! Telling which leaves of a block differ.
//!
//! One thread for each comparison. Workers pass on what differs; it asks for the hashes of those
//! blocks' leaves, of all that wait at once, and seals what is left. What waits here is copied out
//! of the pool's buffers, so that the disk is read on meanwhile, and holds its permit, which bounds
//! it like the frames that wait for a receiver.

use std::time::Instant;

use crossbeam_channel::Receiver;

use super::{
    flow::Permit,
    parcel::{Event, Producer, Sealed},
    sealing::Sealing,
};
use crate::{
    compare::{Differing, LeafSource, LeavesOfBlock},
    content::Sorted,
    latency::Stage,
    shipment::ShipError,
};

/// Blocks asked about at once: 4 MiB of disk, so that the first answer does not wait for the last.
const BLOCKS_MAX: usize = 64;

const _: () = assert!(BLOCKS_MAX <= wire::message::LEAF_BLOCKS_MAX as usize);

/// A batch in which blocks differ.
pub(crate) struct Undecided {
    pub(crate) producer: Producer,
    pub(crate) permit: Permit,
    pub(crate) sequence: u64,
    pub(crate) covered_bytes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) differing: Differing,
}

/// The thread's own things.
pub(crate) struct LeafComparison {
    pub(crate) source: LeafSource,
    pub(crate) batches: Receiver<Undecided>,
    pub(crate) sealing: Sealing,
}

impl LeafComparison {
    /// Runs until the shipment is over.
    pub(crate) fn run(mut self) {
        let mut next = None;
        while let Some(first) = next.take().or_else(|| self.batches.recv().ok()) {
            let mut blocks = first.differing.blocks.len();
            let mut together = vec![first];
            while let Ok(more) = self.batches.try_recv() {
                blocks += more.differing.blocks.len();
                if blocks > BLOCKS_MAX {
                    next = Some(more);
                    break;
                }
                together.push(more);
            }
            together.retain(|batch| !batch.producer.route.window.is_cancelled());
            // Workers pass batches on in no order, and blocks are asked for in theirs.
            together.sort_by_key(|batch| batch.sequence);
            self.decide(together);
        }
    }

    fn decide(&mut self, together: Vec<Undecided>) {
        let blocks: Vec<u64> =
            together.iter().flat_map(|batch| batch.differing.blocks.iter().copied()).collect();
        if blocks.is_empty() {
            return;
        }
        let asked = (self.source)(&blocks).map_err(ShipError::Hashes);
        let leaves = asked.and_then(|leaves| match (blocks.len(), leaves.len()) {
            (wanted, got) if wanted == got => Ok(leaves),
            (wanted, got) => Err(ShipError::HashCount { wanted, got }),
        });
        match leaves {
            Ok(leaves) => {
                let mut leaves = leaves.as_slice();
                for batch in together {
                    let (mine, rest) = leaves.split_at(batch.differing.blocks.len());
                    leaves = rest;
                    self.seal(batch, mine);
                }
            }
            // They are batches of one shipment, which fails once.
            Err(error) => {
                if let Some(batch) = together.first() {
                    batch.producer.fail(error);
                }
            }
        }
    }

    fn seal(&mut self, batch: Undecided, leaves: &[LeavesOfBlock]) {
        let Undecided { producer, permit, sequence, covered_bytes, read_bytes, mut differing } =
            batch;
        let pieces = self.sealing.timed(Stage::Compare, || differing.changed_pieces(leaves));
        let sorted = self.sealing.timed(Stage::Sort, || Sorted::new(&differing.content, &pieces));
        let sealed = self.sealing.seal(&producer.route, sequence, &mut differing.content, sorted);
        match sealed {
            Ok(contents) => producer.tell(Event::Sealed(Sealed {
                sequence,
                permit,
                contents,
                covered_bytes,
                read_bytes,
                since: Instant::now(),
            })),
            Err(error) => producer.fail(error.into()),
        }
    }
}
