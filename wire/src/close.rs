//! The registry of reasons: numbers with a name, a class and a sentence.
//!
//! One registry serves connections that close, disks that are refused and epochs that fail. A
//! number says its own class, so that a reason of a later version is still retried, or not, as
//! its author meant: `0x1xx` is recoverable, `0x2xx` is permanent, `0x3xx` is passing. Numbers are
//! never used again.

use std::fmt;

use crate::text::Text;

/// Whether, and how soon, trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Try again at once, and a few times more within the next half minute.
    Passing,
    /// Try again later, after minutes, waiting longer each time.
    Recoverable,
    /// Trying again can't help until a person has changed something.
    Permanent,
}

/// A reason with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// A reason of this version.
    Known(Reason),
    /// A number that only the peer knows.
    Unknown(u32),
}

macro_rules! reasons {
    ($($number:literal $name:ident $sentence:literal)*) => {
        /// The reasons this version knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Reason {
            $(#[doc = $sentence] $name = $number,)*
        }

        impl Reason {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in the registry.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// A sentence for people.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

reasons! {
    0x103 StoreFull "The target's store has no space left."
    0x104 StoreFailed "The target's store could not be read or written."
    0x106 OutOfMemory "The other side has no memory to spare."
    0x10a SourceFailed "The source could not read its disk."
    0x10b ReplicaInUse "The replica is in use by a failover or a test."

    0x200 VersionMismatch "No version of the protocol is known to both sides: upgrade the older."
    0x201 NotAuthenticated "The certificate is not that of this machine."
    0x202 NotAuthorised "This machine may not do this here."
    0x203 ProtocolViolation "The other side broke the protocol."
    0x204 Replay "A frame came twice, or one of an epoch that is already held."
    0x205 TooLarge "A message or frame is longer than its limit."
    0x206 NotAuthentic "A frame was sealed with another key, or changed since."
    0x207 UnknownDisk "The disk is not known here."
    0x208 GenerationMismatch "The replica belongs to another line of the disk's history."
    0x209 KeyMismatch "The replica was made with another data key."
    0x20a GeometryChanged "The disk is not of the size or block size that the replica has."
    0x20b ReplicaTooSmall "The device for the replica is smaller than the disk."
    0x20c DiskIsOwnStore "The disk holds the store it would be replicated to."
    0x20d ReplicaInvalid "The replica is damaged, and must be made anew."
    0x20e ReplicaPromoted "The replica was promoted, and takes nothing from its old source."
    0x20f DeviceUnusable "The device for the replica is missing, mounted or in use."
    0x210 TokenInvalid "The enrolment token is not valid here."
    0x211 TokenExpired "The enrolment token has expired."
    0x212 TokenUsed "The enrolment token was used before."
    0x213 RequestInvalid "The certificate request is not acceptable."
    0x214 DiskTooLarge "The disk is larger than the target takes."
    0x215 SplitBrain "The disk and its replica were both written since they were one."
    0x216 AnotherSource "Another machine with this identity was here since, or this one was set back."

    0x300 Done "The session ended in order."
    0x301 ShuttingDown "The other side is shutting down."
    0x302 TimedOut "The other side did not answer in time."
    0x303 DiskBusy "The disk is in use by another session."
    0x304 EpochAborted "The epoch was given up before it was complete."
    0x305 EpochOutOfOrder "The epoch is built on one that the replica does not hold."
    0x306 BadFrame "A frame arrived damaged."
}

impl Reason {
    /// Its number.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether trying again can help.
    pub const fn class(self) -> Class {
        class_of(self.number())
    }
}

impl CloseCode {
    /// The reason with this number.
    pub fn from_number(number: u32) -> Self {
        let known = Reason::ALL.iter().find(|reason| reason.number() == number);
        known.map_or(Self::Unknown(number), |reason| Self::Known(*reason))
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Known(reason) => reason.number(),
            Self::Unknown(number) => number,
        }
    }

    /// Whether trying again can help. A number of no class is taken for recoverable: to wait and
    /// try again does less harm than to stop for good.
    pub const fn class(self) -> Class {
        class_of(self.number())
    }

    /// A sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Known(reason) => reason.sentence(),
            Self::Unknown(_) => "The other side gave a reason this version does not know.",
        }
    }
}

impl From<Reason> for CloseCode {
    fn from(reason: Reason) -> Self {
        Self::Known(reason)
    }
}

impl PartialEq<Reason> for CloseCode {
    fn eq(&self, other: &Reason) -> bool {
        *self == Self::Known(*other)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(reason) => f.write_str(reason.sentence()),
            Self::Unknown(number) => write!(f, "{} ({number:#x})", self.sentence()),
        }
    }
}

/// What goes with a reason: a few words more, of at most 512 bytes.
pub type Detail = Text<512>;

const fn class_of(number: u32) -> Class {
    match number >> 8 {
        2 => Class::Permanent,
        3 => Class::Passing,
        _ => Class::Recoverable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_have_a_class_and_come_back() {
        let mut last = 0;
        for reason in Reason::ALL {
            assert!(reason.number() > last, "{} out of order", reason.name());
            last = reason.number();
            assert!(matches!(last >> 8, 1..=3), "{} has no class", reason.name());
            assert_eq!(CloseCode::from_number(last), *reason);
            assert!(reason.sentence().ends_with('.'));
        }
    }

    #[test]
    fn the_document_lists_exactly_these() {
        let document = include_str!("../../docs/wire.md");
        let rows =
            document.lines().filter(|line| line.starts_with("| 0x") && line.ends_with(". |"));
        let row = |reason: &Reason| {
            let class = match reason.class() {
                Class::Passing => "passing",
                Class::Recoverable => "recoverable",
                Class::Permanent => "permanent",
            };
            let (number, name, sentence) = (reason.number(), reason.name(), reason.sentence());
            format!("| {number:#05x} | {name} | {class} | {sentence} |")
        };
        assert!(rows.eq(Reason::ALL.iter().map(row)), "docs/wire.md and the registry differ");
    }

    #[test]
    fn a_later_reason_keeps_its_class() {
        assert_eq!(CloseCode::from_number(0x1ff).class(), Class::Recoverable);
        assert_eq!(CloseCode::from_number(0x2ff).class(), Class::Permanent);
        assert_eq!(CloseCode::from_number(0x3ff).class(), Class::Passing);
        assert_eq!(CloseCode::from_number(7).class(), Class::Recoverable);
        assert!(CloseCode::from_number(0x2ff).to_string().contains("0x2ff"));
    }
}
