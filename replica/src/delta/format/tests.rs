use proptest::prelude::*;

use super::*;

const FILE_LEN: u64 = 1000 + 2 * 32 + TRAILER_LEN as u64;

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
        version: Version::Bounds,
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
fn the_trailer_of_version_2_does_not_move() {
    let version = Version::Exact { extents: 5, end_len: 0x0102, has_point: true };
    let trailer = Trailer { version, ..trailer() };
    let bytes = trailer.encode();
    assert_eq!(bytes[..16], *b"PNDELTA\0\x02\0\x03\x01\x02\x01\0\0");
    assert_eq!(
        bytes[96..124],
        [&[5, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 15], &[1, 2, 3, 4]].concat()
    );
    let len = 1000 + (2 * 8 + 5 * 16) + 64 + 128;
    assert_eq!(Trailer::decode(&bytes, len), Some(trailer));
    assert_eq!(Trailer::decode(&bytes, len - 64), None);
    for extents in [4, 6, u64::MAX, EXTENTS_PER_EPOCH_MAX + 1] {
        let version = Version::Exact { extents, end_len: 0x0102, has_point: true };
        assert_eq!(Trailer::decode(&Trailer { version, ..trailer }.encode(), len), None);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(
        bytes in prop::collection::vec(any::<u8>(), TRAILER_LEN),
        file_len: u64,
        repaired: bool,
        version in 1u8..4,
    ) {
        let mut bytes: [u8; TRAILER_LEN] = bytes.try_into().unwrap();
        if repaired {
            bytes[..10].copy_from_slice(&trailer().encode()[..10]);
            bytes[8] = version;
            let checksum = crc32c::crc32c(&bytes[..TRAILER_LEN - 4]);
            bytes[TRAILER_LEN - 4..].copy_from_slice(&checksum.to_le_bytes());
        }
        let _ = Trailer::decode(&bytes, file_len);
    }
}
