//! Opening: keys, caches and buffers.

use blocks::{Epoch, EpochKind, Sector};

use super::*;
use crate::frame::{Content, Sequence};
use crate::seal::{EpochLink, FrameSpec, Sealer};

const DISK: DiskId = DiskId([1; 16]);
const GENERATION: Generation = Generation([2; 16]);

fn frame(key: &DataKey, byte: u8) -> CheckedFrame {
    let link = EpochLink { kind: EpochKind::Delta, epoch: Epoch(1), follows: Epoch::NONE };
    let extents = [FrameExtent { start: Sector(0), sectors: 1, content: Content::Data }];
    let spec = FrameSpec { link, sequence: Sequence(0), codec: Codec::Raw, extents: &extents };
    let sealer = Sealer::new(key, DISK, GENERATION).unwrap();
    CheckedFrame::parse(sealer.seal(&spec, &[byte; 512]).unwrap()).unwrap()
}

fn key() -> DataKey {
    DataKey::from_bytes([3; 32])
}

#[test]
fn another_key_opens_nothing() {
    let other = Opener::new(&DataKey::from_bytes([4; 32]));
    assert_eq!(other.open(&frame(&key(), 1)), Err(OpenError::NotAuthentic));
}

#[test]
fn a_buffer_is_used_again_and_holds_nothing_after_an_error() {
    let (opener, mut buffer) = (Opener::new(&key()), vec![9; 4096]);
    let at = buffer.as_ptr();
    opener.open_into(&frame(&key(), 7), &mut buffer).unwrap();
    assert_eq!((buffer.as_slice(), buffer.as_ptr()), ([7; 512].as_slice(), at));
    let foreign = frame(&DataKey::from_bytes([4; 32]), 7);
    opener.open_into(&foreign, &mut buffer).unwrap_err();
    assert!(buffer.is_empty());
}

#[test]
fn frames_of_more_sessions_than_are_kept_open_all_the_same() {
    let opener = Opener::new(&key());
    let frames: Vec<_> = (0..100).map(|i| frame(&key(), i)).collect();
    for _ in 0..2 {
        for (frame, byte) in frames.iter().zip(0..) {
            assert_eq!(opener.open(frame).unwrap().payload, [byte; 512]);
        }
    }
    assert!(opener.sessions.lock().unwrap().len() <= SESSIONS_MAX);
}

#[test]
fn content_is_no_end() {
    let opener = Opener::new(&key());
    assert_eq!(opener.open_end(&frame(&key(), 1)), Err(OpenError::NotTheEnd));
}
