//! What makes a run of frames one epoch.
//!
//! Every frame has the same disk, generation, epoch, predecessor, kind and *salt*; sequences rise;
//! the end frame is the last, and its summary counts what came before. The salt matters: a number
//! of an epoch may be used again in a later session after the first attempt was lost, and with it
//! frames of both attempts can't be mixed.

use super::{CheckedFrame, EpochSummary, FrameHeader, FrameRole, Sequence};

/// Checks the frames of one epoch as they come.
#[derive(Clone, Debug)]
pub struct EpochChain {
    first: FrameHeader,
    last_sequence: Sequence,
    ended: bool,
    counted: EpochSummary,
}

/// Why a frame does not belong where it is.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChainError {
    /// It is a frame of another epoch, disk, generation or session.
    #[error("a frame of another epoch, disk, generation or session")]
    Foreign,
    /// Its sequence is not after that of the frame before.
    #[error("frame {found:?} came after frame {last:?}: repeated or out of order")]
    Sequence {
        /// The sequence of the frame before.
        last: Sequence,
        /// Its own.
        found: Sequence,
    },
    /// It comes after the end.
    #[error("a frame after the end of the epoch")]
    AfterEnd,
    /// The end frame is missing.
    #[error("the epoch has no end")]
    NoEnd,
    /// The end frame counts other content than there is.
    #[error("the end of the epoch counts {stated:?}, but there is {found:?}")]
    Summary {
        /// What the end frame says.
        stated: EpochSummary,
        /// What came before it.
        found: EpochSummary,
    },
}

impl EpochChain {
    /// Begins with the first frame of an epoch.
    pub fn begin(frame: &CheckedFrame) -> Self {
        let first = *frame.header();
        let mut chain = Self {
            first,
            last_sequence: first.sequence,
            ended: false,
            counted: EpochSummary::default(),
        };
        chain.count(frame);
        chain
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: &CheckedFrame) -> Result<(), ChainError> {
        let header = frame.header();
        if self.ended {
            return Err(ChainError::AfterEnd);
        }
        if identity(header) != identity(&self.first) {
            return Err(ChainError::Foreign);
        }
        if header.sequence <= self.last_sequence {
            let (last, found) = (self.last_sequence, header.sequence);
            return Err(ChainError::Sequence { last, found });
        }
        self.count(frame);
        Ok(())
    }

    /// Whether the end frame has come.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The header of the first frame.
    pub fn first(&self) -> &FrameHeader {
        &self.first
    }

    /// Compares what came with the summary that the end frame was opened to.
    pub fn verify(&self, summary: &EpochSummary) -> Result<(), ChainError> {
        if !self.ended {
            return Err(ChainError::NoEnd);
        }
        let found = EpochSummary { completes: summary.completes, ..self.counted };
        if found == *summary {
            Ok(())
        } else {
            Err(ChainError::Summary { stated: *summary, found })
        }
    }

    fn count(&mut self, frame: &CheckedFrame) {
        self.last_sequence = frame.header().sequence;
        match frame.header().role {
            FrameRole::End => self.ended = true,
            FrameRole::Content => {
                self.counted.frames += 1;
                self.counted.data_bytes += u64::from(frame.header().plain_len);
                self.counted.zero_bytes += frame.zero_bytes();
            }
        }
    }
}

/// What all frames of an epoch share.
fn identity(header: &FrameHeader) -> impl PartialEq {
    let FrameHeader { kind, disk, generation, epoch, follows, salt, .. } = *header;
    (kind, disk, generation, epoch, follows, salt)
}
