//! A recovery point's record as bytes: in the end of an epoch that makes one, and wherever a target
//! keeps it. `docs/wire.md` has the table.

use std::time::Duration;

use blocks::{Consistency, CutMethod, CutTime, MonotonicNs, PointId, PointRecord};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The length of a point's record in bytes.
pub const POINT_RECORD_LEN: usize = size_of::<RawPoint>();

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPoint {
    id: [u8; 16],
    cut_unix_ns: U64,
    cut_monotonic_ns: U64,
    window_ns: U64,
    freeze_ns: U64,
    attempts: U32,
    disks: U16,
    consistency: u8,
    method: u8,
    reserved: U64,
}

const _: () = assert!(POINT_RECORD_LEN == 64);

/// A record as bytes. Durations beyond 2^64 nanoseconds are cut off there.
pub fn encode_point(point: &PointRecord) -> [u8; POINT_RECORD_LEN] {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into();
    let raw = RawPoint {
        id: point.id.0,
        cut_unix_ns: point.cut.unix_ns.into(),
        cut_monotonic_ns: point.cut.monotonic.0.into(),
        window_ns: nanoseconds(point.window),
        freeze_ns: nanoseconds(point.freeze),
        attempts: point.attempts.into(),
        disks: point.disks.into(),
        consistency: point.consistency as u8,
        method: point.method as u8,
        reserved: U64::ZERO,
    };
    zerocopy::transmute!(raw)
}

/// A record from its bytes; nothing if a field holds what it can't.
pub fn decode_point(bytes: &[u8; POINT_RECORD_LEN]) -> Option<PointRecord> {
    let raw: &RawPoint = zerocopy::transmute_ref!(bytes);
    if raw.disks.get() == 0 || raw.attempts.get() == 0 || raw.reserved.get() != 0 {
        return None;
    }
    Some(PointRecord {
        id: PointId(raw.id),
        cut: CutTime {
            unix_ns: raw.cut_unix_ns.get(),
            monotonic: MonotonicNs(raw.cut_monotonic_ns.get()),
        },
        consistency: Consistency::from_u8(raw.consistency)?,
        method: CutMethod::from_u8(raw.method)?,
        disks: raw.disks.get(),
        attempts: raw.attempts.get(),
        window: Duration::from_nanos(raw.window_ns.get()),
        freeze: Duration::from_nanos(raw.freeze_ns.get()),
    })
}
