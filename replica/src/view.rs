//! A recovery point, read as a disk.
//!
//! ```text
//!  read_at ──> map ──> a page of a frame that was decoded (a bounded cache)
//!                │         └───> else the frame of a delta, which is opened and decoded
//!                └───> zeroes
//!                └───> the base, where no delta has anything
//! ```
//!
//! Opening reads the indexes of the deltas that lead from the base to the point, and no frame. A
//! view stands by itself: it has its own descriptors of base and deltas, and a lease. While it
//! lives the base is not folded past its point; what is folded up to it, it reads from the deltas
//! all the same, and a delta that is merged or removed stays readable through its descriptor.

mod ahead;
mod allocation;
mod by_place;
mod decoded;
mod layers;
mod map;
mod pages;
mod readers;
mod shown;
mod turns;

use std::sync::{Arc, Mutex, OnceLock};

use blocks::{
    ByteLen, DiskId, Epoch, Extent, Geometry, PointRecord, RetractReason, SECTOR_SIZE, Sector,
};
use storage::{StorageError, StorageFile};

pub use allocation::{Allocated, Allocation};
pub(crate) use layers::Layers;
pub use layers::{LayerError, LayerFault};
pub(crate) use map::{Segment, Source};

use self::{ahead::ReadAhead, allocation::KnownBase};
use crate::{
    MustReopenError, PointStatus,
    base::{Base, BaseError},
    disk::{DiskShared, Pending},
    error::FailureClass,
    leases::Lease,
};

/// What of decoded frames a view keeps unless it is told otherwise.
pub const VIEW_CACHE_DEFAULT: ByteLen = ByteLen(256 << 20);

/// Stretches of a base are read in one go, and what lies between is read for nothing, if that is no
/// more than this many sectors: 8 KiB are copied in less time than another system call takes.
const BRIDGE: u64 = 16;

/// A recovery point of a disk, open for reading. Any number of threads may read it.
#[derive(Debug)]
pub struct View {
    disk: DiskId,
    epoch: Epoch,
    record: PointRecord,
    layers: Arc<Layers>,
    /// Started when somebody reads in order; nothing if there can be none.
    ahead: OnceLock<Option<ReadAhead>>,
    /// How many threads read ahead.
    threads: usize,
    base: Arc<dyn StorageFile>,
    known_base: Mutex<Option<KnownBase>>,
    /// Kept for its drop: what is read here may change afterwards.
    _lease: Lease,
}

/// A point that can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The replica holds no point of that epoch.
    #[error("epoch {0} is no recovery point here")]
    NoPoint(Epoch),
    /// It was retracted.
    #[error("the point of epoch {epoch} was retracted: {reason}")]
    Retracted {
        /// Its epoch.
        epoch: Epoch,
        /// Why.
        reason: RetractReason,
    },
    /// It needs something that is damaged.
    #[error("the point of epoch {epoch} needs the delta of epoch {damaged}, which is damaged")]
    Damaged {
        /// Its epoch.
        epoch: Epoch,
        /// The delta that a scrub has found damaged.
        damaged: Epoch,
    },
    /// A delta can't be read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The base can't be read.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// See there.
    #[error(transparent)]
    MustReopen(#[from] MustReopenError),
}

impl ViewError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::NoPoint(_) | Self::Retracted { .. } => FailureClass::Refused,
            Self::Damaged { .. } => FailureClass::Corrupt,
            Self::Layer(error) => error.class(),
            Self::Base(_) | Self::MustReopen(_) => FailureClass::StoreFailed,
        }
    }
}

/// Content of a view that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It lies past the end of the disk.
    #[error("{len} bytes from {offset} go past the end of the disk")]
    PastEnd {
        /// Where the range begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: u64,
    },
    /// A delta can't be read.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The base can't be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ReadError {
    /// Its class.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::PastEnd { .. } => FailureClass::Refused,
            Self::Layer(error) => error.class(),
            Self::Storage(error) => FailureClass::of_storage(error),
        }
    }
}

/// Whether a point that was retracted is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retracted {
    Refuse,
    Show,
}

impl View {
    /// Which disk.
    pub fn disk(&self) -> DiskId {
        self.disk
    }

    /// The epoch that made the point.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What its source says of the point.
    pub fn record(&self) -> &PointRecord {
        &self.record
    }

    /// The shape of the disk.
    pub fn geometry(&self) -> Geometry {
        self.layers.geometry()
    }

    /// The length of the disk.
    pub fn len(&self) -> ByteLen {
        self.geometry().len()
    }

    /// Whether the disk has no sector. There is no such disk.
    pub fn is_empty(&self) -> bool {
        self.len() == ByteLen(0)
    }

    /// Reads the bytes of the disk from `offset` on, until `buffer` is full.
    ///
    /// What comes from deltas is authentic. After an error `buffer` may hold anything.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let sectors = self.sectors_of(offset, buffer.len() as u64)?;
        if offset.is_multiple_of(SECTOR_SIZE) && sectors.len().0 == buffer.len() as u64 {
            return self.read_sectors(sectors, buffer);
        }
        let whole = usize::try_from(sectors.len().0).expect("the buffer is in memory");
        let mut bytes = vec![0; whole];
        self.read_sectors(sectors, &mut bytes)?;
        let skipped = usize::try_from(offset - sectors.start.bytes()).expect("less than a sector");
        buffer.copy_from_slice(&bytes[skipped..skipped + buffer.len()]);
        Ok(())
    }

    fn read_sectors(&self, extent: Extent, buffer: &mut [u8]) -> Result<(), ReadError> {
        if let Some(next) = self.layers.note(extent)
            && let Some(ahead) = self.ahead.get_or_init(|| self.start_ahead())
        {
            ahead.want(&self.layers, next);
        }
        read_base(&self.layers, extent, buffer, |offset, bytes| self.read_known(offset, bytes))?;
        Ok(self.layers.read_noted(extent, buffer)?)
    }

    /// Reads of the base; what it is known to have no data for is not asked for.
    fn read_known(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let (mut next, end) = (offset, offset + buffer.len() as u64);
        let place = |at: u64| usize::try_from(at - offset).expect("within the buffer");
        while next < end {
            let data = self.next_data(next)?;
            let (from, to) = (data.start.min(end), data.end.min(end));
            buffer[place(next)..place(from)].fill(0);
            self.base.read_exact_at(from, &mut buffer[place(from)..place(to)])?;
            next = to;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn decoded(&self) -> (u64, u64) {
        self.layers.decoded()
    }

    fn start_ahead(&self) -> Option<ReadAhead> {
        // Without threads everything is as true, and slower.
        (self.threads > 0).then(|| ReadAhead::start(&self.layers, self.threads).ok()).flatten()
    }

    /// The sectors that hold a range of bytes, if the disk has them.
    fn sectors_of(&self, offset: u64, len: u64) -> Result<Extent, ReadError> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len().0);
        let end = end.ok_or(ReadError::PastEnd { offset, len })?;
        let start = offset / SECTOR_SIZE;
        Ok(Extent { start: Sector(start), sectors: end.div_ceil(SECTOR_SIZE) - start })
    }
}

/// Reads of a base, by `read_at`, what no delta has of `extent`. What deltas have may be overwritten
/// in `buffer`, so they are read after it.
fn read_base(
    layers: &Layers,
    extent: Extent,
    buffer: &mut [u8],
    read_at: impl Fn(u64, &mut [u8]) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let place = |sector: Sector| {
        usize::try_from(sector.bytes() - extent.start.bytes()).expect("within the buffer")
    };
    let mut read =
        |(from, to): (Sector, Sector)| read_at(from.bytes(), &mut buffer[place(from)..place(to)]);
    let behind = Extent { start: extent.end(), sectors: 0 };
    let (mut next, mut stretch): (_, Option<(Sector, Sector)>) = (extent.start, None);
    for covered in layers.within(extent).map(|segment| segment.extent()).chain([behind]) {
        if next < covered.start {
            let start = match stretch {
                Some((start, end)) if next.0 - end.0 <= BRIDGE => start,
                Some(before) => {
                    read(before)?;
                    next
                }
                None => next,
            };
            stretch = Some((start, covered.start));
        }
        next = covered.end();
    }
    stretch.map_or(Ok(()), read)
}

impl DiskShared {
    /// Opens a view of a point.
    pub(crate) fn view(&self, epoch: Epoch, retracted: Retracted) -> Result<View, ViewError> {
        let (record, lease) = self.lease_point(epoch, retracted)?;
        let cache = usize::try_from(self.registry.view_cache().0).unwrap_or(usize::MAX);
        let layers = self.layers_at(epoch, cache)?;
        if let Some(damaged) = self.damage_in(&layers) {
            return Err(ViewError::Damaged { epoch, damaged });
        }
        let catalog = self.books().catalog.record().clone();
        let base = Base::open_reader(self.storage.as_ref(), &self.paths, &catalog)?;
        Ok(View {
            disk: self.identity.0,
            epoch,
            record,
            layers: Arc::new(layers),
            ahead: OnceLock::new(),
            threads: self.workers.threads(),
            base,
            known_base: Mutex::default(),
            _lease: lease,
        })
    }

    /// The record of a point, and a lease of it.
    fn lease_point(
        &self,
        epoch: Epoch,
        retracted: Retracted,
    ) -> Result<(PointRecord, Lease), ViewError> {
        let books = self.books();
        books.check_health()?;
        let points = books.points();
        let point = points.iter().find(|point| point.epoch == epoch);
        let point = point.ok_or(ViewError::NoPoint(epoch))?;
        if let (PointStatus::Retracted(reason), Retracted::Refuse) = (point.status, retracted) {
            return Err(ViewError::Retracted { epoch, reason });
        }
        // With the books in hand: no fold and no merge begins to take it away meanwhile.
        Ok((point.record, self.registry.leases.take(self.identity.0, epoch)))
    }

    /// Reads whole sectors of the content under `layers`. The caller keeps the base as it is.
    pub(crate) fn read_newest(
        &self,
        layers: &Layers,
        start: Sector,
        buffer: &mut [u8],
    ) -> Result<(), ReadError> {
        let extent = Extent { start, sectors: buffer.len() as u64 / SECTOR_SIZE };
        let base = self.taker.base.file();
        read_base(layers, extent, buffer, |offset, bytes| base.read_exact_at(offset, bytes))?;
        Ok(layers.read(extent, buffer)?)
    }

    /// The deltas that lead from the base to `epoch`, which is one of theirs or the base's. The
    /// caller sees to it that the base is not folded past it.
    pub(crate) fn layers_at(&self, epoch: Epoch, cache: usize) -> Result<Layers, LayerError> {
        let deltas_now = || -> Vec<Pending> {
            let books = self.books();
            let until = books.pending.iter().take_while(|delta| delta.link.epoch <= epoch);
            until.copied().collect()
        };
        let mut deltas = deltas_now();
        loop {
            let opened =
                Layers::open(self.storage.as_ref(), &self.paths, &self.taker, &deltas, cache);
            match opened {
                // A delta was merged or folded since the list was made: the list is another now.
                Err(error) if error.is_missing() => {
                    let again = deltas_now();
                    if again == deltas {
                        return Err(error);
                    }
                    deltas = again;
                }
                opened => return opened,
            }
        }
    }
}
