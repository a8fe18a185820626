//! A worker: from a filled buffer to a sealed frame.
//!
//! Compares, finds zeroes, compresses and seals, one batch at a time. It never waits for a
//! receiver, so that the buffers of the pool always come back.

use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::{
    leaves::Undecided,
    parcel::{Event, Filled, Planned, Sealed},
    sealing::Sealing,
};
use crate::{
    compare::{Differing, changed_pieces, differing_blocks},
    content::Sorted,
    latency::Stage,
};

/// A worker's own things.
pub(crate) struct Worker {
    pub(crate) filled: Receiver<Filled>,
    pub(crate) sealing: Sealing,
}

impl Worker {
    /// Works until no more batches come.
    pub(crate) fn run(mut self) {
        let filled = self.filled.clone();
        for batch in filled {
            if !batch.producer.route.window.is_cancelled() {
                self.work(batch);
            }
        }
    }

    fn work(&mut self, filled: Filled) {
        self.sealing.shared.latencies.record(Stage::Queue, filled.since.elapsed());
        let Some((filled, sorted)) = self.sort(filled) else { return };
        let Filled { producer, permit, planned, mut buffer, .. } = filled;
        let batch = &planned.batch;
        let bytes = buffer.bytes_mut();
        let contents = self.sealing.seal(&producer.route, batch.sequence, bytes, sorted);
        drop(buffer);
        match contents {
            Ok(contents) => producer.tell(Event::Sealed(Sealed {
                sequence: batch.sequence,
                permit: Some(permit),
                contents,
                covered_bytes: batch.shipped_bytes().0,
                read_bytes: batch.read_bytes().0,
                since: Instant::now(),
            })),
            Err(error) => producer.fail(error.into()),
        }
    }

    /// What of the batch is to be shipped, as zeroes or as data; nothing if that is for others to
    /// find out.
    fn sort(&self, mut filled: Filled) -> Option<(Filled, Sorted)> {
        let Filled { producer, planned: Planned { batch, hashes }, buffer, .. } = &mut filled;
        let (route, bytes) = (&producer.route, &*buffer.bytes_mut());
        let sorted = match (hashes, &route.undecided) {
            (None, _) => self.sealing.timed(Stage::Sort, || Sorted::new(bytes, &batch.pieces)),
            (Some(hashes), None) => {
                let pieces = self.sealing.timed(Stage::Compare, || {
                    changed_pieces(batch, bytes, hashes, &route.geometry)
                });
                self.sealing.timed(Stage::Sort, || Sorted::new(bytes, &pieces))
            }
            (Some(hashes), Some(undecided)) => {
                let differing = self.sealing.timed(Stage::Compare, || {
                    let blocks = differing_blocks(batch, bytes, hashes, &route.geometry);
                    (!blocks.is_empty()).then(|| Differing::new(batch, bytes, &blocks))
                });
                if let Some(differing) = differing {
                    let undecided = undecided.clone();
                    pass_on(filled, differing, &undecided);
                    return None;
                }
                Sorted::default()
            }
        };
        Some((filled, sorted))
    }
}

fn pass_on(filled: Filled, differing: Differing, undecided: &Sender<Undecided>) {
    let Filled { producer, permit, planned: Planned { batch, .. }, .. } = filled;
    // If nobody is there to take it, the shipment has ended.
    drop(undecided.send(Undecided {
        producer,
        permit,
        sequence: batch.sequence,
        covered_bytes: batch.shipped_bytes().0,
        read_bytes: batch.read_bytes().0,
        differing,
    }));
}
