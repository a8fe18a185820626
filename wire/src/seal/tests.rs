//! Sealing: golden bytes, limits, and the nonces.

use std::collections::HashSet;

use blocks::Sector;

use super::*;
use crate::frame::{CheckedFrame, Content};
use crate::open::Opener;

const DISK: DiskId = DiskId([0x11; 16]);
const GENERATION: Generation = Generation([0x22; 16]);
const LINK: EpochLink = EpochLink { kind: EpochKind::Delta, epoch: Epoch(7), follows: Epoch(5) };
const TWO_SECTORS: [FrameExtent; 2] = [
    FrameExtent { start: Sector(8), sectors: 2, content: Content::Data },
    FrameExtent { start: Sector(16), sectors: 64, content: Content::Zeroes },
];

fn key() -> DataKey {
    DataKey::from_bytes([0x33; 32])
}

fn sealer() -> Sealer {
    Sealer::new(&key(), DISK, GENERATION).unwrap()
}

fn spec(extents: &[FrameExtent]) -> FrameSpec<'_> {
    FrameSpec { link: LINK, sequence: Sequence(3), codec: Codec::Raw, extents }
}

#[test]
fn what_is_sealed_opens() {
    let sealed = sealer().seal(&spec(&TWO_SECTORS), &[0x5a; 1024]).unwrap();
    let frame = CheckedFrame::parse(sealed.clone()).unwrap();
    assert_eq!(frame.bytes(), &sealed);
    assert_eq!(frame.extents(), TWO_SECTORS);
    let opened = Opener::new(&key()).open(&frame).unwrap();
    assert_eq!(opened.payload, [0x5a; 1024]);
    assert_eq!((opened.codec, opened.extents.as_slice()), (Codec::Raw, TWO_SECTORS.as_slice()));
}
