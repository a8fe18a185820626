//! Sealing: golden bytes, limits, and the nonces.

use std::collections::HashSet;
use std::sync::Mutex;

use blocks::Sector;

use super::*;
use crate::frame::{CheckedFrame, Content, DATA_LEN_MAX, EpochEnd, EpochSummary, FRAME_LEN_MAX};
use crate::open::Opener;

const DISK: DiskId = DiskId([0x11; 16]);
const GENERATION: Generation = Generation([0x22; 16]);
const LINK: EpochLink = EpochLink { kind: EpochKind::Delta, epoch: Epoch(7), follows: Epoch(5) };
const TWO_EXTENTS: [FrameExtent; 2] = [
    FrameExtent { start: Sector(8), sectors: 1, content: Content::Data },
    FrameExtent { start: Sector(16), sectors: 64, content: Content::Zeroes },
];

/// A content frame of version 1: `TWO_EXTENTS`, codec raw, 512 bytes of 0x5a.
const GOLDEN_CONTENT: &str = include_str!("golden/content.hex");

/// An end frame of version 1.
const GOLDEN_END: &str = include_str!("golden/end.hex");

const SUMMARY: EpochSummary =
    EpochSummary { frames: 1, data_bytes: 512, zero_bytes: 32768, completes: true };

fn key() -> DataKey {
    DataKey::from_bytes([0x33; 32])
}

fn sealer() -> Sealer {
    Sealer::new(&key(), DISK, GENERATION).unwrap()
}

/// A sealer whose salt is not random. Only tests may have one.
fn fixed_sealer(next: u64) -> Sealer {
    let salt = SessionSalt([0x44; 16]);
    let key = SessionKey::derive(&key(), &salt, DISK, GENERATION);
    Sealer { key, disk: DISK, generation: GENERATION, salt, next: AtomicU64::new(next) }
}

fn spec(extents: &[FrameExtent]) -> FrameSpec<'_> {
    FrameSpec { link: LINK, sequence: Sequence(3), codec: Codec::Raw, extents }
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(32).map(|chunk| line(chunk) + "\n").collect()
}

#[test]
fn golden_bytes_of_version_1() {
    let sealer = fixed_sealer(9);
    let content = sealer.seal(&spec(&TWO_EXTENTS), &[0x5a; 512]).unwrap();
    assert_eq!(hex(&content), GOLDEN_CONTENT);
    let end = sealer.seal_end(LINK, Sequence(4), &SUMMARY).unwrap();
    assert_eq!(hex(&end), GOLDEN_END);
}

#[test]
fn what_is_sealed_opens() {
    let sealed = sealer().seal(&spec(&TWO_EXTENTS), &[0x5a; 512]).unwrap();
    let frame = CheckedFrame::parse(sealed.clone()).unwrap();
    assert_eq!(frame.bytes(), &sealed);
    assert_eq!(frame.extents(), TWO_EXTENTS);
    assert_eq!(frame.zero_bytes(), 32768);
    let opened = Opener::new(&key()).open(&frame).unwrap();
    assert_eq!(opened.payload, [0x5a; 512]);
    assert_eq!((opened.codec, opened.extents.as_slice()), (Codec::Raw, TWO_EXTENTS.as_slice()));
}

#[test]
fn an_end_frame_opens_to_its_summary() {
    let end = sealer().seal_end(LINK, Sequence(4), &SUMMARY).unwrap();
    let end = CheckedFrame::parse(end).unwrap();
    assert!(end.header().is_end() && end.extents().is_empty());
    assert_eq!(Opener::new(&key()).open_end(&end), Ok(EpochEnd::from(&SUMMARY)));
}

#[test]
fn a_buffer_makes_the_same_frame_without_a_copy() {
    let mut buffer = FrameBuffer::new(TWO_EXTENTS.len(), 512);
    buffer.extend(&[1; 77]);
    buffer.clear();
    assert_eq!(buffer.payload_len(), 0);
    let mut cursor = buffer.cursor();
    assert_eq!(cursor.position(), 104 + 32 + 4);
    std::io::Write::write_all(&mut cursor, &[0x5a; 512]).unwrap();
    assert_eq!(buffer.payload_len(), 512);
    let at = buffer.bytes.as_ptr();
    let frame = fixed_sealer(9).seal_buffer(&spec(&TWO_EXTENTS), buffer).unwrap();
    assert_eq!(frame.as_ptr(), at, "the buffer became the frame");
    assert_eq!(hex(&frame), GOLDEN_CONTENT);
}

#[test]
fn the_largest_frame_is_within_the_limit_and_no_larger_one_is_made() {
    let extents: Vec<_> = (0..u64::from(EXTENTS_MAX))
        .map(|i| FrameExtent { start: Sector(i * 2), sectors: 2, content: Content::Data })
        .collect();
    let data = vec![1; DATA_LEN_MAX as usize];
    let frame = sealer().seal(&spec(&extents), &data).unwrap();
    assert_eq!(frame.len(), FRAME_LEN_MAX);
    CheckedFrame::parse(frame).unwrap();

    let one_more = [extents[0], FrameExtent { start: Sector(2), sectors: 2047, ..extents[0] }];
    let refused = sealer().seal(&spec(&one_more), &vec![1; data.len() + 512]);
    assert!(matches!(refused, Err(SealError::Frame(FrameError::TooLarge { .. }))));
    let tiny = |i| FrameExtent { start: Sector(i), sectors: 1, content: Content::Zeroes };
    let many: Vec<_> = (0..=u64::from(EXTENTS_MAX)).map(tiny).collect();
    let refused = sealer().seal(&spec(&many), &[]);
    assert!(matches!(refused, Err(SealError::Frame(FrameError::TooLarge { .. }))));
}

#[test]
fn what_makes_no_frame_is_refused_and_costs_no_nonce() {
    let sealer = sealer();
    let one = [FrameExtent { start: Sector(0), sectors: 1, content: Content::Data }];
    let zstd = FrameSpec { codec: Codec::Zstd, ..spec(&one) };
    let refused = |spec: &FrameSpec<'_>, payload: &[u8]| sealer.seal(spec, payload).unwrap_err();
    for (spec, payload) in [
        (spec(&one), &[0; 511][..]),
        (spec(&one), &[0; 513]),
        (spec(&[]), &[]),
        (zstd, &[0; 513]),
        (zstd, &[]),
        (FrameSpec { link: EpochLink { follows: Epoch(7), ..LINK }, ..spec(&one) }, &[0; 512]),
        (spec(&[one[0], one[0]]), &[0; 1024]),
    ] {
        assert!(matches!(refused(&spec, payload), SealError::Frame(_)), "{spec:?}");
    }
    let buffer = FrameBuffer::new(2, 512);
    let error = sealer.seal_buffer(&spec(&one), buffer).unwrap_err();
    assert!(matches!(error, SealError::Room { given: 1, reserved: 2 }));
    assert_eq!(sealer.next.into_inner(), 0);
}

#[test]
fn all_zeroes_need_no_payload() {
    let zeroes = [FrameExtent { start: Sector(0), sectors: u32::MAX, content: Content::Zeroes }];
    let frame = CheckedFrame::parse(sealer().seal(&spec(&zeroes), &[]).unwrap()).unwrap();
    assert_eq!(frame.zero_bytes(), u64::from(u32::MAX) * 512);
    assert!(Opener::new(&key()).open(&frame).unwrap().payload.is_empty());
}

#[test]
fn nonces_never_repeat_across_threads_and_sealers() {
    let sealers = [sealer(), sealer(), sealer()];
    let seen = Mutex::new(HashSet::new());
    let seal = |sealer: &Sealer| {
        for _ in 0..500 {
            let end = sealer.seal_end(LINK, Sequence(0), &SUMMARY).unwrap();
            let header = FrameHeader::parse(end.first_chunk().unwrap()).unwrap();
            let new = seen.lock().unwrap().insert((header.salt.0, header.counter));
            assert!(new, "a nonce came twice");
        }
    };
    std::thread::scope(|scope| {
        for sealer in sealers.iter().chain(&sealers) {
            scope.spawn(move || seal(sealer));
        }
    });
    assert_eq!(seen.lock().unwrap().len(), 6 * 500);
}

#[test]
fn the_counter_refuses_to_go_past_its_limit_for_good() {
    let sealer = fixed_sealer(FRAMES_PER_SEALER_MAX - 1);
    let end = sealer.seal_end(LINK, Sequence(0), &SUMMARY).unwrap();
    let header = FrameHeader::parse(end.first_chunk().unwrap()).unwrap();
    assert_eq!(header.counter, FRAMES_PER_SEALER_MAX - 1);
    for _ in 0..3 {
        let refused = sealer.seal_end(LINK, Sequence(1), &SUMMARY);
        assert!(matches!(refused, Err(SealError::Exhausted)));
    }
    assert_eq!(sealer.next.into_inner(), FRAMES_PER_SEALER_MAX);
}

#[test]
fn the_session_key_depends_on_disk_generation_and_salt() {
    let tag = |disk, generation, salt| {
        let key = SessionKey::derive(&key(), &SessionSalt(salt), disk, generation);
        key.seal([0; 12], &[], &mut [])
    };
    let tags = [
        tag(DISK, GENERATION, [0; 16]),
        tag(DiskId([9; 16]), GENERATION, [0; 16]),
        tag(DISK, Generation([9; 16]), [0; 16]),
        tag(DISK, GENERATION, [9; 16]),
    ];
    let distinct: HashSet<_> = tags.iter().map(|tag| tag.as_slice()).collect();
    assert_eq!(distinct.len(), tags.len());
}
