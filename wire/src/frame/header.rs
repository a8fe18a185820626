//! The header of a frame: 104 bytes, little-endian, with a checksum of its own.
//!
//! Everything a target needs in order to store, order and refuse frames without the data key is
//! here, and all of it is authenticated as additional data of the payload.

use blocks::{DiskId, Epoch, EpochKind, Generation};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::FramePart;
use super::{
    CHECKSUM_LEN, DATA_LEN_MAX, EXTENT_LEN, EXTENTS_MAX, EpochEnd, EpochSummary, FRAME_VERSION,
    FrameError, NONCE_LEN, TAG_LEN,
};

/// Bytes of the header, its checksum included.
pub const HEADER_LEN: usize = size_of::<RawHeader>();

const MAGIC: [u8; 4] = *b"PNFR";
const FLAG_END: u8 = 1;
const TAG: u32 = 16;

/// A frame's place among the frames of its epoch: strictly increasing, gaps allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// The salt of a session key: 128 random bits, chosen by every sealer anew. Not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionSalt(pub [u8; 16]);

/// How the data of a frame is coded before it is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl Codec {
    const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// What a frame is in its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameRole {
    /// Extents of the disk.
    Content,
    /// The last frame: no extents, and an [`EpochEnd`](super::EpochEnd) as its data.
    End,
}

/// A header that was checked: its checksum holds, its fields have meanings and its lengths agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrameHeader {
    /// Content, or the end of the epoch.
    pub role: FrameRole,
    /// How the data is coded.
    pub codec: Codec,
    /// The kind of the epoch.
    pub kind: EpochKind,
    /// The disk.
    pub disk: DiskId,
    /// The line of the disk's history.
    pub generation: Generation,
    /// The epoch.
    pub epoch: Epoch,
    /// The epoch that this one is built on: it may be applied only to a replica whose newest
    /// epoch is that. Less than `epoch`.
    pub follows: Epoch,
    /// The place in the epoch.
    pub sequence: Sequence,
    /// The salt of the key that sealed the frame.
    pub salt: SessionSalt,
    /// The number of the nonce, unique for this salt.
    pub counter: u64,
    /// How many extents: `0` at the end, else `1..=EXTENTS_MAX`.
    pub extent_count: u16,
    /// Bytes of data before it was coded: `0..=DATA_LEN_MAX`.
    pub plain_len: u32,
    /// Bytes of sealed payload, its tag included: `TAG_LEN..=DATA_LEN_MAX + TAG_LEN`.
    pub payload_len: u32,
}

/// The header as it lies in a frame.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    version: U16,
    kind: u8,
    flags: u8,
    codec: u8,
    reserved: u8,
    extent_count: U16,
    plain_len: U32,
    payload_len: U32,
    disk: [u8; 16],
    generation: [u8; 16],
    salt: [u8; 16],
    epoch: U64,
    follows: U64,
    sequence: U64,
    counter: U64,
    checksum: U32,
}

const _: () = {
    assert!(TAG as usize == TAG_LEN);
    assert!(HEADER_LEN == 104);
    assert!(std::mem::offset_of!(RawHeader, disk) == 20);
    assert!(std::mem::offset_of!(RawHeader, epoch) == 68);
    assert!(std::mem::offset_of!(RawHeader, checksum) == 100);
};

impl FrameHeader {
    /// Checks the first [`HEADER_LEN`] bytes of a frame.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let raw: &RawHeader = zerocopy::transmute_ref!(bytes);
        if raw.magic != MAGIC {
            return Err(FrameError::Magic);
        }
        if raw.checksum.get() != crc32c::crc32c(&bytes[..HEADER_LEN - CHECKSUM_LEN]) {
            return Err(FrameError::Checksum(FramePart::Header));
        }
        if raw.version.get() != FRAME_VERSION {
            return Err(FrameError::Version(raw.version.get()));
        }
        Self {
            role: raw.role()?,
            codec: Codec::from_u8(raw.codec).ok_or_else(|| unknown("codec", raw.codec))?,
            kind: EpochKind::from_u8(raw.kind).ok_or_else(|| unknown("kind", raw.kind))?,
            disk: DiskId(raw.disk),
            generation: Generation(raw.generation),
            epoch: Epoch(raw.epoch.get()),
            follows: Epoch(raw.follows.get()),
            sequence: Sequence(raw.sequence.get()),
            salt: SessionSalt(raw.salt),
            counter: raw.counter.get(),
            extent_count: raw.extent_count.get(),
            plain_len: raw.plain_len.get(),
            payload_len: raw.payload_len.get(),
        }
        .checked()
    }

    /// Whether this is the last frame of its epoch.
    pub fn is_end(&self) -> bool {
        self.role == FrameRole::End
    }

    /// Bytes of the whole frame, at most [`FRAME_LEN_MAX`](super::FRAME_LEN_MAX).
    pub fn frame_len(&self) -> usize {
        self.payload_start() + self.payload_len as usize + CHECKSUM_LEN
    }

    /// The header as bytes, with its checksum.
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let raw = RawHeader {
            magic: MAGIC,
            version: U16::new(FRAME_VERSION),
            kind: self.kind as u8,
            flags: if self.is_end() { FLAG_END } else { 0 },
            codec: self.codec as u8,
            reserved: 0,
            extent_count: U16::new(self.extent_count),
            plain_len: U32::new(self.plain_len),
            payload_len: U32::new(self.payload_len),
            disk: self.disk.0,
            generation: self.generation.0,
            salt: self.salt.0,
            epoch: U64::new(self.epoch.0),
            follows: U64::new(self.follows.0),
            sequence: U64::new(self.sequence.0),
            counter: U64::new(self.counter),
            checksum: U32::ZERO,
        };
        let mut bytes: [u8; HEADER_LEN] = zerocopy::transmute!(raw);
        let (fields, checksum) = bytes.split_at_mut(HEADER_LEN - CHECKSUM_LEN);
        checksum.copy_from_slice(&crc32c::crc32c(fields).to_le_bytes());
        bytes
    }

    /// Where the extent table ends and its checksum begins. What lies before is the additional
    /// data of the payload.
    pub(crate) fn table_end(&self) -> usize {
        HEADER_LEN + usize::from(self.extent_count) * EXTENT_LEN
    }

    /// Where the payload begins.
    pub(crate) fn payload_start(&self) -> usize {
        self.table_end() + CHECKSUM_LEN
    }

    /// The 96-bit nonce: four zero bytes, then the counter.
    pub(crate) fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        nonce
    }

    /// Checks the fields against the limits and against each other. No header leaves this crate
    /// that did not come through here.
    pub(crate) fn checked(self) -> Result<Self, FrameError> {
        within("extent count", u64::from(self.extent_count), u64::from(EXTENTS_MAX))?;
        within("data length", u64::from(self.plain_len), u64::from(DATA_LEN_MAX))?;
        within("payload length", u64::from(self.payload_len), u64::from(DATA_LEN_MAX + TAG))?;
        if self.epoch <= self.follows || self.epoch > Epoch::MAX {
            return Err(FrameError::Field { field: "epoch", value: self.epoch.0 });
        }
        let coded = self.payload_len.checked_sub(TAG);
        let coded = coded.ok_or(FrameError::Lengths("the payload is shorter than its tag"))?;
        match self.codec {
            Codec::Raw if coded != self.plain_len => {
                return Err(FrameError::Lengths("raw data and payload differ in length"));
            }
            Codec::Zstd if coded == 0 || coded > self.plain_len => {
                return Err(FrameError::Lengths("coded data is empty or longer than the data"));
            }
            Codec::Raw | Codec::Zstd => {}
        }
        match self.role {
            FrameRole::Content if self.extent_count == 0 => {
                Err(FrameError::Lengths("content without an extent"))
            }
            FrameRole::End if !self.is_shaped_as_end() => Err(FrameError::Lengths(
                "the end of an epoch holds its summary, perhaps a point, and nothing else",
            )),
            FrameRole::Content | FrameRole::End => Ok(self),
        }
    }
}

impl FrameHeader {
    fn is_shaped_as_end(&self) -> bool {
        let (summary, point) = (EpochSummary::LEN, EpochEnd::LEN_MAX);
        let lengths = [summary, point].contains(&(self.plain_len as usize));
        lengths && self.extent_count == 0 && self.codec == Codec::Raw
    }
}

impl RawHeader {
    fn role(&self) -> Result<FrameRole, FrameError> {
        if self.reserved != 0 {
            return Err(unknown("reserved byte", self.reserved));
        }
        match self.flags {
            0 => Ok(FrameRole::Content),
            FLAG_END => Ok(FrameRole::End),
            flags => Err(unknown("flags", flags)),
        }
    }
}

fn unknown(field: &'static str, value: u8) -> FrameError {
    FrameError::Field { field, value: u64::from(value) }
}

fn within(field: &'static str, value: u64, limit: u64) -> Result<(), FrameError> {
    if value > limit { Err(FrameError::TooLarge { field, value, limit }) } else { Ok(()) }
}
