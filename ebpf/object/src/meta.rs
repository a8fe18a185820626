//! The record pinned beside a disk's bitmaps: what a new process must know of it.
//!
//! An array map of [`WORDS`] words: 0 magic; 1 sectors; 2, 3 disk id; 4, 5 generation; 6 device
//! number and class; 7 logical block and log2 of a chunk's bytes; 8 disk sequence number; 9 newest
//! acknowledged epoch; 10 to 13 baseline; 14 how tracking began, 15 and 16 the number that proves
//! it. Identities are read as little-endian words. Words 9 and
//! on are written at run time, each on its own; the others once, before the map is pinned.

use std::{array, io, os::fd::AsFd, sync::atomic::Ordering::SeqCst};

use blocks::{ChunkSize, DiskId, Epoch, Generation, Geometry};

use crate::{
    device::{DeviceNumber, DiskClass},
    mapped::Mapped,
    spec::DiskSpec,
};

/// How long the record is.
pub const WORDS: u32 = 64;

const MAGIC: u64 = u64::from_le_bytes(*b"pinnaceD");

const SECTORS: usize = 1;
const ID: usize = 2;
const GENERATION: usize = 4;
const NUMBER_AND_CLASS: usize = 6;
const BLOCK_AND_CHUNK: usize = 7;
const SEQUENCE: usize = 8;
const ACKED: usize = 9;
const BASELINE: usize = 10;
const ARRIVAL: usize = 14;
const PROOF: usize = 15;

/// Four numbers that the agent keeps for its cross-check; their meaning is its own.
pub type Baseline = [u64; 4];

/// How tracking of a disk began, as far as whoever reads the record must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// An agent began it, or has taken it up: what is pending is all there is to know.
    Established,
    /// Before the root file system was mounted, and what was before is not known.
    Early,
    /// The same, and nothing was written between the closing of the log that has this number and
    /// now (`docs/boot.md`).
    Proven([u8; 16]),
}

/// A disk's record, mapped.
#[derive(Debug)]
pub struct Meta(Mapped);

impl Meta {
    /// Maps a record.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(map: &impl AsFd) -> io::Result<Self> {
        Mapped::new(map, u64::from(WORDS)).map(Self)
    }

    /// Describes a disk, of which nothing is acknowledged yet.
    pub fn write(&self, spec: &DiskSpec) {
        let geometry = spec.geometry;
        let number = u64::from(spec.number.devt());
        let block = u64::from(geometry.logical_block());
        self.set(SECTORS, geometry.sectors());
        self.set_identity(ID, spec.id.0);
        self.set_identity(GENERATION, spec.generation.0);
        self.set(NUMBER_AND_CLASS, number | u64::from(spec.class.number()) << 32);
        self.set(BLOCK_AND_CHUNK, block | u64::from(geometry.chunk().log2()) << 32);
        self.set(SEQUENCE, spec.sequence);
        self.set(ACKED, Epoch::NONE.0);
        self.set(0, MAGIC);
    }

    /// What the record says, or nothing if no disk of ours can be like that.
    pub fn read(&self) -> Option<DiskSpec> {
        if self.get(0) != MAGIC {
            return None;
        }
        let (number, class) = halves(self.get(NUMBER_AND_CLASS));
        let (block, chunk_log2) = halves(self.get(BLOCK_AND_CHUNK));
        let chunk = ChunkSize::from_bytes(1u64.checked_shl(chunk_log2)?).ok()?;
        Some(DiskSpec {
            id: DiskId(self.identity(ID)),
            generation: Generation(self.identity(GENERATION)),
            number: DeviceNumber::from_devt(number),
            class: DiskClass::from_number(class)?,
            geometry: Geometry::new(self.get(SECTORS), block, chunk).ok()?,
            sequence: self.get(SEQUENCE),
        })
    }

    /// The newest acknowledged epoch.
    pub fn acked(&self) -> Epoch {
        Epoch(self.get(ACKED))
    }

    /// Keeps it.
    pub fn acknowledge(&self, epoch: Epoch) {
        self.set(ACKED, epoch.0);
    }

    /// What was kept for the cross-check.
    pub fn baseline(&self) -> Baseline {
        array::from_fn(|i| self.get(BASELINE + i))
    }

    /// Keeps it; each number is stored on its own.
    pub fn keep_baseline(&self, baseline: Baseline) {
        (BASELINE..).zip(baseline).for_each(|(word, value)| self.set(word, value));
    }

    /// How tracking began.
    pub fn arrival(&self) -> Arrival {
        match self.get(ARRIVAL) {
            0 => Arrival::Established,
            2 => Arrival::Proven(self.identity(PROOF)),
            _ => Arrival::Early,
        }
    }

    /// Keeps how tracking began. The number is there before the word that speaks of it.
    pub fn arrive(&self, arrival: Arrival) {
        let word = match arrival {
            Arrival::Established => 0,
            Arrival::Early => 1,
            Arrival::Proven(number) => {
                self.set_identity(PROOF, number);
                2
            }
        };
        self.set(ARRIVAL, word);
    }

    fn get(&self, word: usize) -> u64 {
        self.0.words()[word].load(SeqCst)
    }

    fn set(&self, word: usize, value: u64) {
        self.0.words()[word].store(value, SeqCst);
    }

    fn identity(&self, word: usize) -> [u8; 16] {
        let number = u128::from(self.get(word)) | u128::from(self.get(word + 1)) << 64;
        number.to_le_bytes()
    }

    fn set_identity(&self, word: usize, bytes: [u8; 16]) {
        let (low, high) = bytes.split_at(8);
        let number = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("half of 16 is 8"));
        self.set(word, number(low));
        self.set(word + 1, number(high));
    }
}

/// The low and the high half of a word.
fn halves(word: u64) -> (u32, u32) {
    let half = |bits| u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits");
    (half(word), half(word >> 32))
}
