//! What an image holds, unit by unit: a recovery point, or a disk before the run.

use std::fmt;

use blocks::{Extent, SECTOR_SIZE, Sector};

use crate::{Layout, Stamp, StampError, Unit, layout::Place, stamp::hash};

/// How much is asked of a reader at once, in sectors.
const STEP: u64 = (1 << 20) / SECTOR_SIZE;
/// Unexpected stamps that are remembered for the story, at most.
const STRANGERS_MAX: usize = 64;

/// The content of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing but zeroes.
    Zeroes,
    /// Whole sectors of one write of this run, in their place.
    Write {
        /// Its stream.
        stream: u32,
        /// Its number within the stream.
        write: u64,
        /// The place of the unit's first sector in the write, in sectors.
        index: u32,
    },
    /// Anything else. Equal bytes have equal fingerprints.
    Opaque {
        /// What is wrong with it.
        why: Opacity,
        /// A hash of its bytes, against accidents only.
        fingerprint: u64,
    },
}

/// Why a unit's content is no write of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opacity {
    /// No stamp.
    Unstamped,
    /// A stamp that is damaged.
    Damaged,
    /// A sector that is half of one write and half of something else.
    TornSector,
    /// Whole sectors that do not belong together.
    TornBlock,
    /// A write that belongs elsewhere.
    Misplaced,
    /// A write of another run.
    Foreign,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeroes => f.write_str("zeroes"),
            Self::Write { stream, write, .. } => write!(f, "write {write} of stream {stream}"),
            Self::Opaque { why, .. } => f.write_str(match why {
                Opacity::Unstamped => "bytes without a stamp",
                Opacity::Damaged => "a damaged stamp",
                Opacity::TornSector => "a torn sector",
                Opacity::TornBlock => "sectors of different writes in one logical block",
                Opacity::Misplaced => "a write that belongs elsewhere",
                Opacity::Foreign => "a write of another run",
            }),
        }
    }
}

/// The content of all disks of a run at one time.
#[derive(Clone, Debug)]
pub struct Observed {
    disks: Vec<Vec<Content>>,
    strangers: Vec<(Unit, Stamp)>,
}

impl Observed {
    /// Reads whole disks. `read(disk, extent, buffer)` fills `buffer` with the bytes of `extent`.
    ///
    /// # Errors
    /// The reader's first.
    pub fn read<E>(
        layout: &Layout,
        mut read: impl FnMut(u32, Extent, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut observed = Self { disks: Vec::new(), strangers: Vec::new() };
        let mut buffer = vec![0; bytes(STEP)];
        for (place, (disk, geometry)) in layout.disks().iter().enumerate() {
            observed.disks.push(Vec::with_capacity(layout.blocks(place)));
            let mut start = 0;
            while start < geometry.sectors() {
                let sectors = STEP.min(geometry.sectors() - start);
                let buffer = &mut buffer[..bytes(sectors)];
                read(*disk, Extent { start: Sector(start), sectors }, buffer)?;
                for block in buffer.chunks(bytes(layout.block_sectors(place))) {
                    observed.add(layout, place, block);
                }
                start += sectors;
            }
        }
        Ok(observed)
    }

    /// This, with extents read again: whole units, each once at most.
    ///
    /// # Errors
    /// The reader's first.
    ///
    /// # Panics
    /// If an extent is not on the disks, by which this was read.
    pub fn reread<E>(
        &self,
        layout: &Layout,
        extents: impl IntoIterator<Item = (u32, Extent)>,
        mut read: impl FnMut(u32, Extent, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut again = self.clone();
        let mut buffer = Vec::new();
        for (disk, extent) in extents {
            let place = layout.place(disk).expect("a disk of the run");
            let sectors = layout.block_sectors(place);
            buffer.resize(bytes(extent.sectors), 0);
            read(disk, extent, &mut buffer)?;
            let first = extent.start.0 / sectors;
            for (block, content) in (first..).zip(buffer.chunks(bytes(sectors))) {
                again.set(layout, layout.unit(place, index(block)), content);
            }
        }
        Ok(again)
    }

    /// For those who keep the identity of each unit's content instead of its bytes.
    pub fn from_fn(layout: &Layout, mut content: impl FnMut(Unit) -> Content) -> Self {
        let disk = |place| {
            (0..layout.blocks(place)).map(|block| content(layout.unit(place, block))).collect()
        };
        let disks = (0..layout.disks().len()).map(disk).collect();
        Self { disks, strangers: Vec::new() }
    }

    /// What a unit holds.
    ///
    /// # Panics
    /// If it is not a unit of this layout, by which the image was read.
    pub fn content_of(&self, layout: &Layout, unit: Unit) -> Content {
        let place = layout.place(unit.disk).expect("a disk of the run");
        self.content(place, index(unit.block))
    }

    /// The first unit in which two reads differ. Two reads of one point never do, not even where
    /// a discard left the content undefined.
    pub fn first_difference(&self, other: &Self, layout: &Layout) -> Option<Unit> {
        let pairs = (0..).zip(self.disks.iter().zip(&other.disks));
        pairs.into_iter().find_map(|(place, (left, right))| {
            let at = left.iter().zip(right).position(|(left, right)| left != right)?;
            Some(layout.unit(place, at))
        })
    }

    /// What a block of the disk at `place` holds.
    pub(crate) fn content(&self, place: Place, block: usize) -> Content {
        self.disks[place][block]
    }

    /// The unexpected stamp that a unit carries, where it was remembered.
    pub(crate) fn stranger(&self, unit: Unit) -> Option<&Stamp> {
        self.strangers.iter().find(|(at, _)| *at == unit).map(|(_, stamp)| stamp)
    }

    fn add(&mut self, layout: &Layout, place: Place, bytes: &[u8]) {
        let unit = layout.unit(place, self.disks[place].len());
        self.disks[place].push(Content::Zeroes);
        self.set(layout, unit, bytes);
    }

    fn set(&mut self, layout: &Layout, unit: Unit, bytes: &[u8]) {
        let place = layout.place(unit.disk).expect("a disk of the run");
        let expected = Expected {
            run: layout.run(),
            disk: unit.disk,
            sector: unit.block * layout.block_sectors(place),
        };
        let content = expected.decode(bytes);
        self.disks[place][index(unit.block)] = content;
        self.strangers.retain(|(at, _)| *at != unit);
        if matches!(content, Content::Opaque { .. })
            && self.strangers.len() < STRANGERS_MAX
            && let Ok(stamp) = Stamp::read(&bytes[..SECTOR])
        {
            self.strangers.push((unit, stamp));
        }
    }
}

/// What the stamps of a unit must say if they are in their place.
struct Expected {
    run: u64,
    disk: u32,
    sector: u64,
}

impl Expected {
    fn decode(&self, block: &[u8]) -> Content {
        if is_zero(block) {
            return Content::Zeroes;
        }
        match self.stamps(block) {
            Ok(first) => {
                Content::Write { stream: first.stream, write: first.write, index: first.index }
            }
            Err(why) => Content::Opaque { why, fingerprint: hash(block) },
        }
    }

    /// The first stamp of a unit all of whose sectors are of one write.
    fn stamps(&self, block: &[u8]) -> Result<Stamp, Opacity> {
        let first = Stamp::read(&block[..SECTOR]);
        let mut expected = first.unwrap_or(NOTHING);
        for sector in block.chunks(SECTOR) {
            match (Stamp::read(sector), first) {
                (Ok(stamp), Ok(_)) if stamp == expected => {}
                (Err(StampError::NotStamped), Err(StampError::NotStamped)) => {}
                (Err(StampError::Torn), _) => return Err(Opacity::TornSector),
                (Err(StampError::Header), _) => return Err(Opacity::Damaged),
                _ => return Err(Opacity::TornBlock),
            }
            expected.sector += 1;
            expected.index += 1;
        }
        let first = first.map_err(|_| Opacity::Unstamped)?;
        if first.run != self.run {
            return Err(Opacity::Foreign);
        }
        if (first.disk, first.sector) != (self.disk, self.sector) {
            return Err(Opacity::Misplaced);
        }
        Ok(first)
    }
}

const SECTOR: usize = 512;
/// What follows a sector without a stamp: never compared.
const NOTHING: Stamp = Stamp {
    run: 0,
    disk: 0,
    stream: 0,
    sector: 0,
    write: 0,
    index: 0,
    fill: crate::Fill::Random,
    acknowledged: 0,
};

fn is_zero(block: &[u8]) -> bool {
    // By words: a point of mostly empty disks is read as fast as memory allows.
    block.chunks_exact(8).all(|word| word == [0; 8])
}

fn index(block: u64) -> usize {
    usize::try_from(block).expect("64-bit")
}

fn bytes(sectors: u64) -> usize {
    usize::try_from(sectors * SECTOR_SIZE).expect("a step fits memory")
}

#[cfg(test)]
mod tests;
