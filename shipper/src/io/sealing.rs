//! From what a batch turned out to hold to a sealed frame.

use std::{sync::Arc, time::Instant};

use wire::{FrameBuffer, FrameSpec, SealError, Sequence};

use super::parcel::{Contents, Route};
use crate::{
    compress::Packer,
    content::{Sorted, gather},
    latency::Stage,
    shared::Shared,
};

/// What a thread needs to seal.
pub(crate) struct Sealing {
    pub(crate) shared: Arc<Shared>,
    pub(crate) packer: Packer,
}

impl Sealing {
    /// Compresses and seals what is to be shipped of a buffer, whose bytes are moved together.
    pub(crate) fn seal(
        &mut self,
        route: &Route,
        sequence: u64,
        buffer: &mut [u8],
        sorted: Sorted,
    ) -> Result<Contents, SealError> {
        if sorted.extents.is_empty() {
            return Ok(Contents::Unchanged);
        }
        if sorted.has_no_data() {
            return Ok(Contents::Zeroes(sorted.extents));
        }
        let begun = Instant::now();
        let data = gather(buffer, &sorted);
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

    /// Does a part of the work, and records how long it took.
    pub(crate) fn timed<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        self.shared.latencies.record(stage, begun.elapsed());
        done
    }
}
