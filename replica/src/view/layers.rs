//! Several neighbouring deltas of a disk, read as one.

use std::sync::{Arc, Mutex, PoisonError};

use blocks::{Epoch, Extent, Geometry};
use storage::Storage;
use wire::{OpenError, Opener, SessionSalt};

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
        Ok(Self { geometry, opener, layers, map, cache, scratches: Mutex::default() })
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
        let layer = &self.layers[self.layer_of(number)];
        let epoch = layer.delta.name().link.epoch;
        let in_layer = |source| LayerError { epoch, source };
        let read = || self.read_frame(layer, number).map_err(in_layer);
        let frame = self.cache.get_or(number, read)?;
        // The frame is authentic, the index is not: the frame has the last word.
        let held = frame.give(segment.extent(), take);
        if held { Ok(()) } else { Err(in_layer(LayerFault::Index)) }
    }

    /// Whether anything that is shown is in a frame of the delta of `epoch`.
    pub(crate) fn holds(&self, epoch: Epoch, frame: FrameNumber) -> bool {
        let layer = self.layers.iter().find(|layer| layer.delta.name().link.epoch == epoch);
        let number = layer.map(|layer| layer.first_frame + u64::from(frame));
        let source = number.and_then(Source::frame);
        source.is_some_and(|source| self.map.iter().any(|segment| segment.source() == source))
    }

    fn read_frame(&self, layer: &Layer, number: u32) -> Result<DecodedFrame, LayerFault> {
        let scratches = || self.scratches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = scratches().pop().unwrap_or_else(Scratch::new);
        let frame = layer.read_frame(number, &self.opener, &mut scratch);
        scratches().push(scratch);
        frame
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

    fn read_frame(
        &self,
        number: u32,
        opener: &Opener,
        scratch: &mut Scratch,
    ) -> Result<DecodedFrame, LayerFault> {
        let at = usize::try_from(u64::from(number) - self.first_frame).ok();
        let at = at.and_then(|at| self.delta.frames().get(at)).ok_or(LayerFault::Index)?;
        let frame = self.delta.read_content(at)?;
        if frame.header().salt != self.salt {
            return Err(LayerFault::Content(OpenError::NotAuthentic.into()));
        }
        open_and_decode(opener, &frame, scratch)?;
        Ok(DecodedFrame::new(&frame, scratch.take_data(&frame)))
    }
}
