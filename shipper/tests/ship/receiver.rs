//! A target in miniature: decodes, opens, decompresses and applies frames.

use crossbeam_channel::Receiver;
use shipper::{ShipError, ShipOutput, ShipReport};
use wire::{Codec, Content, EpochChain, FrameDecoder, Opener};

/// What came of a shipment.
pub(crate) struct Received {
    pub(crate) report: Result<ShipReport, ShipError>,
    /// Whether an authentic end frame came that counts what came before it.
    pub(crate) ended: bool,
    /// Frames with data that travelled as it was.
    pub(crate) raw_frames: u64,
}

impl Received {
    /// The report of a shipment that went well.
    #[track_caller]
    pub(crate) fn report(&self) -> ShipReport {
        assert!(self.ended);
        *self.report.as_ref().unwrap()
    }
}

/// Takes all frames in and applies them to `replica`.
pub(crate) fn receive(outputs: &Receiver<ShipOutput>, replica: &mut [u8]) -> Received {
    let opener = Opener::new(&super::key());
    let mut decoder = FrameDecoder::new();
    let mut chain: Option<EpochChain> = None;
    let mut received = Received { report: Err(ShipError::Stopped), ended: false, raw_frames: 0 };
    for output in outputs {
        match output {
            ShipOutput::Frame(bytes) => decoder.push(&bytes),
            ShipOutput::Done(report) => received.report = Ok(report),
            ShipOutput::Failed(error) => received.report = Err(error),
        }
        while let Some(frame) = decoder.next_frame().unwrap() {
            match &mut chain {
                None => chain = Some(EpochChain::begin(&frame)),
                Some(chain) => chain.push(&frame).unwrap(),
            }
            if frame.header().is_end() {
                let summary = opener.open_end(&frame).unwrap().summary;
                chain.as_ref().unwrap().verify(&summary).unwrap();
                received.ended = true;
            } else {
                received.raw_frames += u64::from(apply(&opener, &frame, replica));
            }
        }
    }
    decoder.finish().unwrap();
    received
}

/// Applies one frame; returns whether it held data as it was.
fn apply(opener: &Opener, frame: &wire::CheckedFrame, replica: &mut [u8]) -> bool {
    let opened = opener.open(frame).unwrap();
    let data = match opened.codec {
        Codec::Raw => opened.payload,
        Codec::Zstd => {
            zstd::bulk::decompress(&opened.payload, frame.header().plain_len as usize).unwrap()
        }
    };
    let mut rest = &data[..];
    for extent in &opened.extents {
        let range = extent.start.bytes() as usize..extent.extent().end().bytes() as usize;
        let target = &mut replica[range];
        match extent.content {
            Content::Zeroes => target.fill(0),
            Content::Data => {
                let (head, tail) = rest.split_at(target.len());
                target.copy_from_slice(head);
                rest = tail;
            }
        }
    }
    assert!(rest.is_empty());
    opened.codec == Codec::Raw && !data.is_empty()
}
