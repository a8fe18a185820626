//! What is a frame and what is not, byte by byte and bit by bit.

use std::time::Duration;

use blocks::{
    Consistency, CutMethod, CutTime, DiskId, Epoch, EpochKind, Generation, MonotonicNs, PointId,
    PointRecord, Sector,
};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::key::DataKey;
use crate::open::{OpenError, Opener};
use crate::seal::{EpochLink, FrameSpec, Sealer};

const DISK: DiskId = DiskId([0x11; 16]);
const GENERATION: Generation = Generation([0x22; 16]);
const LINK: EpochLink = EpochLink { kind: EpochKind::Delta, epoch: Epoch(7), follows: Epoch(5) };

fn key() -> DataKey {
    DataKey::from_bytes([0x33; 32])
}

fn sealer() -> Sealer {
    Sealer::new(&key(), DISK, GENERATION).unwrap()
}

fn extent(start: u64, sectors: u32, content: Content) -> FrameExtent {
    FrameExtent { start: Sector(start), sectors, content }
}

/// A frame of one sector of data and one zero extent.
fn small() -> Vec<u8> {
    let extents = [extent(8, 1, Content::Data), extent(16, 64, Content::Zeroes)];
    let spec =
        FrameSpec { link: LINK, sequence: Sequence(3), codec: Codec::Raw, extents: &extents };
    sealer().seal(&spec, &[0x5a; 512]).unwrap().to_vec()
}

fn end() -> Vec<u8> {
    let summary =
        EpochSummary { frames: 1, data_bytes: 512, zero_bytes: 64 * 512, completes: true };
    sealer().seal_end(LINK, Sequence(4), &summary).unwrap().to_vec()
}

fn parse(bytes: &[u8]) -> Result<CheckedFrame, FrameError> {
    CheckedFrame::parse(Bytes::copy_from_slice(bytes))
}

/// All frames in `bytes`, given to a decoder in pieces of `piece` bytes.
fn decode(bytes: &[u8], piece: usize) -> Result<Vec<CheckedFrame>, FrameError> {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    decoder.finish()?;
    Ok(frames)
}

/// Makes all checksums of a frame right again, if its lengths lie within it.
fn mend(bytes: &mut [u8]) {
    let extents = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let payload = u32::from_le_bytes([bytes[16], bytes[17], bytes[18], bytes[19]]) as usize;
    let table_end = HEADER_LEN + extents * EXTENT_LEN;
    let payload_start = table_end + CHECKSUM_LEN;
    for (start, end) in
        [(0, HEADER_LEN - 4), (HEADER_LEN, table_end), (payload_start, payload_start + payload)]
    {
        if end + CHECKSUM_LEN <= bytes.len() {
            let checksum = crc32c::crc32c(&bytes[start..end]).to_le_bytes();
            bytes[end..end + CHECKSUM_LEN].copy_from_slice(&checksum);
        }
    }
}

#[test]
fn frames_come_out_as_they_went_in_whatever_the_pieces() {
    let (small, end) = (small(), end());
    let stream = [small.as_slice(), &end].concat();
    for piece in [1, 7, HEADER_LEN, small.len(), stream.len()] {
        let frames = decode(&stream, piece).unwrap();
        let bytes: Vec<_> = frames.iter().map(|frame| frame.bytes().to_vec()).collect();
        assert_eq!(bytes, [small.clone(), end.clone()], "pieces of {piece}");
    }
}

#[test]
fn a_reader_that_asks_what_is_wanted_copies_nothing_twice() {
    let (small, end) = (small(), end());
    let stream = [small.as_slice(), &end].concat();
    let (mut decoder, mut rest, mut frames) = (FrameDecoder::new(), stream.as_slice(), Vec::new());
    while !rest.is_empty() {
        let (read, left) = rest.split_at(decoder.wanted());
        decoder.buffer().extend_from_slice(read);
        rest = left;
        frames.extend(decoder.next_frame().unwrap());
    }
    assert_eq!(frames.len(), 2);
    assert_eq!(decoder.wanted(), HEADER_LEN);
    decoder.finish().unwrap();
}

#[test]
fn truncation_at_every_byte_is_noticed() {
    for whole in [small(), end()] {
        for len in 1..whole.len() {
            let cut = &whole[..len];
            let error = decode(cut, 64).unwrap_err();
            assert!(matches!(error, FrameError::Truncated { .. }), "{len}: {error}");
            assert!(matches!(parse(cut), Err(FrameError::Truncated { .. })), "{len}");
        }
        let mut longer = whole.clone();
        longer.push(0);
        assert!(matches!(parse(&longer), Err(FrameError::Lengths(_))));
    }
}

#[test]
fn every_flipped_bit_is_found_by_a_checksum() {
    for whole in [small(), end()] {
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bytes).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn every_flipped_bit_behind_good_checksums_is_found_by_shape_or_key() {
    let opener = Opener::new(&key());
    for whole in [small(), end()] {
        let mut opened = 0;
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            mend(&mut bytes);
            if bytes == whole {
                continue; // A flipped bit of a checksum, made right again.
            }
            if let Ok(frame) = parse(&bytes) {
                opened += 1;
                assert_eq!(opener.open(&frame), Err(OpenError::NotAuthentic), "bit {bit}");
            }
        }
        assert!(opened > 900, "the key was tried on {opened} frames");
    }
}

#[test]
fn additional_data_binds_every_field_that_could_be_changed() {
    let whole = small();
    let opener = Opener::new(&key());
    let fields = [
        ("kind", 6, 1),
        ("disk", 20, 16),
        ("generation", 36, 16),
        ("salt", 52, 16),
        ("epoch", 68, 8),
        ("follows", 76, 8),
        ("sequence", 84, 8),
        ("counter", 92, 8),
        ("first extent", 104, 8),
    ];
    for (name, at, len) in fields {
        let mut bytes = whole.clone();
        let field = &mut bytes[at..at + len];
        field[0] ^= 1;
        mend(&mut bytes);
        // Some changes contradict other fields and are refused earlier; these don't.
        let frame = parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(opener.open(&frame), Err(OpenError::NotAuthentic), "{name}");
    }
}

#[test]
fn lengths_beyond_their_limits_are_refused_before_room_is_made() {
    let oversized = [
        ("extent count", 10, (EXTENTS_MAX + 1).to_le_bytes().to_vec()),
        ("extent count", 10, u16::MAX.to_le_bytes().to_vec()),
        ("data length", 12, (DATA_LEN_MAX + 1).to_le_bytes().to_vec()),
        ("data length", 12, u32::MAX.to_le_bytes().to_vec()),
        ("payload length", 16, (DATA_LEN_MAX + 17).to_le_bytes().to_vec()),
        ("payload length", 16, u32::MAX.to_le_bytes().to_vec()),
    ];
    for (name, at, value) in oversized {
        let mut bytes = small();
        bytes[at..at + value.len()].copy_from_slice(&value);
        let checksum = crc32c::crc32c(&bytes[..100]).to_le_bytes();
        bytes[100..104].copy_from_slice(&checksum);
        let mut decoder = FrameDecoder::new();
        decoder.push(&bytes[..HEADER_LEN]);
        let room = decoder.buffer().capacity();
        let error = decoder.next_frame().unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { field, .. } if field == name), "{error}");
        assert_eq!(decoder.buffer().capacity(), room);
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let with = |at: usize, value: &[u8]| {
        let mut bytes = small();
        bytes[at..at + value.len()].copy_from_slice(value);
        mend(&mut bytes);
        parse(&bytes)
    };
    assert_eq!(with(0, b"XNFR"), Err(FrameError::Magic));
    assert_eq!(with(4, &[2, 0]), Err(FrameError::Version(2)));
    let field = |field, value| Err(FrameError::Field { field, value });
    assert_eq!(with(6, &[0]), field("kind", 0));
    assert_eq!(with(6, &[4]), field("kind", 4));
    assert_eq!(with(7, &[2]), field("flags", 2));
    assert_eq!(with(8, &[9]), field("codec", 9));
    assert_eq!(with(9, &[1]), field("reserved byte", 1));
    assert_eq!(with(76, &7u64.to_le_bytes()), field("epoch", 7));
    assert_eq!(with(68, &u64::MAX.to_le_bytes()), field("epoch", u64::MAX));
    for (at, value) in [
        (7, vec![1]),                         // an end with content
        (10, vec![0, 0]),                     // content without an extent
        (12, 1024u32.to_le_bytes().to_vec()), // raw data longer than the payload
        (16, 15u32.to_le_bytes().to_vec()),   // a payload shorter than its tag
    ] {
        let refused = with(at, &value);
        assert!(matches!(refused, Err(FrameError::Lengths(_))), "{at}: {refused:?}");
    }
}

#[test]
fn tables_out_of_order_are_refused() {
    let entry = |at: usize, start: u64, sectors: u32, content: u32| {
        let mut bytes = small();
        let offset = HEADER_LEN + at * EXTENT_LEN;
        bytes[offset..offset + 8].copy_from_slice(&start.to_le_bytes());
        bytes[offset + 8..offset + 12].copy_from_slice(&sectors.to_le_bytes());
        bytes[offset + 12..offset + 16].copy_from_slice(&content.to_le_bytes());
        mend(&mut bytes);
        parse(&bytes).map(|frame| frame.extents().len())
    };
    let refused = |index| Err(FrameError::Extent { index });
    assert_eq!(entry(0, 15, 1, 0), Ok(2));
    assert_eq!(entry(0, 16, 1, 0), refused(1), "overlapping");
    assert_eq!(entry(0, 15, 0, 0), refused(0), "empty");
    assert_eq!(entry(0, u64::MAX, 1, 0), refused(0), "past any disk");
    assert_eq!(entry(1, 1 << 45, 1, 1), refused(1), "past any disk");
    assert_eq!(entry(1, (1 << 45) - 1, 1, 1), Ok(2));
    assert_eq!(entry(1, 16, 1, 2), refused(1), "unknown content");
    assert!(matches!(entry(0, 0, 2, 0), Err(FrameError::Lengths(_))), "more data than there is");
}

#[test]
fn a_chain_counts_and_its_summary_must_agree() {
    let (first, last) = (parse(&small()).unwrap(), end());
    let mut chain = EpochChain::begin(&first);
    let truth = EpochSummary { frames: 1, data_bytes: 512, zero_bytes: 64 * 512, completes: true };
    assert_eq!(chain.verify(&truth), Err(ChainError::NoEnd));
    // Sealed by another sealer: another session's frame.
    assert_eq!(chain.push(&parse(&last).unwrap()), Err(ChainError::Foreign));

    let sealer = sealer();
    let extents = [extent(8, 1, Content::Data), extent(16, 64, Content::Zeroes)];
    let spec =
        FrameSpec { link: LINK, sequence: Sequence(0), codec: Codec::Raw, extents: &extents };
    let first = CheckedFrame::parse(sealer.seal(&spec, &[0; 512]).unwrap()).unwrap();
    let last = CheckedFrame::parse(sealer.seal_end(LINK, Sequence(1), &truth).unwrap()).unwrap();
    let mut chain = EpochChain::begin(&first);
    assert_eq!(
        chain.push(&first),
        Err(ChainError::Sequence { last: Sequence(0), found: Sequence(0) })
    );
    chain.push(&last).unwrap();
    assert!(chain.has_ended());
    assert_eq!(chain.push(&last), Err(ChainError::AfterEnd));
    assert_eq!(chain.verify(&truth), Ok(()));
    assert_eq!(chain.verify(&EpochSummary { completes: false, ..truth }), Ok(()));
    for lie in [
        EpochSummary { frames: 2, ..truth },
        EpochSummary { data_bytes: 0, ..truth },
        EpochSummary { zero_bytes: 0, ..truth },
    ] {
        assert!(matches!(chain.verify(&lie), Err(ChainError::Summary { .. })));
    }
}

#[test]
fn an_epoch_may_be_nothing_but_its_end() {
    let chain = EpochChain::begin(&parse(&end()).unwrap());
    assert!(chain.has_ended());
    chain.verify(&EpochSummary::default()).unwrap();
}

/// Extents in order, with gaps, and codecs.
fn table() -> impl Strategy<Value = Vec<FrameExtent>> {
    let entry = (0u64..50, 1u32..9, any::<bool>());
    prop::collection::vec(entry, 1..40).prop_map(|entries| {
        let mut at = 0;
        let mut place = |(gap, sectors, data): (u64, u32, bool)| {
            let content = if data { Content::Data } else { Content::Zeroes };
            let placed = extent(at + gap, sectors, content);
            at = placed.extent().end().0;
            placed
        };
        entries.into_iter().map(&mut place).collect()
    })
}

proptest! {
    #[test]
    fn any_frame_comes_back(
        extents in table(), seed: u8, sequence: u64,
        epoch in 1..=Epoch::MAX.0, back in 1u64.., piece in 1usize..5000,
    ) {
        let len: u64 = extents.iter().map(FrameExtent::data_len).sum();
        let byte = |i: u64| i.to_le_bytes()[0].wrapping_mul(seed);
        let data: Vec<u8> = (0..len).map(byte).collect();
        let follows = Epoch(epoch.saturating_sub(back));
        let link = EpochLink { kind: EpochKind::Compare, epoch: Epoch(epoch), follows };
        let sequence = Sequence(sequence);
        let spec = FrameSpec { link, sequence, codec: Codec::Raw, extents: &extents };
        let sealed = sealer().seal(&spec, &data).unwrap();
        let frames = decode(&sealed, piece).unwrap();
        prop_assert_eq!(frames.len(), 1);
        let header = *frames[0].header();
        prop_assert_eq!((header.disk, header.generation), (DISK, GENERATION));
        prop_assert_eq!((header.epoch, header.follows), (link.epoch, follows));
        prop_assert_eq!((header.sequence, header.kind), (sequence, EpochKind::Compare));
        prop_assert_eq!(frames[0].extents(), extents.as_slice());
        prop_assert_eq!(Opener::new(&key()).open(&frames[0]).unwrap().payload, data);
    }

    #[test]
    fn garbage_is_never_a_frame_and_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..4000), piece in 1usize..500,
    ) {
        if !bytes.is_empty() {
            prop_assert!(decode(&bytes, piece).is_err());
        }
        prop_assert!(parse(&bytes).is_err());
    }

    #[test]
    fn a_garbled_header_with_good_checksums_never_panics_nor_opens(
        changes in prop::collection::vec((0usize..100, any::<u8>()), 1..8),
        rest in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let whole = small();
        let mut bytes = whole.clone();
        changes.iter().for_each(|(at, value)| bytes[*at] = *value);
        bytes.extend_from_slice(&rest);
        mend(&mut bytes);
        prop_assume!(bytes[..100] != whole[..100]);
        for frame in decode(&bytes, 4096).into_iter().flatten().take(1) {
            prop_assert!(Opener::new(&key()).open(&frame).is_err());
        }
        for len in [HEADER_LEN, whole.len(), bytes.len()] {
            let _ = parse(&bytes[..len]);
        }
    }

    #[test]
    fn a_garbled_table_with_good_checksums_never_panics(
        table in prop::collection::vec(any::<u8>(), 32),
    ) {
        let mut bytes = small();
        bytes[HEADER_LEN..HEADER_LEN + 32].copy_from_slice(&table);
        mend(&mut bytes);
        if let Ok(frame) = parse(&bytes) {
            prop_assert!(Opener::new(&key()).open(&frame).is_err());
        }
    }

    #[test]
    fn a_summary_comes_back(frames: u64, data_bytes: u64, zero_bytes: u64, completes: bool) {
        let summary = EpochSummary { frames, data_bytes, zero_bytes, completes };
        prop_assert_eq!(EpochSummary::decode(&summary.encode()), Ok(summary));
    }
}

#[test]
fn what_is_no_summary_is_refused() {
    let mut bytes = EpochSummary::default().encode();
    bytes[24] = 2;
    assert_eq!(EpochSummary::decode(&bytes), Err(SummaryError));
    assert_eq!(EpochSummary::decode(&bytes[..31]), Err(SummaryError));
}

/// A point of which every field differs from its default.
fn point() -> PointRecord {
    PointRecord {
        id: PointId([7; 16]),
        cut: CutTime { unix_ns: 1_800_000_000_000_000_001, monotonic: MonotonicNs(77) },
        consistency: Consistency::Application,
        method: CutMethod::FrozenThroughout,
        disks: 3,
        attempts: 2,
        window: Duration::from_micros(150),
        freeze: Duration::from_millis(4),
    }
}

#[test]
fn an_end_with_a_point_comes_back_and_nothing_else_does() {
    let summary = EpochSummary { frames: 1, data_bytes: 2, zero_bytes: 3, completes: true };
    let end = EpochEnd { summary, point: Some(point()) };
    let bytes = end.encode();
    assert_eq!(bytes.len(), EpochEnd::LEN_MAX);
    assert_eq!(EpochEnd::decode(&bytes), Ok(end));
    for len in (0..bytes.len()).filter(|len| *len != EpochSummary::LEN) {
        assert_eq!(EpochEnd::decode(&bytes[..len]), Err(SummaryError), "{len} bytes");
    }
    // Disks, attempts, consistency, method, reserved: none may hold what it can't.
    for (at, value) in [(80..84, 0), (84..86, 0), (86..87, 9), (87..88, 0), (95..96, 1)] {
        let mut bad = bytes.clone();
        bad[at.clone()].fill(value);
        assert_eq!(EpochEnd::decode(&bad), Err(SummaryError), "bytes {at:?}");
    }
}

#[test]
fn the_record_of_a_point_has_its_golden_bytes() {
    let mut golden = vec![7; 16];
    golden.extend(1_800_000_000_000_000_001_u64.to_le_bytes());
    golden.extend(77_u64.to_le_bytes());
    golden.extend(150_000_u64.to_le_bytes());
    golden.extend(4_000_000_u64.to_le_bytes());
    golden.extend([2, 0, 0, 0, 3, 0, 3, 3]);
    golden.extend([0; 8]);
    assert_eq!(encode_point(&point()).to_vec(), golden);
}
