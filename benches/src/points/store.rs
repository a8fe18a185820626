//! The disk that is measured: a base, and deltas on it as the shipper makes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use blocks::{
    Bitmap, ByteLen, ChunkIndex, ChunkRange, ChunkSize, Consistency, Coverage, CutMethod, CutTime,
    DiskId, Epoch, EpochKind, Extent, Generation, Geometry, MachineId, MonotonicNs, PointId,
    PointRecord, SECTOR_SIZE, SealedEpoch, Sector,
};
use replica::{Disk, DiskSpec, Store, View};
use shipper::{Plan, PlanLimits};
use vm_tests::Random;
use wire::frame::DATA_LEN_MAX;
use wire::{
    CheckedFrame, Codec, Content, DataKey, EpochEnd, EpochLink, EpochSummary, FrameExtent,
    FrameSpec, Sealer, Sequence,
};

use crate::content::{self, BLOCK, Mix, PIECE};

const ZSTD_LEVEL: i32 = 1;
/// Different blocks of changed content.
const BLOCKS: usize = 4096;

/// Different pieces of mixed content.
const PIECES: usize = 80;

/// How the frames of a scattered delta are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// As the shipper plans them.
    AsShipped,
    /// As full as they can be, whatever they span: the worst that a store may hold.
    Full,
}

/// A disk in a store of its own.
pub(super) struct Replica {
    store: Store,
    pub(super) disk: Disk,
    geometry: Geometry,
    sealer: Sealer,
    epoch: u64,
    blocks: Vec<u8>,
    random: Random,
}

/// An epoch that is sealed and not sent.
pub(super) struct Sealed {
    pub(super) link: EpochLink,
    pub(super) frames: Vec<CheckedFrame>,
}

/// What a frame will hold.
struct Parcel {
    extents: Vec<FrameExtent>,
    data: Vec<u8>,
}

impl Replica {
    /// An empty disk of `len` in a new store in `dir`.
    pub(super) fn create(dir: &Path, len: ByteLen) -> Result<Self> {
        Store::init(dir)?;
        let store = Store::open(dir)?;
        let geometry = Geometry::new(len.0 / SECTOR_SIZE, 512, ChunkSize::DEFAULT)?;
        let spec = DiskSpec {
            id: DiskId([1; 16]),
            generation: Generation([2; 16]),
            geometry,
            name: "points".to_owned(),
            machine: MachineId([3; 16]),
            key: DataKey::generate()?,
        };
        let disk = store.open_disk(&spec)?;
        let sealer = Sealer::new(&spec.key, spec.id, spec.generation)?;
        let mut random = Random::new(7);
        let mut blocks = vec![0; BLOCKS * BLOCK];
        for (number, block) in blocks.chunks_mut(BLOCK).enumerate() {
            content::fill_block(number, block, &mut random);
        }
        Ok(Self { store, disk, geometry, sealer, epoch: 0, blocks, random })
    }

    /// The file that the base is.
    pub(super) fn base(&self) -> PathBuf {
        self.disk.base_path().to_owned()
    }

    /// A view of the newest point, which keeps as much as is told of what it decodes.
    pub(super) fn view(&self, cache: ByteLen) -> Result<View> {
        self.store.set_view_cache(cache);
        Ok(self.disk.history().view(Epoch(self.epoch))?)
    }

    /// Fills the first `len` bytes of the base with mixed content.
    pub(super) fn seed(&mut self, len: ByteLen) -> Result<()> {
        let sealed = self.seal(EpochKind::Seed, false, mixed(len, 1))?;
        self.commit(sealed)
    }

    /// Commits a delta of `blocks` random blocks all over the disk, of which each `nth` makes a
    /// point.
    pub(super) fn scatter(&mut self, blocks: u64, nth: u64, cut: Cut) -> Result<()> {
        let chunks = self.geometry.chunks();
        let mut dirty = Bitmap::new(chunks);
        while dirty.count() < blocks {
            let start = ChunkIndex(self.random.below(chunks));
            dirty.insert_range(ChunkRange { start, end: ChunkIndex(start.0 + 1) });
        }
        let parcels = match cut {
            Cut::AsShipped => self.as_shipped(dirty),
            Cut::Full => {
                let extents = dirty.runs().map(|run| self.geometry.extent_of(run));
                full(extents).collect()
            }
        };
        let parcels: Vec<Parcel> =
            parcels.into_iter().map(|extents: Vec<Extent>| self.parcel(&extents)).collect();
        // The seed was the first epoch.
        let is_point = self.epoch.is_multiple_of(nth);
        let sealed = self.seal(EpochKind::Delta, is_point, parcels)?;
        self.commit(sealed)
    }

    /// Seals a delta of mixed content over the first `len` bytes, which makes a point.
    pub(super) fn seal_large(&mut self, len: ByteLen, seed: u64) -> Result<Sealed> {
        self.seal(EpochKind::Delta, true, mixed(len, seed))
    }

    pub(super) fn commit(&self, sealed: Sealed) -> Result<()> {
        let mut incoming = self.disk.begin(sealed.link)?;
        sealed.frames.into_iter().try_for_each(|frame| incoming.append(frame))?;
        incoming.commit()?;
        Ok(())
    }

    fn as_shipped(&self, dirty: Bitmap) -> Vec<Vec<Extent>> {
        let sealed = SealedEpoch::seal(Epoch(self.epoch + 1), dirty, Coverage::Complete, true);
        let plan = Plan::new(Arc::new(sealed), self.geometry, PlanLimits::default());
        plan.map(|batch| batch.pieces.iter().map(|piece| piece.extent).collect()).collect()
    }

    fn parcel(&mut self, extents: &[Extent]) -> Parcel {
        let mut parcel = Parcel { extents: Vec::new(), data: Vec::new() };
        for extent in extents {
            parcel.extents.push(frame_extent(*extent, Content::Data));
            for _ in 0..extent.len().0 / BLOCK as u64 {
                let at = usize::try_from(self.random.below(BLOCKS as u64)).expect("a few");
                parcel.data.extend_from_slice(&self.blocks[at * BLOCK..(at + 1) * BLOCK]);
            }
        }
        parcel
    }

    fn seal(
        &mut self,
        kind: EpochKind,
        is_point: bool,
        parcels: impl IntoIterator<Item = Parcel>,
    ) -> Result<Sealed> {
        self.epoch += 1;
        let link = EpochLink { kind, epoch: Epoch(self.epoch), follows: Epoch(self.epoch - 1) };
        let mut summary = EpochSummary { completes: true, ..EpochSummary::default() };
        let mut frames = Vec::new();
        for (sequence, Parcel { extents, data }) in (0..).map(Sequence).zip(parcels) {
            let coded = zstd::bulk::compress(&data, ZSTD_LEVEL).context("compressing")?;
            let (codec, payload) = match coded.len() < data.len() {
                true => (Codec::Zstd, &coded),
                false => (Codec::Raw, &data),
            };
            let spec = FrameSpec { link, sequence, codec, extents: &extents };
            let frame = CheckedFrame::parse(self.sealer.seal(&spec, payload)?)?;
            summary.frames += 1;
            summary.data_bytes += data.len() as u64;
            summary.zero_bytes += frame.zero_bytes();
            frames.push(frame);
        }
        let end = EpochEnd { summary, point: is_point.then(|| point(self.epoch)) };
        let end = self.sealer.seal_end(link, Sequence(u64::MAX), end)?;
        frames.push(CheckedFrame::parse(end)?);
        Ok(Sealed { link, frames })
    }
}

/// Mixed content from the start of the disk on, a mebibyte a frame. It repeats itself, but not
/// within what a frame is packed with.
fn mixed(len: ByteLen, seed: u64) -> impl Iterator<Item = Parcel> {
    let mut mix = Mix::new(seed);
    let pieces: Vec<_> = (0..PIECES)
        .map(|_| {
            let mut piece = Box::new([0; PIECE]);
            mix.fill(&mut piece).then_some(piece)
        })
        .collect();
    let per_frame = DATA_LEN_MAX as usize / PIECE;
    (0..len.0 / u64::from(DATA_LEN_MAX)).map(move |frame| {
        let mut parcel = Parcel { extents: Vec::new(), data: Vec::new() };
        for number in (frame * per_frame as u64..).take(per_frame) {
            let sectors = PIECE as u64 / SECTOR_SIZE;
            let extent = Extent { start: Sector(number * sectors), sectors };
            let piece = &pieces[usize::try_from(number).expect("few") % PIECES];
            let content = if piece.is_some() { Content::Data } else { Content::Zeroes };
            parcel.extents.push(frame_extent(extent, content));
            parcel.data.extend(piece.iter().flat_map(|piece| piece.as_slice()));
        }
        parcel
    })
}

/// Extents in groups that fill a frame each.
fn full(extents: impl Iterator<Item = Extent>) -> impl Iterator<Item = Vec<Extent>> {
    let mut extents = extents.peekable();
    std::iter::from_fn(move || {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(extent) =
            extents.next_if(|next| bytes + next.len().0 <= u64::from(DATA_LEN_MAX))
        {
            bytes += extent.len().0;
            group.push(extent);
        }
        (!group.is_empty()).then_some(group)
    })
}

fn frame_extent(extent: Extent, content: Content) -> FrameExtent {
    let sectors = u32::try_from(extent.sectors).expect("a frame holds 1 MiB at most");
    FrameExtent { start: extent.start, sectors, content }
}

fn point(number: u64) -> PointRecord {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    PointRecord {
        id: PointId(id),
        cut: CutTime { unix_ns: number, monotonic: MonotonicNs(number) },
        consistency: Consistency::Crash,
        method: CutMethod::Verified,
        disks: 1,
        attempts: 1,
        window: Duration::ZERO,
        freeze: Duration::ZERO,
    }
}
