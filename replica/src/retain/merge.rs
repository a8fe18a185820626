//! Neighbouring deltas become one: the newest content of every sector, sealed anew.
//!
//! The result is an epoch like any other, from what the oldest follows to the newest, sealed with a
//! salt of its own; its point is the newest one's. It is read and written piece by piece: what is
//! in memory are the map of the extents, a few decoded frames, and the frame being filled.

use blocks::{ByteLen, EpochKind, Extent, SECTOR_SIZE, Sector};
use storage::Storage;
use wire::{
    CheckedFrame, Codec, Content, DataKey, EpochEnd, EpochLink, EpochSummary, FrameExtent,
    FrameSpec, Sealer, Sequence,
    frame::{DATA_LEN_MAX, EXTENTS_MAX, should_end_before},
};

use super::RetainError;
use crate::{
    delta::{DeltaName, PartWriter},
    disk::{DiskShared, Pending},
    key_store,
    view::{Layers, Segment, Source},
};

/// Decoded frames that are kept during a merge, in bytes.
const CACHE_BYTES: usize = 32 << 20;

const ZSTD_LEVEL: i32 = 1;

/// A merged delta that is whole, but not among the deltas yet.
pub(super) struct Merged {
    pub(super) writer: PartWriter,
    pub(super) delta: Pending,
}

/// Merges neighbours, oldest first. The file that an error leaves is removed.
pub(super) fn merge(disk: &DiskShared, parts: &[Pending]) -> Result<Merged, RetainError> {
    let (Some(oldest), Some(newest)) = (parts.first(), parts.last()) else {
        unreachable!("a window holds at least two deltas")
    };
    let storage = disk.storage.as_ref();
    let layers = Layers::open(storage, &disk.paths, &disk.taker, parts, CACHE_BYTES)?;
    let all_deltas = parts.iter().all(|part| part.link.kind == EpochKind::Delta);
    let kind = if all_deltas { EpochKind::Delta } else { EpochKind::Compare };
    let link = EpochLink { kind, epoch: newest.link.epoch, follows: oldest.link.follows };
    let mut output = Output::create(disk, storage, link)?;
    let written = output.write(&layers, newest);
    match written {
        Ok(len) => {
            let delta = Pending { link, len, ..*newest };
            Ok(Merged { writer: output.writer, delta })
        }
        Err(error) => {
            output.writer.give_up(storage);
            Err(error)
        }
    }
}

/// The delta being written, and the frame being filled.
struct Output {
    writer: PartWriter,
    sealer: Sealer,
    link: EpochLink,
    zstd: zstd::bulk::Compressor<'static>,
    extents: Vec<FrameExtent>,
    data: Vec<u8>,
    summary: EpochSummary,
}

impl Output {
    fn create(
        disk: &DiskShared,
        storage: &dyn Storage,
        link: EpochLink,
    ) -> Result<Self, RetainError> {
        let id = disk.identity.0;
        // Of the line in which its newest epoch was made, whatever line the replica is in now.
        let generation = disk.books().catalog.record().lineage.generation_of(link.epoch);
        let key: DataKey = key_store::load(storage, id)?;
        let sealer = Sealer::new(&key, id, generation)?;
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(RetainError::Compress)?;
        let name = DeltaName { disk: id, generation, link };
        let writer = PartWriter::create(storage, disk.paths.merging(link.epoch), name)?;
        Ok(Self {
            writer,
            sealer,
            link,
            zstd,
            extents: Vec::new(),
            data: Vec::new(),
            summary: EpochSummary::default(),
        })
    }

    fn write(&mut self, layers: &Layers, newest: &Pending) -> Result<ByteLen, RetainError> {
        for segment in layers.map() {
            let mut rest = Some(*segment);
            while let Some(segment) = rest {
                rest = self.take(layers, segment)?;
            }
        }
        self.seal_frame()?;
        self.summary.completes = newest.completes;
        let end = EpochEnd { summary: self.summary, point: newest.point };
        let sealed = self.sealer.seal_end(self.link, Sequence(self.summary.frames), end)?;
        self.writer.append(&checked(sealed))?;
        Ok(self.writer.finish(&end)?)
    }

    /// Adds as much of a segment as the frame has room for; returns the rest.
    fn take(&mut self, layers: &Layers, segment: Segment) -> Result<Option<Segment>, RetainError> {
        let is_zero = segment.source() == Source::ZEROES;
        if self.extents.first().is_some_and(|first| self.is_far(first, &segment)) {
            self.seal_frame()?;
        }
        let room = (DATA_LEN_MAX as usize - self.data.len()) as u64 / SECTOR_SIZE;
        if self.extents.len() == usize::from(EXTENTS_MAX) || (!is_zero && room == 0) {
            self.seal_frame()?;
            return Ok(Some(segment));
        }
        let extent = segment.extent();
        let fits = if is_zero { extent.sectors } else { extent.sectors.min(room) };
        let (part, rest) = segment.split_at(Sector(extent.start.0 + fits));
        if !is_zero {
            let begin = self.data.len();
            self.data.resize(begin + bytes_of(&part), 0);
            layers.read(part.extent(), &mut self.data[begin..])?;
        }
        self.add_extent(&part, is_zero);
        Ok(rest)
    }

    /// Whether a segment is too far from the first extent of the frame to be part of it.
    fn is_far(&self, first: &FrameExtent, segment: &Segment) -> bool {
        let end = segment.extent().start.0 + 1;
        let span = Extent { start: first.start, sectors: end - first.start.0 };
        should_end_before(span, ByteLen(self.data.len() as u64))
    }

    fn add_extent(&mut self, segment: &Segment, is_zero: bool) {
        let extent = segment.extent();
        let content = if is_zero { Content::Zeroes } else { Content::Data };
        let sectors = u32::try_from(extent.sectors).expect("a segment is that short");
        if let Some(last) = self.extents.last_mut() {
            let joined = last.sectors.checked_add(sectors);
            let touches = last.extent().end() == extent.start && last.content == content;
            if let (true, Some(joined)) = (touches, joined) {
                last.sectors = joined;
                return;
            }
        }
        self.extents.push(FrameExtent { start: extent.start, sectors, content });
    }

    /// Seals what was gathered, if anything was.
    fn seal_frame(&mut self) -> Result<(), RetainError> {
        if self.extents.is_empty() {
            return Ok(());
        }
        let coded = self.zstd.compress(&self.data).map_err(RetainError::Compress)?;
        let (codec, payload) = if coded.len() < self.data.len() {
            (Codec::Zstd, &coded)
        } else {
            (Codec::Raw, &self.data)
        };
        let sequence = Sequence(self.summary.frames);
        let spec = FrameSpec { link: self.link, sequence, codec, extents: &self.extents };
        let frame = checked(self.sealer.seal(&spec, payload)?);
        if !self.writer.has_room(&frame) {
            return Err(RetainError::TooManyExtents);
        }
        self.writer.append(&frame)?;
        self.summary.frames += 1;
        self.summary.data_bytes += self.data.len() as u64;
        self.summary.zero_bytes += frame.zero_bytes();
        self.extents.clear();
        self.data.clear();
        Ok(())
    }
}

fn bytes_of(segment: &Segment) -> usize {
    usize::try_from(segment.extent().len().0).expect("a frame holds 1 MiB at most")
}

fn checked(sealed: bytes::Bytes) -> CheckedFrame {
    CheckedFrame::parse(sealed).expect("what was sealed here is a frame")
}
