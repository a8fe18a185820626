//! Why bytes are no frame.

use crate::close::Reason;

/// Why bytes are no frame that this version can keep.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    /// The first bytes are not those of a frame.
    #[error("not a frame")]
    Magic,
    /// A frame of another version of the format.
    #[error("a frame of version {0}; this is version {version}", version = super::FRAME_VERSION)]
    Version(u16),
    /// A checksum does not match.
    #[error("the checksum of the frame's {0} does not match")]
    Checksum(FramePart),
    /// A field holds a number without a meaning.
    #[error("the frame's {field} can't be {value}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// A length is beyond its limit.
    #[error("the frame's {field} of {value} is beyond the limit of {limit}")]
    TooLarge {
        /// Which field.
        field: &'static str,
        /// What it held.
        value: u64,
        /// What it may hold at most.
        limit: u64,
    },
    /// The lengths in the header contradict each other or the extent table.
    #[error("the frame's lengths contradict each other: {0}")]
    Lengths(&'static str),
    /// An extent is empty, out of order, or past the end of any disk.
    #[error("extent {index} of the frame is empty, out of order or past the end of any disk")]
    Extent {
        /// Its place in the table.
        index: usize,
    },
    /// The bytes end before the frame does.
    #[error("the frame is cut short: {present} of {needed} bytes")]
    Truncated {
        /// How many bytes there are.
        present: usize,
        /// How many there had to be.
        needed: usize,
    },
}

impl FrameError {
    /// What to close the connection with.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Version(_) => Reason::VersionMismatch,
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Magic
            | Self::Checksum(_)
            | Self::Field { .. }
            | Self::Lengths(_)
            | Self::Extent { .. }
            | Self::Truncated { .. } => Reason::BadFrame,
        }
    }
}

/// A part of a frame with a checksum of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramePart {
    /// The fixed header.
    Header,
    /// The extent table.
    Table,
    /// The sealed payload.
    Payload,
}

impl std::fmt::Display for FramePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Table => "extent table",
            Self::Payload => "payload",
        })
    }
}
