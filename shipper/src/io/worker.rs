//! A worker: from a filled buffer to a sealed frame.
//!
//! Compares, finds zeroes, compresses and seals, one batch at a time. It never waits for a
//! receiver, so that the buffers of the pool always come back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use wire::{FrameBuffer, FrameSpec, SealError, Sequence};

use super::{
    parcel::{Contents, Event, Filled, Route, Sealed},
    pool::PoolBuffer,
};
use crate::{
    compare::changed_pieces,
    compress::Packer,
    content::{Sorted, gather},
    latency::Stage,
    plan::Batch,
    shared::Shared,
};

/// A worker's own things.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) filled: Receiver<Filled>,
    pub(crate) packer: Packer,
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
        let Filled { producer, permit, planned, mut buffer, since } = filled;
        self.shared.latencies.record(Stage::Queue, since.elapsed());
        let sorted = self.sort(&producer.route, &planned.batch, planned.hashes, &mut buffer);
        let contents = self.seal(&producer.route, planned.batch.sequence, &mut buffer, sorted);
        drop(buffer);
        match contents {
            Ok(contents) => producer.tell(Event::Sealed(Sealed {
                sequence: planned.batch.sequence,
                permit,
                contents,
                covered_bytes: planned.batch.shipped_bytes().0,
                read_bytes: planned.batch.read_bytes().0,
                since: Instant::now(),
            })),
            Err(error) => producer.fail(error.into()),
        }
    }

    /// What of the batch is to be shipped, as zeroes or as data.
    fn sort(
        &self,
        route: &Route,
        batch: &Batch,
        hashes: Option<Vec<crate::BlockHash>>,
        buffer: &mut PoolBuffer,
    ) -> Sorted {
        let bytes = &*buffer.bytes_mut();
        match hashes {
            None => self.timed(Stage::Sort, || Sorted::new(bytes, &batch.pieces)),
            Some(hashes) => {
                let pieces = self.timed(Stage::Compare, || {
                    changed_pieces(batch, bytes, &hashes, &route.geometry)
                });
                self.timed(Stage::Sort, || Sorted::new(bytes, &pieces))
            }
        }
    }

    fn seal(
        &mut self,
        route: &Route,
        sequence: u64,
        buffer: &mut PoolBuffer,
        sorted: Sorted,
    ) -> Result<Contents, SealError> {
        if sorted.extents.is_empty() {
            return Ok(Contents::Unchanged);
        }
        if sorted.has_no_data() {
            return Ok(Contents::Zeroes(sorted.extents));
        }
        let begun = Instant::now();
        let data = gather(buffer.bytes_mut(), &sorted);
        let effort = self.shared.effort();
        let mut payload = FrameBuffer::new(sorted.extents.len(), 0);
        let codec = self.packer.pack(data, effort, &mut payload);
        let packed_bytes = payload.payload_len() as u64;
        let compressed = Instant::now();
        let sequence = Sequence(sequence);
        let spec = FrameSpec { link: route.link, sequence, codec, extents: &sorted.extents };
        let frame = route.sealer.seal_buffer(&spec, payload)?;
        self.shared.latencies.record(Stage::Compress, compressed - begun);
        self.shared.latencies.record(Stage::Seal, compressed.elapsed());
        let Sorted { data_bytes, zero_bytes, .. } = sorted;
        Ok(Contents::Frame { frame, data_bytes, zero_bytes, packed_bytes })
    }

    fn timed<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        let took: Duration = begun.elapsed();
        self.shared.latencies.record(stage, took);
        done
    }
}
