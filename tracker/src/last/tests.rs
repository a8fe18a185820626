use blocks::{Bitmap, ByteLen, Coverage, Epoch};

use super::*;
use crate::hrl::{LogHeader, LogState};

const BOOT: [u8; 16] = [9; 16];
const CLOSING: Closing = [7; 16];

fn geometry() -> Geometry {
    let chunk = ChunkSize::from_bytes(ByteLen(4096).0).unwrap();
    Geometry::new(80_000, 512, chunk).unwrap()
}

fn disk() -> (DiskId, Generation, Geometry) {
    (DiskId([1; 16]), Generation([2; 16]), geometry())
}

fn record() -> LastRecord {
    let (disk, generation, geometry) = disk();
    LastRecord {
        disk,
        generation,
        geometry,
        closing: CLOSING,
        closed_in: [8; 16],
        hardware: [4; 32],
        fingerprint: [5; 32],
        log_len: 0,
        log_crc: 0,
        state: LastState::Closed,
    }
}

fn log() -> Log {
    let (disk, generation, geometry) = disk();
    let mut dirty = Bitmap::new(geometry.chunks());
    dirty.insert_word(0, 1 << 17);
    let header = LogHeader {
        disk,
        generation,
        geometry,
        boot_id: [8; 16],
        disk_sequence: 3,
        acked: Epoch(12),
        coverage: Coverage::Complete,
        state: LogState::Closed,
    };
    Log { header, dirty }
}

/// A file as it lies there, with what an earlier and longer log has left behind it.
fn file(record: LastRecord) -> Vec<u8> {
    let log = hrl::encode(&log());
    let mut file = vec![0xaa; file_len(geometry())];
    file[..RECORD_LEN].copy_from_slice(&record.of_log(&log).encode());
    file[RECORD_LEN..][..log.len()].copy_from_slice(&log);
    file
}

fn believed_of(file: &[u8]) -> Option<Log> {
    believed(file, &StorePath::root(), Boot { boot: BOOT, taken: CLOSING }, disk())
}

#[test]
fn a_record_is_what_was_written() {
    let states = [LastState::Open, LastState::Closed, LastState::Taken { boot: BOOT }];
    for state in states {
        let record = record().in_state(state).of_log(b"log");
        assert_eq!(LastRecord::decode(&record.encode()), Some(record));
    }
    let block = record().encode();
    assert_eq!(block[..12], *b"PINLAST\n\x01\0\0\0");
    assert_eq!(LastRecord::decode(&block[..100]), None);
    for byte in 0..size_of::<Raw>() {
        let mut damaged = block;
        damaged[byte] ^= 0x10;
        assert_eq!(LastRecord::decode(&damaged), None, "byte {byte}");
    }
}

#[test]
fn a_log_is_believed_if_it_was_taken_in_this_boot_under_the_number_that_the_kernel_has() {
    let taken = record().in_state(LastState::Taken { boot: BOOT });
    assert_eq!(believed_of(&file(taken)), Some(log()));
}

#[test]
fn any_other_log_is_not() {
    let taken = |boot| LastState::Taken { boot };
    let mut others = vec![
        ("closed, and never taken", record()),
        ("open", record().in_state(LastState::Open)),
        ("taken by an earlier boot", record().in_state(taken([3; 16]))),
    ];
    let of = |change: fn(&mut LastRecord)| {
        let mut changed = record().in_state(taken(BOOT));
        change(&mut changed);
        changed
    };
    others.extend([
        ("another closing", of(|record| record.closing = [6; 16])),
        ("closed in the boot that took it", of(|record| record.closed_in = BOOT)),
        ("another disk", of(|record| record.disk = DiskId([6; 16]))),
        ("another line of history", of(|record| record.generation = Generation([6; 16]))),
    ]);
    for (what, record) in others {
        assert_eq!(believed_of(&file(record)), None, "{what}");
    }
}

#[test]
fn a_damaged_log_is_not() {
    let taken = record().in_state(LastState::Taken { boot: BOOT });
    let file = file(taken);
    for byte in RECORD_LEN..RECORD_LEN + hrl::encode(&log()).len() {
        let mut damaged = file.clone();
        damaged[byte] ^= 1;
        assert_eq!(believed_of(&damaged), None, "byte {byte}");
    }
    for len in [0, 100, RECORD_LEN, RECORD_LEN + 100] {
        assert_eq!(believed_of(&file[..len]), None, "{len} bytes");
    }
    let mut long = taken.of_log(b"");
    long.log_len = u64::MAX;
    let mut damaged = file;
    damaged[..RECORD_LEN].copy_from_slice(&long.encode());
    assert_eq!(believed_of(&damaged), None);
}
