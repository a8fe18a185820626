use proptest::prelude::*;

use super::*;

const FILE_LEN: u64 = 1000 + 2 * ENTRY_LEN as u64 + TRAILER_LEN as u64;

fn trailer() -> Trailer {
    Trailer {
        name: DeltaName {
            disk: DiskId([1; 16]),
            generation: Generation([2; 16]),
            link: EpochLink { kind: EpochKind::Delta, epoch: Epoch(8), follows: Epoch(6) },
        },
        index_offset: 1000,
        index_crc: 0x0403_0201,
        summary: EpochSummary { frames: 2, data_bytes: 4096, zero_bytes: 512, completes: true },
    }
}

#[test]
fn the_trailer_of_version_1_does_not_move() {
    let bytes = trailer().encode();
    assert_eq!(bytes[..16], *b"PNDELTA\0\x01\0\x03\x01\0\0\0\0");
    assert_eq!((bytes[16], bytes[32]), (1, 2));
    assert_eq!((bytes[48], bytes[56], bytes[64..66].to_vec()), (8, 6, vec![0xe8, 3]));
    assert_eq!((bytes[72], bytes[81], bytes[89]), (2, 16, 2));
    assert_eq!(bytes[96..124], [&[0; 24][..], &[1, 2, 3, 4]].concat());
    assert_eq!(Trailer::decode(&bytes, FILE_LEN), Some(trailer()));
}

#[test]
fn a_trailer_fits_its_file_or_is_none() {
    let bytes = trailer().encode();
    for file_len in [0, FILE_LEN - 1, FILE_LEN + 1, u64::MAX] {
        assert_eq!(Trailer::decode(&bytes, file_len), None);
    }
    for (index_offset, frames) in [(u64::MAX, 0), (0, u64::MAX), (0, FRAMES_PER_EPOCH_MAX + 1)] {
        let summary = EpochSummary { frames, ..trailer().summary };
        let bytes = Trailer { index_offset, summary, ..trailer() }.encode();
        for file_len in [TRAILER_LEN as u64 - 1, FILE_LEN] {
            assert_eq!(Trailer::decode(&bytes, file_len), None);
        }
    }
}

#[test]
fn an_index_is_a_gapless_run_of_frames() {
    let entry = |offset, len, first, end| IndexEntry { offset, len, first, end }.encode();
    let decode = |entries: &[[u8; ENTRY_LEN]]| decode_index(&entries.concat(), 1000);
    let good = [entry(0, 300, 5, 9), entry(300, 400, 0, 1)];
    assert_eq!(decode(&good).unwrap().len(), 2);
    assert_eq!(decode(&[]).unwrap().len(), 0);
    for bad in [
        [entry(0, 300, 5, 9), entry(301, 400, 0, 1)],
        [entry(0, 300, 5, 9), entry(300, 700, 0, 1)],
        [entry(0, 300, 5, 5), entry(300, 400, 0, 1)],
        [entry(0, 0, 5, 9), entry(0, 400, 0, 1)],
        [entry(0, u32::MAX, 5, 9), entry(u64::from(u32::MAX), 400, 0, 1)],
    ] {
        assert_eq!(decode(&bad), None);
    }
    assert_eq!(decode_index(&good.concat()[1..], 1000), None);
}

proptest! {
    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), TRAILER_LEN),
        index in prop::collection::vec(any::<u8>(), 0..200),
        file_len: u64,
        repaired: bool,
    ) {
        let mut bytes: [u8; TRAILER_LEN] = bytes.try_into().unwrap();
        if repaired {
            bytes[..10].copy_from_slice(&trailer().encode()[..10]);
            let checksum = crc32c::crc32c(&bytes[..TRAILER_LEN - 4]);
            bytes[TRAILER_LEN - 4..].copy_from_slice(&checksum.to_le_bytes());
        }
        let _ = Trailer::decode(&bytes, file_len);
        let _ = decode_index(&index, file_len);
    }
}
