//! Sealing: from extents and their coded data to the bytes of a frame.
//!
//! A [`Sealer`] belongs to one disk and one connection. Its salt is drawn when it is made and
//! exists nowhere else, its counter starts at zero and only rises, and it can't be cloned or
//! restored; so no two frames share a key and a nonce (promise 9, argued in `docs/wire.md`).
//!
//! Worker threads share one sealer. A [`FrameBuffer`] lets them code the data where it will be
//! sent from: it is encrypted in place and becomes the frame without a copy.

use std::io::Cursor;
use std::sync::atomic::{AtomicU64, Ordering};

use blocks::{DiskId, Epoch, EpochKind, Generation, Mutant};
use bytes::Bytes;

use crate::frame::{
    CHECKSUM_LEN, Codec, EXTENT_LEN, EXTENTS_MAX, EpochEnd, FrameError, FrameExtent, FrameHeader,
    FrameRole, HEADER_LEN, Sequence, SessionSalt, TAG_LEN, check_table,
};
use crate::key::{DataKey, SessionKey};
use crate::secret::{RandomError, random};

#[cfg(test)]
mod tests;

/// Frames that one sealer makes at most: what keeps the bounds of AES-GCM far away. At a thousand
/// full frames a second it lasts seven weeks.
pub const FRAMES_PER_SEALER_MAX: u64 = 1 << 32;

/// An epoch and what it is built on; the same for all frames of the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EpochLink {
    /// The kind of the epoch.
    pub kind: EpochKind,
    /// The epoch.
    pub epoch: Epoch,
    /// The epoch the replica must hold, durably, before this one is applied. Less than `epoch`.
    pub follows: Epoch,
}

/// What a content frame says.
#[derive(Clone, Copy, Debug)]
pub struct FrameSpec<'a> {
    /// Its epoch.
    pub link: EpochLink,
    /// Its place in the epoch, after that of the frame before.
    pub sequence: Sequence,
    /// How the payload is coded.
    pub codec: Codec,
    /// What the data belongs to: ascending, disjoint, `1..=EXTENTS_MAX`. The data of the extents
    /// with [`Content::Data`](crate::Content::Data), in this order, is what was coded.
    pub extents: &'a [FrameExtent],
}

/// Why a frame can't be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// What the caller gave makes no frame: a bug of the caller.
    #[error("no frame can be made of this: {0}")]
    Frame(#[from] FrameError),
    /// The buffer was made for another number of extents: a bug of the caller.
    #[error("a frame of {given} extents in a buffer for {reserved}")]
    Room {
        /// Extents of the frame.
        given: usize,
        /// Extents the buffer has room for.
        reserved: usize,
    },
    /// The sealer made as many frames as it may; a new connection has a new sealer.
    #[error("this session has sealed {FRAMES_PER_SEALER_MAX} frames, and needs a new key")]
    Exhausted,
}

/// Seals the frames of one disk for one connection. Shared by worker threads.
pub struct Sealer {
    key: SessionKey,
    disk: DiskId,
    generation: Generation,
    salt: SessionSalt,
    /// The nonce of the next frame.
    next: AtomicU64,
}

impl Sealer {
    /// A sealer with a session key of its own.
    ///
    /// # Errors
    /// If the operating system gives no random bytes for the salt.
    pub fn new(key: &DataKey, disk: DiskId, generation: Generation) -> Result<Self, RandomError> {
        let salt = SessionSalt(random()?);
        let key = SessionKey::derive(key, &salt, disk, generation);
        Ok(Self { key, disk, generation, salt, next: AtomicU64::new(0) })
    }

    /// Seals a content frame; `payload` is its coded data. Copies the payload once.
    pub fn seal(&self, spec: &FrameSpec<'_>, payload: &[u8]) -> Result<Bytes, SealError> {
        let mut buffer = FrameBuffer::new(spec.extents.len(), payload.len());
        buffer.extend(payload);
        self.seal_buffer(spec, buffer)
    }

    /// Seals a content frame in the buffer its coded data was written to. Copies nothing.
    pub fn seal_buffer(
        &self,
        spec: &FrameSpec<'_>,
        buffer: FrameBuffer,
    ) -> Result<Bytes, SealError> {
        let data_len = check_table(spec.extents)?;
        let header = self.header(spec, FrameRole::Content, data_len, &buffer)?;
        self.finish(header, spec.extents, buffer)
    }

    /// Seals the end frame of an epoch: its summary, and the point it makes if it makes one.
    pub fn seal_end(
        &self,
        link: EpochLink,
        sequence: Sequence,
        end: impl Into<EpochEnd>,
    ) -> Result<Bytes, SealError> {
        let data = end.into().encode();
        let mut buffer = FrameBuffer::new(0, data.len());
        buffer.extend(&data);
        let spec = FrameSpec { link, sequence, codec: Codec::Raw, extents: &[] };
        let header = self.header(&spec, FrameRole::End, data.len() as u64, &buffer)?;
        self.finish(header, &[], buffer)
    }

    /// A checked header, with everything but its nonce.
    fn header(
        &self,
        spec: &FrameSpec<'_>,
        role: FrameRole,
        data_len: u64,
        buffer: &FrameBuffer,
    ) -> Result<FrameHeader, SealError> {
        let (given, reserved) = (spec.extents.len(), buffer.extents);
        if given != reserved {
            return Err(SealError::Room { given, reserved });
        }
        let payload_len = buffer.payload_len() + TAG_LEN;
        let header = FrameHeader {
            role,
            codec: spec.codec,
            kind: spec.link.kind,
            disk: self.disk,
            generation: self.generation,
            epoch: spec.link.epoch,
            follows: spec.link.follows,
            sequence: spec.sequence,
            salt: self.salt,
            counter: 0,
            extent_count: fit(given, "extent count", EXTENTS_MAX.into())?,
            plain_len: fit(data_len, "data length", u32::MAX.into())?,
            payload_len: fit(payload_len, "payload length", u32::MAX.into())?,
        };
        Ok(header.checked()?)
    }

    /// Takes a nonce, and makes the frame. The only place where anything is encrypted.
    fn finish(
        &self,
        header: FrameHeader,
        extents: &[FrameExtent],
        buffer: FrameBuffer,
    ) -> Result<Bytes, SealError> {
        let header = FrameHeader { counter: self.take_nonce()?, ..header };
        let mut bytes = buffer.bytes;
        let (head, payload) = bytes.split_at_mut(header.payload_start());
        let (additional, table_sum) = head.split_at_mut(header.table_end());
        additional[..HEADER_LEN].copy_from_slice(&header.encode());
        let (entries, _) = additional[HEADER_LEN..].as_chunks_mut::<EXTENT_LEN>();
        entries.iter_mut().zip(extents).for_each(|(entry, extent)| *entry = extent.encode());
        table_sum.copy_from_slice(&crc32c::crc32c(&additional[HEADER_LEN..]).to_le_bytes());
        let tag = self.key.seal(header.nonce(), additional, payload);
        bytes.extend_from_slice(&tag);
        let checksum = crc32c::crc32c(&bytes[header.payload_start()..]);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        Ok(Bytes::from(bytes))
    }

    fn take_nonce(&self) -> Result<u64, SealError> {
        let next = |next| (next < FRAMES_PER_SEALER_MAX).then_some(next + 1);
        // The numbers must differ and nothing else, so the weakest order is enough.
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let taken = taken.map_err(|_| SealError::Exhausted)?;
        Ok(if Mutant::NonceReused.is_on() { taken / 2 } else { taken })
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("disk", &self.disk).finish_non_exhaustive()
    }
}

/// A frame being made: room for its header and table, then its payload.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    extents: usize,
}

impl FrameBuffer {
    /// A buffer for a frame of `extents` extents and up to `capacity` bytes of coded data; more
    /// data than that costs a copy.
    pub fn new(extents: usize, capacity: usize) -> Self {
        let start = payload_start(extents);
        let mut bytes = Vec::with_capacity(start + capacity + TAG_LEN + CHECKSUM_LEN);
        bytes.resize(start, 0);
        Self { bytes, extents }
    }

    /// Makes room for so many more bytes of coded data, and no more than that.
    pub fn reserve(&mut self, capacity: usize) {
        self.bytes.reserve_exact(capacity + TAG_LEN + CHECKSUM_LEN);
    }

    /// Gives back the room that no coded data has filled.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to(self.bytes.len() + TAG_LEN + CHECKSUM_LEN);
    }

    /// Appends coded data.
    pub fn extend(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
    }

    /// Where coded data goes next, for coders that write to a cursor over reserved capacity
    /// (zstd's `WriteBuf`). The bytes before the cursor's position must stay as they are.
    pub fn cursor(&mut self) -> Cursor<&mut Vec<u8>> {
        let end = self.bytes.len() as u64;
        let mut cursor = Cursor::new(&mut self.bytes);
        cursor.set_position(end);
        cursor
    }

    /// Bytes of coded data so far.
    pub fn payload_len(&self) -> usize {
        self.bytes.len().saturating_sub(payload_start(self.extents))
    }

    /// Drops the coded data, to code it another way.
    pub fn clear(&mut self) {
        self.bytes.resize(payload_start(self.extents), 0);
    }
}

const fn payload_start(extents: usize) -> usize {
    HEADER_LEN + extents * EXTENT_LEN + CHECKSUM_LEN
}

/// A length as its field holds it.
fn fit<T>(value: impl TryInto<u64>, field: &'static str, limit: u64) -> Result<T, FrameError>
where
    T: TryFrom<u64>,
{
    let value = value.try_into().unwrap_or(u64::MAX);
    T::try_from(value).map_err(|_| FrameError::TooLarge { field, value, limit })
}
