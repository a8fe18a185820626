//! Telling which leaves of a block differ.
//!
//! One thread for each comparison. Workers pass on what differs; it asks for the hashes of those
//! blocks' leaves, of all that wait at once, and seals what is left, as one frame for as many batches
//! as its data fits: in a comparison of which little differs, a batch has one leaf or two, and a frame
//! costs both ends more than that. What waits here is copied out of the pool's buffers, so that the
//! disk is read on meanwhile, and holds its permit, which bounds it like the frames that wait for a
//! receiver.

use std::{
    iter, mem, thread,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use super::{
    flow::Permit,
    parcel::{Contents, Event, Producer, Sealed},
    sealing::Sealing,
};
use crate::{
    compare::{Differing, LeafSource, LeavesOfBlock},
    content::Sorted,
    latency::Stage,
    plan::{BATCH_BYTES, Placed, buffer_len, push_joined},
    shipment::ShipError,
};

/// Blocks asked about at once: 4 MiB of disk, so that the first answer does not wait for the last.
const BLOCKS_MAX: usize = 64;

/// How long the first that waits is left waiting for more. A question costs as much as some dozens of
/// blocks in it.
const LINGER: Duration = Duration::from_millis(10);

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
            let mut together = vec![first];
            next = self.add_waiting(&mut together);
            if next.is_none() {
                // Rather than to be woken for each.
                thread::sleep(LINGER);
                next = self.add_waiting(&mut together);
            }
            together.retain(|batch| !batch.producer.route.window.is_cancelled());
            // Workers pass batches on in no order, and blocks are asked for in theirs.
            together.sort_by_key(|batch| batch.sequence);
            self.decide(together);
        }
    }

    /// Adds the batches that wait. Returns one that is too many to ask for at once.
    fn add_waiting(&self, together: &mut Vec<Undecided>) -> Option<Undecided> {
        let mut blocks: usize = together.iter().map(|batch| batch.differing.blocks.len()).sum();
        while let Ok(more) = self.batches.try_recv() {
            blocks += more.differing.blocks.len();
            if blocks > BLOCKS_MAX {
                return Some(more);
            }
            together.push(more);
        }
        None
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
            Ok(leaves) => self.seal_all(together, &leaves),
            // They are batches of one shipment, which fails once.
            Err(error) => {
                if let Some(batch) = together.first() {
                    batch.producer.fail(error);
                }
            }
        }
    }

    /// Seals what differs in some batches, of which `leaves` has the replica's hashes in order.
    fn seal_all(&mut self, together: Vec<Undecided>, mut leaves: &[LeavesOfBlock]) {
        let mut gathered = Gathered::default();
        for batch in together {
            let (mine, rest) = leaves.split_at(batch.differing.blocks.len());
            leaves = rest;
            let changed =
                self.sealing.timed(Stage::Compare, || batch.differing.changed_pieces(mine));
            if !gathered.has_room_for(&changed) {
                self.seal(mem::take(&mut gathered));
            }
            gathered.add(batch, &changed);
        }
        self.seal(gathered);
    }

    /// Seals what was gathered as the frame of the first of its batches: what is in it comes no later
    /// than where it was read. The others are left with nothing.
    fn seal(&mut self, gathered: Gathered) {
        let Gathered { batches, mut content, pieces } = gathered;
        let Some(first) = batches.first() else { return };
        let sorted = self.sealing.timed(Stage::Sort, || Sorted::new(&content, &pieces));
        let route = &first.producer.route;
        let contents = match self.sealing.seal(route, first.sequence, &mut content, sorted) {
            Ok(contents) => contents,
            Err(error) => return first.producer.fail(error.into()),
        };
        let rest = iter::repeat_with(|| Contents::Unchanged);
        for (batch, contents) in batches.into_iter().zip(iter::once(contents).chain(rest)) {
            let Undecided { producer, permit, sequence, covered_bytes, read_bytes, .. } = batch;
            let since = Instant::now();
            producer.tell(Event::Sealed(Sealed {
                sequence,
                permit: Some(permit),
                contents,
                covered_bytes,
                read_bytes,
                since,
            }));
        }
    }
}

/// What differs in batches that follow each other, as far as one frame holds it.
#[derive(Default)]
struct Gathered {
    batches: Vec<Undecided>,
    content: Vec<u8>,
    /// The sectors that differ, placed in `content`.
    pieces: Vec<Placed>,
}

impl Gathered {
    /// Whether a batch's pieces fit into the frame too. One batch's always do.
    fn has_room_for(&self, pieces: &[Placed]) -> bool {
        let more: usize = pieces.iter().map(|piece| piece.range().len()).sum();
        self.batches.is_empty() || self.content.len() + more <= buffer_len(BATCH_BYTES)
    }

    /// Adds pieces of a batch, which lie after all those that are here.
    fn add(&mut self, mut batch: Undecided, pieces: &[Placed]) {
        for piece in pieces {
            let at = self.content.len();
            self.content.extend_from_slice(&batch.differing.content[piece.range()]);
            push_joined(&mut self.pieces, Placed { extent: piece.extent, at });
        }
        batch.differing.content = Vec::new();
        self.batches.push(batch);
    }
}
