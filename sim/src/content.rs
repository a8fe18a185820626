//! What sectors hold: a number, and the 512 bytes that it stands for on a disk.
//!
//! Every sector of a write carries the write's content number and its own place, so that content
//! that is mixed, misplaced, torn or damaged shows at once. Some contents compress, some don't.

use blocks::{Extent, SECTOR_SIZE};

use crate::rng::mix;

/// Bytes in a sector.
pub(crate) const SECTOR: usize = 512;

const _: () = assert!(SECTOR as u64 == SECTOR_SIZE);

const MAGIC: u64 = u64::from_le_bytes(*b"PINSIMUL");

/// What a sector holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Content(pub(crate) u64);

impl Content {
    /// Nothing but zero bytes: as it was made, or as a discard has left it.
    pub(crate) const ZEROES: Self = Self(0);

    /// The bytes of the sector at `place` that holds this.
    pub(crate) fn expand(self, place: u64, bytes: &mut [u8]) {
        if self == Self::ZEROES {
            return bytes.fill(0);
        }
        let (words, _) = bytes.as_chunks_mut::<8>();
        let seed = mix(self.0 ^ mix(place));
        for (at, word) in (0..).zip(words) {
            let value = match at {
                0 => MAGIC,
                1 => self.0,
                2 => place,
                3 => seed,
                // Half of all contents are noise, the others repeat themselves.
                _ if self.0.is_multiple_of(2) => mix(seed.wrapping_add(at)),
                _ => seed,
            };
            *word = value.to_le_bytes();
        }
    }

    /// What the sector at `place` holds; nothing if its bytes are those of no content there.
    pub(crate) fn decode(place: u64, bytes: &[u8]) -> Option<Self> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Some(Self::ZEROES);
        }
        let number = u64::from_le_bytes(*bytes.get(8..16)?.first_chunk()?);
        let mut expected = [0; SECTOR];
        Self(number).expand(place, &mut expected);
        (expected == bytes).then_some(Self(number))
    }
}

/// The sectors of an extent, as indices.
pub(crate) fn sectors(extent: Extent) -> std::ops::Range<usize> {
    let index = |sector: u64| usize::try_from(sector).expect("simulated disks are small");
    index(extent.start.0)..index(extent.end().0)
}
