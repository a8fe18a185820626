//! Stamped sectors: every 512 bytes that a writer writes say what they are.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `PINSTAMP` |
//! | 8 | 8 | run |
//! | 16 | 4 | disk |
//! | 20 | 4 | stream |
//! | 24 | 8 | sector, absolute on the disk |
//! | 32 | 8 | write id |
//! | 40 | 4 | index of the sector within the write |
//! | 44 | 4 | fill: 0 random, 1 repeating |
//! | 48 | 8 | last acknowledged write of the stream |
//! | 56 | 8 | hash of all of the above |
//! | 64 | 448 | expanded from the hash |
//!
//! So content that is misplaced, mixed, torn, stale or still encrypted shows at once.

use crate::Random;

const MAGIC: [u8; 8] = *b"PINSTAMP";
const SECTOR: usize = 512;
const HASHED: usize = 56;
const HEADER: usize = 64;

/// What the stamp of one sector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The run of the rig that wrote it.
    pub run: u64,
    /// The disk, by the rig's numbering.
    pub disk: u32,
    /// The writer.
    pub stream: u32,
    /// Where on the disk, in sectors.
    pub sector: u64,
    /// The write, rising within its stream.
    pub write: u64,
    /// The place of this sector in its write.
    pub index: u32,
    /// How the rest of the sector is made.
    pub fill: Fill,
    /// The highest write of the stream that was acknowledged when this one was issued.
    pub acknowledged: u64,
}

/// How well a sector compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fill {
    /// Not at all.
    Random = 0,
    /// Well: one word, repeated.
    Repeating = 1,
}

/// Why 512 bytes are no whole stamped sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampError {
    /// No magic: zeroes, foreign or encrypted content.
    NotStamped,
    /// The header does not match its hash.
    Header,
    /// The header is whole and the body is not the one that belongs to it: a torn sector.
    Torn,
}

impl std::fmt::Display for StampError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotStamped => "not a stamped sector",
            Self::Header => "the stamp's header does not match its hash",
            Self::Torn => "the sector's body does not belong to its stamp",
        })
    }
}

impl std::error::Error for StampError {}

impl Stamp {
    /// Writes a whole buffer, a multiple of 512 bytes, as the sectors from this one on.
    ///
    /// # Panics
    /// If the buffer is not a whole number of sectors.
    pub fn stamp(self, buffer: &mut [u8]) {
        assert!(buffer.len().is_multiple_of(SECTOR), "whole sectors");
        let mut stamp = self;
        for sector in buffer.chunks_mut(SECTOR) {
            stamp.encode(sector);
            stamp.sector += 1;
            stamp.index += 1;
        }
    }

    /// Reads the stamp of one sector and checks all of its 512 bytes.
    pub fn read(sector: &[u8]) -> Result<Self, StampError> {
        let word = |at: usize| u64::from_le_bytes(array(sector, at));
        let half = |at: usize| u32::from_le_bytes(array(sector, at));
        if sector.len() != SECTOR || sector[..8] != MAGIC {
            return Err(StampError::NotStamped);
        }
        let fill = match half(44) {
            0 => Fill::Random,
            1 => Fill::Repeating,
            _ => return Err(StampError::Header),
        };
        if word(HASHED) != hash(&sector[..HASHED]) {
            return Err(StampError::Header);
        }
        let mut body = [0; SECTOR - HEADER];
        expand(word(HASHED), fill, &mut body);
        if sector[HEADER..] != body {
            return Err(StampError::Torn);
        }
        Ok(Self {
            run: word(8),
            disk: half(16),
            stream: half(20),
            sector: word(24),
            write: word(32),
            index: half(40),
            fill,
            acknowledged: word(48),
        })
    }

    fn encode(&self, sector: &mut [u8]) {
        sector[..8].copy_from_slice(&MAGIC);
        sector[8..16].copy_from_slice(&self.run.to_le_bytes());
        sector[16..20].copy_from_slice(&self.disk.to_le_bytes());
        sector[20..24].copy_from_slice(&self.stream.to_le_bytes());
        sector[24..32].copy_from_slice(&self.sector.to_le_bytes());
        sector[32..40].copy_from_slice(&self.write.to_le_bytes());
        sector[40..44].copy_from_slice(&self.index.to_le_bytes());
        sector[44..48].copy_from_slice(&(self.fill as u32).to_le_bytes());
        sector[48..56].copy_from_slice(&self.acknowledged.to_le_bytes());
        let hash = hash(&sector[..HASHED]);
        sector[HASHED..HEADER].copy_from_slice(&hash.to_le_bytes());
        expand(hash, self.fill, &mut sector[HEADER..]);
    }
}

fn expand(hash: u64, fill: Fill, body: &mut [u8]) {
    match fill {
        Fill::Random => Random::new(hash).fill(body),
        Fill::Repeating => {
            body.chunks_mut(8).for_each(|word| word.copy_from_slice(&hash.to_le_bytes()));
        }
    }
}

/// A hash against accidents, not against enemies: each word goes through the generator's mixer.
pub(crate) fn hash(header: &[u8]) -> u64 {
    let word = |chunk: &[u8]| u64::from_le_bytes(array(chunk, 0));
    header.chunks_exact(8).fold(0, |state, chunk| Random::new(state ^ word(chunk)).next_u64())
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(fill: Fill) -> Stamp {
        let (run, disk, stream, sector) = (7, 1, 2, 40);
        Stamp { run, disk, stream, sector, write: 9, index: 0, fill, acknowledged: 8 }
    }

    #[test]
    fn every_sector_of_a_write_reads_back() {
        for fill in [Fill::Random, Fill::Repeating] {
            let mut buffer = [0; 4 * SECTOR];
            stamp(fill).stamp(&mut buffer);
            for (index, sector) in (0..).zip(buffer.chunks(SECTOR)) {
                let wanted = Stamp { sector: 40 + u64::from(index), index, ..stamp(fill) };
                assert_eq!(Stamp::read(sector), Ok(wanted));
            }
        }
    }

    #[test]
    fn a_change_of_any_byte_shows() {
        let mut sector = [0; SECTOR];
        stamp(Fill::Random).stamp(&mut sector);
        for at in 0..SECTOR {
            sector[at] ^= 1;
            let wanted = match at {
                0..8 => StampError::NotStamped,
                8..HEADER => StampError::Header,
                _ => StampError::Torn,
            };
            assert_eq!(Stamp::read(&sector), Err(wanted), "byte {at}");
            sector[at] ^= 1;
        }
    }
}
