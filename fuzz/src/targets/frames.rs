//! The bytes of a data stream or of a journal, as whoever has no key may make them.

use blocks::{Epoch, EpochKind};
use wire::frame::FRAME_LEN_MAX;
use wire::{CheckedFrame, EpochChain, EpochLink, FrameDecoder, Opener};

use super::{sealed, store};
use crate::mend;

/// How the stream is cut on its way.
const PIECES: [usize; 4] = [4096, 1, 104, 1000];
const MENDED: u8 = 1;

pub(crate) fn run(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let mut stream = rest.to_vec();
    if how & MENDED != 0 {
        mend::frames(&mut stream);
    }
    let mut decoder = FrameDecoder::new();
    let mut chain = None;
    for piece in stream.chunks(PIECES[usize::from(how >> 1) % PIECES.len()]) {
        assert!((1..=FRAME_LEN_MAX).contains(&decoder.wanted()), "{}", decoder.wanted());
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => check(&frame, &mut chain),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    // Either is right: the input may end anywhere.
    let _ = decoder.finish();
}

/// What must hold of every frame that is handed out.
fn check(frame: &CheckedFrame, chain: &mut Option<EpochChain>) {
    let header = frame.header();
    assert!(header.epoch > header.follows && frame.bytes().len() == header.frame_len());
    assert!(frame.extents().is_sorted_by(|a, b| a.extent().end() <= b.extent().start));
    let again = CheckedFrame::parse(frame.bytes().clone());
    assert_eq!(again.as_ref(), Ok(frame), "a frame is one wherever it is parsed");
    // Nobody who has no key makes one that opens; the attempt must be safe.
    let _ = Opener::new(&sealed::key()).open_end(frame);
    match chain {
        None => *chain = Some(EpochChain::begin(frame)),
        Some(chain) => drop(chain.push(frame)),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let sealer = sealed::sealer(sealed::DISK);
    let link = EpochLink { kind: EpochKind::Delta, epoch: Epoch(2), follows: Epoch(1) };
    let stream = store::frames(&sealer, link, None).concat();
    [0, MENDED].into_iter().map(|how| [&[how][..], &stream].concat()).collect()
}
