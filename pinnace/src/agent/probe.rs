//! Looking at blocks of a disk and at what its replica holds of them, beside replication.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, DiskId, Extent, Geometry, SECTOR_SIZE, Sector};
use nix::fcntl::OFlag;
use wire::COMPARE_BLOCK;
use wire::leaf::{LEAF_LEN, leaf_hash};
use wire::message::{HashedFrom, LEAF_BLOCKS_MAX};

use super::link::LinkSender;
use super::resync::{Compared, Estimate, Sample};

/// Direct reads need no more of any disk.
const ALIGN: usize = 4096;

const BLOCK_LEN: usize = 64 << 10;
const _: () = assert!(BLOCK_LEN as u64 == COMPARE_BLOCK.0);

/// Blocks that an estimate looks at: 32 MiB of disk.
const SAMPLED: u64 = 512;

/// A disk to look at, past the page cache.
pub(super) struct Probe {
    file: File,
    geometry: Geometry,
    link: LinkSender,
    disk: DiskId,
    memory: Vec<u8>,
}

/// What was found in blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    /// Leaves that differ, in order.
    pub(super) differing: Vec<Extent>,
    /// Those of them of which the replica's medium holds something else than was written to it.
    pub(super) decayed: Vec<Extent>,
    pub(super) blocks_differing: u64,
    pub(super) bytes: u64,
    /// How long the disk was read.
    pub(super) reading: Duration,
}

impl Probe {
    pub(super) fn open(
        path: &Path,
        geometry: Geometry,
        link: LinkSender,
        disk: DiskId,
    ) -> Result<Self> {
        let file = File::options().read(true).custom_flags(OFlag::O_DIRECT.bits()).open(path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { file, geometry, link, disk, memory: vec![0; BLOCK_LEN + ALIGN] })
    }

    /// How many blocks the disk has.
    pub(super) fn blocks(&self) -> u64 {
        self.geometry.len().0.div_ceil(COMPARE_BLOCK.0)
    }

    /// Holds blocks, which ascend, against the replica's: its hashes first, then the disk. So a
    /// write that comes in between shows as a difference, of which the caller must know.
    pub(super) fn look(&mut self, from: HashedFrom, blocks: &[u64]) -> Result<Found> {
        ensure!(blocks.len() <= LEAF_BLOCKS_MAX as usize, "too many blocks at once");
        let leaves = self.link.ask_for_leaves(self.disk, from, blocks.to_vec());
        let leaves = leaves.context("the target gives no hashes, or the connection was lost")?;
        let mut found = Found::default();
        for (block, replica) in blocks.iter().zip(&leaves.blocks) {
            let start = block * (COMPARE_BLOCK.0 / SECTOR_SIZE);
            let began = Instant::now();
            let content = self.read(start)?;
            let took = began.elapsed();
            let before = found.differing.len();
            let mut bytes = 0;
            for (place, content) in content.chunks(LEAF_LEN).enumerate() {
                let start = Sector(start + (place * LEAF_LEN) as u64 / SECTOR_SIZE);
                let extent = Extent { start, sectors: content.len() as u64 / SECTOR_SIZE };
                bytes += content.len() as u64;
                if leaf_hash(place, content) != replica.hashes[place] {
                    found.differing.push(extent);
                    if replica.decayed >> place & 1 == 1 {
                        found.decayed.push(extent);
                    }
                }
            }
            found.reading += took;
            found.bytes += bytes;
            found.blocks_differing += u64::from(found.differing.len() > before);
        }
        Ok(found)
    }

    /// A block of the disk, the last one possibly short.
    fn read(&mut self, start: u64) -> Result<&[u8]> {
        let left = (self.geometry.sectors() - start) * SECTOR_SIZE;
        let len = BLOCK_LEN.min(usize::try_from(left).unwrap_or(BLOCK_LEN));
        let aligned = self.memory.as_ptr().align_offset(ALIGN);
        let buffer = &mut self.memory[aligned..aligned + len];
        self.file.read_exact_at(buffer, start * SECTOR_SIZE).context("reading the disk")?;
        Ok(buffer)
    }
}

/// Estimates a comparison of `whole` bytes of a disk, by blocks at even distances.
pub(super) fn estimate(
    mut probe: Probe,
    whole: ByteLen,
    last: Option<Compared>,
) -> Result<Estimate> {
    let all = probe.blocks();
    let wanted = SAMPLED.min(all);
    // The middles of equal parts: as good as random where differences are, and never the same
    // place twice.
    let blocks: Vec<u64> = (0..wanted).map(|n| (2 * n + 1) * all / (2 * wanted)).collect();
    let mut sample =
        Sample { looked_at: 0, differing: 0, blocks: wanted, blocks_differing: 0, rate: 0.0 };
    let mut reading = Duration::ZERO;
    for blocks in blocks.chunks(LEAF_BLOCKS_MAX as usize) {
        let found = probe.look(HashedFrom::Kept, blocks)?;
        sample.looked_at += found.bytes;
        sample.differing += found.differing.iter().map(|extent| extent.len().0).sum::<u64>();
        sample.blocks_differing += found.blocks_differing;
        reading += found.reading;
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let rate = sample.looked_at as f64 / reading.as_secs_f64().max(1e-6);
    Ok(Estimate::of(whole, Sample { rate, ..sample }, last))
}
