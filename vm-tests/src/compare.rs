//! Whole images, compared: what really changed on a device, and where two copies differ.
//!
//! Devices are read with `O_DIRECT`, so that what is compared is what the device holds.

use std::{
    fmt,
    fs::File,
    io::Read,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use blocks::{Bitmap, ByteLen, ChunkIndex, ChunkRange, Geometry, SECTOR_SIZE, Sector};
use memmap2::MmapMut;
use nix::libc;

const STEP: usize = 1 << 20;

/// The content of a device or file at one time.
pub struct Image {
    bytes: MmapMut,
}

/// The sectors in which two images differ.
#[derive(Debug, PartialEq, Eq)]
pub struct ChangedSectors(pub Vec<Sector>);

/// The first place where two copies differ.
#[derive(Debug, PartialEq, Eq)]
pub enum Difference {
    /// One ends before the other.
    Length {
        /// The length of the first.
        left: ByteLen,
        /// The length of the second.
        right: ByteLen,
    },
    /// A byte differs.
    Byte {
        /// Its offset.
        offset: u64,
        /// The byte in the first.
        left: u8,
        /// The byte in the second.
        right: u8,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { left, right } => write!(f, "lengths differ: {left} and {right}"),
            Self::Byte { offset, left, right } => write!(
                f,
                "first difference at byte {offset} (sector {}): {left:#04x} and {right:#04x}",
                offset / SECTOR_SIZE
            ),
        }
    }
}

impl Image {
    /// Reads all of `path`, around the page cache if it is a device.
    pub fn read(path: &Path) -> Result<Self> {
        let mut source = Source::open(path)?;
        let len = usize::try_from(source.len).context("an image that fits memory")?;
        let mut bytes = MmapMut::map_anon(len.max(1)).context("memory for an image")?;
        let mut at = 0;
        while at < len {
            let end = (at + STEP).min(len);
            let got = source.read(&mut bytes[at..end])?;
            ensure!(got > 0, "{} ended at byte {at}", path.display());
            at += got;
        }
        Ok(Self { bytes })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The chunks in which `after` differs from this one.
    ///
    /// # Panics
    /// If either is shorter than the geometry says.
    pub fn changed_chunks(&self, after: &Self, geometry: &Geometry) -> Bitmap {
        let mut changed = Bitmap::new(geometry.chunks());
        for index in 0..geometry.chunks() {
            let chunk = ChunkRange { start: ChunkIndex(index), end: ChunkIndex(index + 1) };
            let extent = geometry.extent_of(chunk);
            let start = usize::try_from(extent.start.bytes()).expect("the image fits memory");
            let end = usize::try_from(extent.end().bytes()).expect("the image fits memory");
            if self.bytes[start..end] != after.bytes[start..end] {
                changed.insert_range(chunk);
            }
        }
        changed
    }

    /// The sectors in which `after` differs from this one.
    pub fn changed_sectors(&self, after: &Self) -> ChangedSectors {
        let size = usize::try_from(SECTOR_SIZE).expect("512");
        let pairs = (0..).zip(self.bytes.chunks(size).zip(after.bytes.chunks(size)));
        let changed = pairs.filter(|(_, (before, after))| before != after);
        ChangedSectors(changed.map(|(index, _)| Sector(index)).collect())
    }
}

/// Compares two devices or files byte for byte. `None` says that they are equal.
pub fn first_difference(left: &Path, right: &Path) -> Result<Option<Difference>> {
    let mut sources = [Source::open(left)?, Source::open(right)?];
    let mut buffers = [MmapMut::map_anon(STEP)?, MmapMut::map_anon(STEP)?];
    let shorter = sources[0].len.min(sources[1].len);
    let mut at = 0;
    while at < shorter {
        for (source, buffer) in sources.iter_mut().zip(&mut buffers) {
            source.fill(buffer)?;
        }
        let compared = usize::try_from(shorter - at).map_or(STEP, |left| left.min(STEP));
        let (left, right) = (&buffers[0][..compared], &buffers[1][..compared]);
        if left != right {
            let index = (0..compared).find(|i| left[*i] != right[*i]).expect("they differ");
            let offset = at + index as u64;
            return Ok(Some(Difference::Byte { offset, left: left[index], right: right[index] }));
        }
        at += compared as u64;
    }
    let [left, right] = sources.map(|source| ByteLen(source.len));
    Ok((left != right).then_some(Difference::Length { left, right }))
}

/// How many chunks of this length differ between two devices or files of the same length.
pub fn differing_chunks(left: &Path, right: &Path, chunk: ByteLen) -> Result<u64> {
    let mut sources = [Source::open(left)?, Source::open(right)?];
    let mut buffers = [MmapMut::map_anon(STEP)?, MmapMut::map_anon(STEP)?];
    let (len, chunk) = (sources[0].len, usize::try_from(chunk.0).context("a chunk fits memory")?);
    ensure!(sources[1].len == len, "{} bytes and {}", len, sources[1].len);
    ensure!(chunk > 0 && STEP.is_multiple_of(chunk), "a chunk of {chunk} bytes");
    let mut differing = 0;
    for at in (0..len).step_by(STEP) {
        for (source, buffer) in sources.iter_mut().zip(&mut buffers) {
            source.fill(buffer)?;
        }
        let compared = usize::try_from(len - at).map_or(STEP, |left| left.min(STEP));
        let chunks = |of: usize| buffers[of][..compared].chunks(chunk);
        differing += chunks(0).zip(chunks(1)).filter(|(left, right)| left != right).count() as u64;
    }
    Ok(differing)
}

struct Source {
    file: File,
    len: u64,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let describe = || format!("reading {}", path.display());
        let device = path.metadata().with_context(describe)?.file_type().is_block_device();
        let flags = if device { libc::O_DIRECT } else { 0 };
        let mut file =
            File::options().read(true).custom_flags(flags).open(path).with_context(describe)?;
        let len = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
        std::io::Seek::rewind(&mut file)?;
        Ok(Self { file, len })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.file.read(buffer).context("reading an image")
    }

    /// Fills the buffer as far as the source goes.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < buffer.len() {
            match self.read(&mut buffer[at..])? {
                0 => break,
                got => at += got,
            }
        }
        Ok(())
    }
}
