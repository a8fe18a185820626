//! One epoch's frames, made batch by batch on the caller's thread.
//!
//! The same parts that the engine's threads put to work, in the same order: the plan, the comparison
//! by hashes, the search for zeroes, the compression, the sealing, the run of zeroes, the end frame.
//! What is left out is what needs a kernel: who reads when, and buffers that are shared. For the
//! simulator, which must decide the time of every read itself.
//!
//! Invariant: the end frame is made only after every batch of the plan has been packed.

use std::sync::Arc;

use blocks::{Epoch, Geometry, PointRecord, SealedEpoch};
use bytes::Bytes;
use wire::{
    Codec, EpochEnd, EpochLink, EpochSummary, FrameBuffer, FrameSpec, SealError, Sealer, Sequence,
};

use crate::{
    BlockHash, BlockRange,
    compare::{blocks_of, changed_pieces},
    compress::{Effort, Packer},
    content::{Sorted, gather},
    plan::{Batch, Plan, PlanLimits},
    zero_run::{ZeroFrame, ZeroRun},
};

/// The zstd level: with virtual time there is no bottleneck to adapt to.
const LEVEL: i32 = 1;

/// An epoch being packed.
pub struct Packing {
    plan: Plan,
    geometry: Geometry,
    link: EpochLink,
    sealer: Arc<Sealer>,
    packer: Packer,
    zeroes: ZeroRun,
    summary: EpochSummary,
    /// The batch handed out and not packed yet.
    open: Option<Batch>,
    batches: u64,
}

impl Packing {
    /// Plans `sealed`, an epoch built on `follows`.
    ///
    /// # Errors
    /// If zstd gives no context.
    ///
    /// # Panics
    /// If the epoch's bitmap is not as long as the disk.
    pub fn new(
        sealed: SealedEpoch,
        geometry: Geometry,
        follows: Epoch,
        sealer: Arc<Sealer>,
    ) -> std::io::Result<Self> {
        let completes = sealed.completes();
        let plan = Plan::new(Arc::new(sealed), geometry, PlanLimits::default());
        let link = EpochLink { kind: plan.kind(), epoch: plan.epoch(), follows };
        Ok(Self {
            plan,
            geometry,
            link,
            sealer,
            packer: Packer::new()?,
            zeroes: ZeroRun::default(),
            summary: EpochSummary { completes, ..EpochSummary::default() },
            open: None,
            batches: 0,
        })
    }

    /// The epoch, and what it is built on.
    pub fn link(&self) -> EpochLink {
        self.link
    }

    /// The next batch to read, or nothing after the last.
    ///
    /// # Panics
    /// If the batch before was not packed.
    pub fn next_batch(&mut self) -> Option<&Batch> {
        assert!(self.open.is_none(), "batches are packed in order, each before the next");
        self.open = self.plan.next();
        self.open.as_ref()
    }

    /// The compare blocks of which the open batch needs the replica's hashes, from the first to
    /// the last that it reads.
    pub fn blocks(&self) -> Option<BlockRange> {
        let blocks = || self.open.iter().flat_map(blocks_of);
        let (first, last) = (blocks().next()?, blocks().last()?);
        let count =
            u32::try_from(last + 1 - first).expect("a batch reads at most 16 blocks at once");
        Some(BlockRange { first, count })
    }

    /// Packs the open batch, of which `buffer` holds what was read; returns the frames that are
    /// finished by it. `hashes` are those of [`Self::blocks`]: equal blocks are left out.
    pub fn pack(
        &mut self,
        buffer: &mut [u8],
        hashes: Option<&[BlockHash]>,
    ) -> Result<Vec<Bytes>, SealError> {
        let batch = self.open.take().expect("a batch was handed out");
        self.batches += 1;
        let sorted = match hashes {
            None => Sorted::new(buffer, &batch.pieces),
            Some(hashes) => {
                let first = blocks_of(&batch).next().unwrap_or(0);
                let at = |block: u64| usize::try_from(block - first).expect("within the range");
                let hashes: Vec<BlockHash> = blocks_of(&batch).map(|b| hashes[at(b)]).collect();
                Sorted::new(buffer, &changed_pieces(&batch, buffer, &hashes, &self.geometry))
            }
        };
        let mut frames = Vec::new();
        if sorted.extents.is_empty() {
            return Ok(frames);
        }
        if sorted.has_no_data() {
            let full = self.zeroes.add(batch.sequence, &sorted.extents);
            frames.extend(full.map(|full| self.seal_zeroes(&full)).transpose()?);
            return Ok(frames);
        }
        frames.extend(self.flush_zeroes()?);
        let data = gather(buffer, &sorted);
        let mut payload = FrameBuffer::new(sorted.extents.len(), 0);
        let codec = self.packer.pack(data, Effort::Level(LEVEL), &mut payload);
        let sequence = Sequence(batch.sequence);
        let spec = FrameSpec { link: self.link, sequence, codec, extents: &sorted.extents };
        frames.push(self.sealer.seal_buffer(&spec, payload)?);
        self.summary.frames += 1;
        self.summary.data_bytes += sorted.data_bytes;
        self.summary.zero_bytes += sorted.zero_bytes;
        Ok(frames)
    }

    /// The last frames: zeroes that are left, and the end, with the point that the epoch makes.
    ///
    /// # Panics
    /// If a batch of the plan was not packed.
    pub fn finish(mut self, point: Option<PointRecord>) -> Result<Vec<Bytes>, SealError> {
        assert!(self.open.is_none() && self.plan.next().is_none(), "every batch was packed");
        let mut frames: Vec<Bytes> = self.flush_zeroes()?.into_iter().collect();
        let sequence = Sequence(self.batches);
        frames.push(self.sealer.seal_end(
            self.link,
            sequence,
            EpochEnd { summary: self.summary, point },
        )?);
        Ok(frames)
    }

    fn flush_zeroes(&mut self) -> Result<Option<Bytes>, SealError> {
        let run = self.zeroes.take();
        run.map(|run| self.seal_zeroes(&run)).transpose()
    }

    fn seal_zeroes(&mut self, zeroes: &ZeroFrame) -> Result<Bytes, SealError> {
        let spec = FrameSpec {
            link: self.link,
            sequence: Sequence(zeroes.sequence),
            codec: Codec::Raw,
            extents: &zeroes.extents,
        };
        self.summary.frames += 1;
        self.summary.zero_bytes += zeroes.bytes;
        self.sealer.seal(&spec, &[])
    }
}
