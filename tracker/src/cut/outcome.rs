//! How a cut ended.

use std::fmt;
use std::time::Duration;

use blocks::{Bitmap, ByteLen, ChunkIndex, CutTime};

use super::{Heat, Hold};

/// A cut that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub outcome: Outcome,
    /// What becomes of each disk, in the order in which they were given.
    pub disks: Vec<FinishedDisk>,
    /// How many iterations there were.
    pub attempts: u32,
}

/// One disk of a cut that has ended.
#[derive(Debug)]
pub struct FinishedDisk {
    /// Every chunk that was handed in or harvested. If the cut is verified the image holds them,
    /// each as it was read last; otherwise they are dirty.
    pub chunks: Bitmap,
    /// For the next cut.
    pub heat: Heat,
}

/// How a cut ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The image is the state of all disks at one instant.
    Verified(Verified),
    /// More is dirty than an image may hold: a delta is to be shipped first.
    TooLarge {
        /// What is dirty.
        due: ByteLen,
        /// What an image may hold.
        memory: ByteLen,
    },
    /// Writes arrive faster than they can be read.
    CannotKeepUp {
        /// How many rounds were made.
        rounds: u32,
        /// What was dirty after the last.
        due: ByteLen,
        /// Where they conflicted most often.
        hottest: Vec<HotChunk>,
    },
    /// No attempt was without a conflict.
    Unsettled {
        /// How many were made.
        attempts: u32,
        /// Where they conflicted most often.
        hottest: Vec<HotChunk>,
        /// Why file systems could not be frozen, if that is what would have helped.
        unfreezable: Option<String>,
    },
    /// Something failed.
    Failed(String),
}

/// A verified image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The instant T.
    pub at: CutTime,
    /// What stood still.
    pub hold: Hold,
    /// How many attempts it took, the last one counted.
    pub attempts: u32,
    /// From T to the last look.
    pub window: Duration,
    /// How many chunks were read in it.
    pub chunks: u64,
}

/// Where attempts conflicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotChunk {
    /// Which of the disks.
    pub disk: usize,
    /// The first chunk of the reads that met the conflicts.
    pub chunk: ChunkIndex,
    /// How many conflicts there were.
    pub conflicts: u32,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified(verified) => {
                let Verified { attempts, window, .. } = verified;
                write!(f, "verified after {attempts} attempts, {window:?} after the instant")
            }
            Self::TooLarge { due, memory } => {
                write!(f, "{due} are dirty, more than the {memory} that are read at one instant")
            }
            Self::CannotKeepUp { rounds, due, .. } => write!(
                f,
                "cannot keep up: writes arrive faster than they are read; {due} are dirty after \
                 {rounds} rounds"
            ),
            Self::Unsettled { attempts, unfreezable, .. } => {
                write!(
                    f,
                    "each of {attempts} attempts met a block that was written while it was read"
                )?;
                match unfreezable {
                    Some(why) => write!(f, "; a freeze is not possible: {why}"),
                    None => Ok(()),
                }
            }
            Self::Failed(why) => f.write_str(why),
        }
    }
}
