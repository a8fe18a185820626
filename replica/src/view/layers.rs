//! Several neighbouring deltas of a disk, read as one.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use blocks::{Epoch, Extent, Geometry, SECTOR_SIZE, Sector};
use storage::Storage;
use wire::{OpenError, Opener, SessionSalt};

use super::{
    decoded::Decoded,
    map::{Segment, Source, map_of, overlay_all, within},
    pages::{Destination, PageCache},
    readers::Readers,
    shown::Shown,
    turns::Turns,
};
use crate::{
    content::{ContentError, FrameTaker, Scratch, open_and_decode},
    delta::{DeltaError, DeltaFile, FrameNumber},
    disk::Pending,
    error::FailureClass,
    layout::DiskPaths,
};

/// What is read ahead of a reader at most, in bytes of the disk.
const AHEAD_MAX: u64 = 8 << 20;

/// Deltas laid over each other. Every frame is checked and opened as it is read.
#[derive(Debug)]
pub(crate) struct Layers {
    geometry: Geometry,
    opener: Arc<Opener>,
    /// Oldest first.
    layers: Vec<Layer>,
    map: Vec<Segment>,
    shown: Shown,
    pages: PageCache,
    /// What is read ahead of a reader, in sectors.
    ahead: u64,
    readers: Mutex<Readers>,
    turns: Turns,
    /// Buffers that no thread uses just now.
    scratches: Mutex<Vec<Scratch>>,
    /// How many frames were decoded so far.
    decoded: AtomicU64,
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
    /// There are more frames or extents in all than can be numbered.
    #[error("there are too many frames or extents")]
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
        let map = overlay_all(maps);
        let shown = usize::try_from(frames).ok().and_then(|frames| Shown::of(&map, frames));
        let shown = shown.ok_or_else(|| LayerError {
            epoch: deltas.last().map_or(Epoch::NONE, |delta| delta.link.epoch),
            source: LayerFault::TooManyFrames,
        })?;
        Ok(Self {
            geometry: taker.geometry,
            opener: Arc::clone(&taker.opener),
            layers,
            map,
            shown,
            pages: PageCache::new(cache_bytes),
            ahead: AHEAD_MAX.min(cache_bytes as u64 / 4) / SECTOR_SIZE,
            readers: Mutex::default(),
            turns: Turns::default(),
            scratches: Mutex::default(),
            decoded: AtomicU64::new(0),
        })
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

    /// Fills the parts of `buffer`, which is for `extent`, that deltas have; leaves the others as
    /// they are.
    pub(crate) fn read(&self, extent: Extent, buffer: &mut [u8]) -> Result<(), LayerError> {
        self.note(extent);
        self.read_noted(extent, buffer)
    }

    /// Notes that `extent` is read next. What should be read ahead, if anything should.
    pub(crate) fn note(&self, extent: Extent) -> Option<Extent> {
        let ahead = self.readers().note(extent, self.ahead)?;
        let end = ahead.end().min(Sector(self.geometry.sectors()));
        let sectors = end.0.checked_sub(ahead.start.0)?;
        Some(Extent { start: ahead.start, sectors })
    }

    /// As [`Self::read`], of what was noted.
    pub(crate) fn read_noted(&self, extent: Extent, buffer: &mut [u8]) -> Result<(), LayerError> {
        let mut to = Destination::new(extent.start, buffer);
        for segment in self.within(extent).filter(|segment| segment.source() == Source::ZEROES) {
            to.sectors(segment).fill(0);
        }
        let mut missing = self.pages.read(self.within_frames(extent), &mut to);
        while let Some(number) = missing.first().and_then(|first| first.source().as_frame()) {
            let (here, rest): (Vec<_>, Vec<_>) =
                missing.into_iter().partition(|part| part.source().as_frame() == Some(number));
            missing = rest;
            let _turn = self.turns.take(number);
            // Whose turn was before may have left it all here.
            let here = self.pages.read(here, &mut to);
            if !here.is_empty() {
                self.decode(number, |frame| copy(frame, &here, &mut to))?;
            }
        }
        Ok(())
    }

    /// The first segment within `extent` of each frame that has to be decoded to read it.
    pub(crate) fn missing(&self, extent: Extent) -> Vec<Segment> {
        let mut frames = HashSet::new();
        let mut missing = self.pages.missing(self.within_frames(extent));
        missing.retain(|segment| frames.insert(segment.source()));
        missing
    }

    /// Decodes the frame of a segment, unless that is being done, or was.
    pub(crate) fn read_ahead(&self, segment: Segment) -> Result<(), LayerError> {
        let Some(number) = segment.source().as_frame() else { return Ok(()) };
        let Some(_turn) = self.turns.try_take(number) else { return Ok(()) };
        if self.pages.holds(segment) { Ok(()) } else { self.decode(number, |_| Ok(())) }
    }

    /// Whether anything that is shown is in a frame of the delta of `epoch`.
    pub(crate) fn holds(&self, epoch: Epoch, frame: FrameNumber) -> bool {
        let layer = self.layers.iter().find(|layer| layer.delta.name().link.epoch == epoch);
        let frame = layer
            .filter(|layer| (frame as usize) < layer.delta.frames().len())
            .map(|layer| u32::try_from(layer.first_frame + u64::from(frame)));
        matches!(frame, Some(Ok(number)) if !self.shown.of_frame(number).is_empty())
    }

    /// How many frames were decoded so far, and of how many anything is shown.
    #[cfg(test)]
    pub(crate) fn decoded(&self) -> (u64, u64) {
        let frames: HashSet<_> = self.map.iter().filter_map(|s| s.source().as_frame()).collect();
        (self.decoded.load(Ordering::Relaxed), frames.len() as u64)
    }

    /// Decodes a frame, gives it to `take`, and keeps what of it readers come to soon.
    fn decode(
        &self,
        number: u32,
        take: impl FnOnce(&Decoded<'_>) -> Result<(), LayerFault>,
    ) -> Result<(), LayerError> {
        let layer = &self.layers[self.layer_of(number)];
        self.decoded.fetch_add(1, Ordering::Relaxed);
        let scratches = || self.scratches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = scratches().pop().unwrap_or_else(Scratch::new);
        let decoded = layer.decode(number, &self.opener, &mut scratch, |frame| {
            take(frame)?;
            self.keep(number, frame);
            Ok(())
        });
        scratches().push(scratch);
        let epoch = layer.delta.name().link.epoch;
        decoded.map_err(|source| LayerError { epoch, source })
    }

    fn keep(&self, number: u32, frame: &Decoded<'_>) {
        let positions = self.readers().positions();
        let Some(reach) = self.pages.reach(&positions) else { return };
        let mut gathered = self.pages.gather();
        for at in self.shown.of_frame(number) {
            let segment = self.map[*at as usize];
            // What the index says wrongly is an error for whoever asks for it.
            if let Some(data) = frame.get(segment.extent()) {
                gathered.add(segment, data, |page| positions.distance(page) <= reach);
            }
        }
        self.pages.keep(gathered, &positions);
    }

    fn within_frames(&self, extent: Extent) -> impl Iterator<Item = Segment> {
        self.within(extent).filter(|segment| segment.source() != Source::ZEROES)
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layer_of(&self, frame: u32) -> usize {
        let behind = self.layers.partition_point(|layer| layer.first_frame <= u64::from(frame));
        behind - 1
    }
}

/// Copies parts of a frame to where they are wanted.
///
/// The frame is authentic, the index is not: the frame has the last word on what it holds.
fn copy(
    frame: &Decoded<'_>,
    parts: &[Segment],
    to: &mut Destination<'_>,
) -> Result<(), LayerFault> {
    for part in parts {
        let mut place = to.sectors(*part);
        for data in frame.get(part.extent()).ok_or(LayerFault::Index)? {
            let (filled, rest) = place.split_at_mut(data.len());
            filled.copy_from_slice(data);
            place = rest;
        }
    }
    Ok(())
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

    /// Gives a frame to `take`, checked and authentic.
    fn decode(
        &self,
        number: u32,
        opener: &Opener,
        scratch: &mut Scratch,
        take: impl FnOnce(&Decoded<'_>) -> Result<(), LayerFault>,
    ) -> Result<(), LayerFault> {
        let at = usize::try_from(u64::from(number) - self.first_frame).ok();
        let at = at.and_then(|at| self.delta.frames().get(at)).ok_or(LayerFault::Index)?;
        let frame = self.delta.read_content_into(at, std::mem::take(&mut scratch.sealed))?;
        if frame.header().salt != self.salt {
            return Err(LayerFault::Content(OpenError::NotAuthentic.into()));
        }
        let data = open_and_decode(opener, &frame, scratch)?;
        let taken = take(&Decoded::new(&frame, data));
        // Nobody else has the frame, so its memory comes back.
        scratch.sealed = frame.into_bytes().try_into_mut().unwrap_or_default();
        taken
    }
}
