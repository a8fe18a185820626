//! Several neighbouring deltas of a disk, read as one.

use std::sync::{Arc, Mutex, PoisonError};

use blocks::{Epoch, Extent, Geometry, SECTOR_SIZE, Sector};
use storage::Storage;
use wire::{CheckedFrame, OpenError, Opener, SessionSalt, frame::DATA_LEN_MAX};

use super::{
    cache::{DecodedFrame, FrameCache},
    map::{Segment, Source, map_of, overlay_all, within},
};
use crate::{
    content::{ContentError, FrameTaker, Scratch, open_and_decode},
    delta::{DeltaError, DeltaFile, FrameNumber},
    disk::Pending,
    error::FailureClass,
    layout::DiskPaths,
};

/// Deltas laid over each other. Every frame is checked and opened as it is read.
#[derive(Debug)]
pub(crate) struct Layers {
    geometry: Geometry,
    opener: Arc<Opener>,
    /// Oldest first.
    layers: Vec<Layer>,
    map: Vec<Segment>,
    cache: FrameCache,
    /// How far ahead of what is read a frame is kept, in sectors.
    window: u64,
    /// Buffers that no thread uses just now.
    scratches: Mutex<Vec<Scratch>>,
}

#[derive(Debug)]
struct Layer {
    delta: DeltaFile,
    /// Every frame has it, or is of another attempt at the epoch.
    salt: SessionSalt,
    /// The number of its first frame among the frames of all layers.
    first_frame: u64,
}

/// A delta that can't be read as part of something.
#[derive(Debug, thiserror::Error)]
#[error("the delta of epoch {epoch}: {source}")]
pub struct LayerError {
    /// Its epoch.
    pub epoch: Epoch,
    /// Why.
    pub source: LayerFault,
}

/// Why a delta can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LayerFault {
    /// It can't be read, or is damaged.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// A frame does not open or decode.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Its index says other things than its frames, or overlaps itself.
    #[error("the index contradicts the frames, or itself")]
    Index,
    /// There are more frames in all than can be numbered.
    #[error("there are too many frames")]
    TooManyFrames,
}

impl LayerError {
    /// Its class. Nobody has just sent this: it was whole when it was committed.
    pub fn class(&self) -> FailureClass {
        let class = match &self.source {
            LayerFault::Delta(error) => error.class(),
            LayerFault::Content(error) => error.class(),
            LayerFault::Index | LayerFault::TooManyFrames => FailureClass::Corrupt,
        };
        if class == FailureClass::Refused { FailureClass::Corrupt } else { class }
    }

    /// Whether the file was not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(&self.source, LayerFault::Delta(DeltaError::Storage(e)) if e.is_missing())
    }
}

impl Layers {
    /// Opens deltas, oldest first: reads their ends and indexes only.
    pub(crate) fn open(
        storage: &dyn Storage,
        paths: &DiskPaths,
        taker: &FrameTaker,
        deltas: &[Pending],
        cache_bytes: usize,
    ) -> Result<Self, LayerError> {
        let (mut layers, mut maps, mut frames) = (Vec::new(), Vec::new(), 0);
        for pending in deltas {
            let epoch = pending.link.epoch;
            let in_layer = |source| LayerError { epoch, source };
            let layer = Layer::open(storage, paths, &taker.opener, pending, frames);
            let (layer, map) = layer.map_err(in_layer)?;
            if map.last().is_some_and(|last| !taker.geometry.holds(last.extent())) {
                return Err(in_layer(LayerFault::Index));
            }
            frames += layer.delta.frames().len() as u64;
            layers.push(layer);
            maps.push(map);
        }
        let (geometry, opener) = (taker.geometry, Arc::clone(&taker.opener));
        let (map, cache) = (overlay_all(maps), FrameCache::new(cache_bytes));
        let window = window(&map, geometry, cache_bytes);
        let scratches = Mutex::default();
        Ok(Self { geometry, opener, layers, map, cache, window, scratches })
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// All segments, ascending.
    pub(crate) fn map(&self) -> &[Segment] {
        &self.map
    }

    /// The segments within `extent`.
    pub(crate) fn within(&self, extent: Extent) -> impl Iterator<Item = Segment> {
        within(&self.map, extent)
    }

    /// Gives `take` the data of a segment, or a part of one, piece by piece. Zeroes are not given.
    pub(crate) fn read(
        &self,
        segment: &Segment,
        take: impl FnMut(&[u8]),
    ) -> Result<(), LayerError> {
        let Some(number) = segment.source().as_frame() else { return Ok(()) };
        let extent = segment.extent();
        let cached = self.cache.get(number).filter(|frame| frame.get(extent).is_some());
        let frame = match cached {
            Some(frame) => frame,
            // Not under a lock: two threads may decode one frame, and others go on meanwhile.
            None => self.read_frame(number, extent.start)?,
        };
        // The frame is authentic, the index is not: the frame has the last word.
        let parts = frame.get(extent).ok_or_else(|| {
            let epoch = self.layers[self.layer_of(number)].delta.name().link.epoch;
            LayerError { epoch, source: LayerFault::Index }
        })?;
        parts.for_each(take);
        Ok(())
    }

    /// Whether anything that is shown is in a frame of the delta of `epoch`.
    pub(crate) fn holds(&self, epoch: Epoch, frame: FrameNumber) -> bool {
        let layer = self.layers.iter().find(|layer| layer.delta.name().link.epoch == epoch);
        let number = layer.map(|layer| layer.first_frame + u64::from(frame));
        let source = number.and_then(Source::frame);
        source.is_some_and(|source| self.map.iter().any(|segment| segment.source() == source))
    }

    /// Reads the part of a frame that is near `first`, and keeps it.
    fn read_frame(&self, number: u32, first: Sector) -> Result<Arc<DecodedFrame>, LayerError> {
        let layer = &self.layers[self.layer_of(number)];
        let scratches = || self.scratches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = scratches().pop().unwrap_or_else(Scratch::new);
        let read = layer.read_frame(number, &self.opener, &mut scratch);
        let near = read
            .map(|(frame, data)| Arc::new(DecodedFrame::near(&frame, data, first, self.window)));
        scratches().push(scratch);
        let epoch = layer.delta.name().link.epoch;
        let near = near.map_err(|source| LayerError { epoch, source })?;
        self.cache.put(number, &near);
        Ok(near)
    }

    fn layer_of(&self, frame: u32) -> usize {
        let behind = self.layers.partition_point(|layer| layer.first_frame <= u64::from(frame));
        behind - 1
    }
}

impl Layer {
    fn open(
        storage: &dyn Storage,
        paths: &DiskPaths,
        opener: &Opener,
        pending: &Pending,
        first_frame: u64,
    ) -> Result<(Self, Vec<Segment>), LayerFault> {
        let mut delta = DeltaFile::open(storage, &paths.delta(pending.link.epoch))?;
        if delta.name().link != pending.link {
            return Err(DeltaError::Foreign.into());
        }
        let salt = delta.authentic_salt(opener)?;
        let extents = delta.take_extents()?;
        let segments = extents.iter().map(|(extent, frame)| {
            let source = Source::frame(first_frame + u64::from(*frame));
            Ok(Segment::new(extent, source.ok_or(LayerFault::TooManyFrames)?))
        });
        let map = map_of(segments.collect::<Result<_, LayerFault>>()?);
        Ok((Self { delta, salt, first_frame }, map.map_err(|_| LayerFault::Index)?))
    }

    /// A frame, checked and authentic, and its data.
    fn read_frame<'a>(
        &self,
        number: u32,
        opener: &Opener,
        scratch: &'a mut Scratch,
    ) -> Result<(CheckedFrame, &'a [u8]), LayerFault> {
        let at = usize::try_from(u64::from(number) - self.first_frame).ok();
        let at = at.and_then(|at| self.delta.frames().get(at)).ok_or(LayerFault::Index)?;
        let frame = self.delta.read_content(at)?;
        if frame.header().salt != self.salt {
            return Err(LayerFault::Content(OpenError::NotAuthentic.into()));
        }
        let data = open_and_decode(opener, &frame, scratch)?;
        Ok((frame, data))
    }
}

/// Sectors of the disk of which the cache holds all that is in frames, if those are as many
/// everywhere; never less than a frame can hold in one piece.
fn window(map: &[Segment], geometry: Geometry, cache_bytes: usize) -> u64 {
    const SHORTEST: u64 = 2 * DATA_LEN_MAX as u64 / SECTOR_SIZE;
    let in_frames = map.iter().filter(|segment| segment.source().as_frame().is_some());
    let sectors: u64 = in_frames.map(|segment| segment.extent().sectors).sum();
    // A quarter is left for what the cache costs beside the data, and for what is uneven.
    let cached = cache_bytes as u64 / 4 * 3 / SECTOR_SIZE;
    let window = u128::from(geometry.sectors()) * u128::from(cached) / u128::from(sectors.max(1));
    u64::try_from(window).unwrap_or(u64::MAX).max(SHORTEST)
}
