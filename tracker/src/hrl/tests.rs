use blocks::{ChunkIndex, ChunkRange};
use proptest::prelude::*;
use storage::FaultyStorage;

use super::*;

fn log(chunks: u64, ranges: &[(u64, u64)]) -> Log {
    let geometry = Geometry::new(chunks * 8, 512, ChunkSize::DEFAULT).unwrap();
    let mut dirty = Bitmap::new(chunks);
    for (start, len) in ranges {
        dirty.insert_range(ChunkRange { start: ChunkIndex(*start), end: ChunkIndex(start + len) });
    }
    let header = LogHeader {
        disk: DiskId(*b"the disk's name!"),
        generation: Generation([7; 16]),
        geometry,
        boot_id: [3; 16],
        disk_sequence: 11,
        acked: Epoch(41),
        coverage: Coverage::Gap(GapReason::CrossCheck { missing_sectors: 108 }),
        state: LogState::Closed,
    };
    Log { header, dirty }
}

fn path() -> StorePath {
    StorePath::root().join("disk.hrl")
}

fn round_trip(log: &Log) -> Log {
    let storage = FaultyStorage::new();
    write(&storage, &path(), log).unwrap();
    read(&storage, &path(), log.header.geometry).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_log_reads_as_it_was_written(
        chunks in 1u64..40_000,
        ranges in prop::collection::vec((0u64..40_000, 0u64..9000), 0..8),
    ) {
        let log = log(chunks, &ranges);
        prop_assert_eq!(round_trip(&log), log);
    }

    #[test]
    fn garbage_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decode(&bytes, &path(), u64::MAX).is_err());
    }
}

#[test]
fn a_whole_disk_is_a_small_log() {
    let log = log(1 << 28, &[(0, 1 << 28)]); // 1 TiB
    assert!(encode(&log).len() < 1024);
    assert_eq!(round_trip(&log), log);
}

#[test]
fn every_damaged_byte_and_every_cut_is_noticed() {
    let bytes = encode(&log(9000, &[(0, 1), (4096, 4096)]));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(decode(&damaged, &path(), u64::MAX).is_err(), "byte {at}");
        assert!(decode(&bytes[..at], &path(), u64::MAX).is_err(), "cut at {at}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(decode(&longer, &path(), u64::MAX).is_err());
}

#[test]
fn a_log_of_a_larger_disk_is_refused_before_room_is_made_for_it() {
    // 2^42 chunks: half a TiB of bitmap, claimed by 116 bytes under a checksum that holds.
    let mut large = log(9000, &[]);
    large.header.geometry = Geometry::new(1 << 45, 512, ChunkSize::DEFAULT).unwrap();
    let bytes = raw_header(&large.header, 0).as_bytes().to_vec();
    let storage = FaultyStorage::new();
    write_whole(&storage, &path(), &bytes).unwrap();
    let error = read(&storage, &path(), log(9000, &[]).header.geometry).unwrap_err();
    assert!(matches!(error, ReadLogError::Damaged { what: "geometry", .. }), "{error}");
}

#[test]
fn version_1_stays_readable() {
    let bytes = include_bytes!("version-1.hrl");
    let expected = log(9000, &[(0, 1), (4096, 4096)]);
    assert_eq!(decode(bytes, &path(), u64::MAX).unwrap(), expected);
    assert_eq!(encode(&expected), bytes, "a change of the format is a new version");
}
