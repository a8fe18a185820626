//! Checksums made right again, so that what they guard is reached: whoever can write to a file or
//! a stream can write the checksum too.

const FRAME_HEADER: usize = 104;

/// Writes the CRC-32C of `bytes[from..at]` at `at`, if that is within.
fn seal(bytes: &mut [u8], from: usize, at: usize) -> Option<()> {
    let checksum = crc32c::crc32c(bytes.get(from..at)?);
    bytes.get_mut(at..at + 4)?.copy_from_slice(&checksum.to_le_bytes());
    Some(())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

/// The frames that begin at the start of `bytes` and follow each other.
pub(crate) fn frames(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(len) = bytes.get_mut(at..).and_then(frame) {
        at += len;
    }
}

/// One frame; its length, if what is there is long enough for one.
fn frame(bytes: &mut [u8]) -> Option<usize> {
    seal(bytes, 0, FRAME_HEADER - 4)?;
    let extents = usize::from(u16::from_le_bytes(*bytes.get(10..)?.first_chunk()?));
    let table_end = FRAME_HEADER + extents * 16;
    seal(bytes, FRAME_HEADER, table_end)?;
    let payload_end = (table_end + 4).checked_add(u32_at(bytes, 16)?)?;
    seal(bytes, table_end + 4, payload_end)?;
    Some(payload_end + 4)
}

/// Both slots of a slot file.
pub(crate) fn slots(bytes: &mut [u8]) {
    for slot in bytes.chunks_exact_mut(4096) {
        let len = u32_at(slot, 24).unwrap_or(0);
        if let Some(record) = slot.get(36..36 + len.min(4060)) {
            let checksum = crc32c::crc32c(record);
            slot[28..32].copy_from_slice(&checksum.to_le_bytes());
        }
        seal(slot, 0, 32);
    }
}

/// A delta: its frames, its index and its trailer.
pub(crate) fn delta(bytes: &mut [u8]) {
    frames(bytes);
    let Some(trailer) = bytes.len().checked_sub(128) else { return };
    let index = u32_at(bytes, trailer + 64).unwrap_or(0);
    if let Some(covered) = bytes.get(index..trailer) {
        let checksum = crc32c::crc32c(covered);
        bytes[trailer + 120..trailer + 124].copy_from_slice(&checksum.to_le_bytes());
    }
    seal(bytes, trailer, trailer + 124);
}

/// A file whose last four bytes are the checksum of all before.
pub(crate) fn tail(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(4) {
        seal(bytes, 0, at);
    }
}

/// A log of dirty chunks: its header and its records.
pub(crate) fn log(bytes: &mut [u8]) {
    const HEADER: usize = 116;
    seal(bytes, 0, HEADER - 4);
    let mut at = HEADER;
    while let Some(record) = bytes.get_mut(at..).filter(|rest| rest.len() >= 16) {
        let len = if record[8..12] == [0; 4] { 16 + 512 } else { 16 };
        let Some(record) = record.get_mut(..len) else { return };
        record[12..16].fill(0);
        let checksum = crc32c::crc32c(record);
        record[12..16].copy_from_slice(&checksum.to_le_bytes());
        at += len;
    }
}

/// A last log: the log, and the record of 192 bytes before it, which holds the log's checksum too.
pub(crate) fn last_log(bytes: &mut [u8]) {
    const RECORD: usize = 192;
    let Some((record, log)) = bytes.split_at_mut_checked(RECORD) else { return };
    self::log(log);
    record[176..184].copy_from_slice(&(log.len() as u64).to_le_bytes());
    record[184..188].copy_from_slice(&crc32c::crc32c(log).to_le_bytes());
    seal(record, 0, RECORD - 4);
}
