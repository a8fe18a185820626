//! Requests of the transmission phase, checked against what was agreed on.
//!
//! [`Header`] is what a client sent; [`Command`] is what it may have: in range, permitted, of
//! bounded size, and never about nothing. Between the two stands [`Terms::admit`], or a
//! [`Refusal`] that the client can read, after which the connection goes on.

use std::fmt;
use std::io;
use std::ops::Range;

use crate::export::Zeroing;
use crate::layout::{Malformed, Reader};
use crate::numbers::{REQUEST, command, flag};
use crate::{Content, Export, PAYLOAD_MAX};

#[cfg(test)]
mod tests;

/// Bytes of a request without its payload.
pub const HEADER_LEN: usize = 28;

/// A request as it came. Only its first four bytes were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    flags: u16,
    command: u16,
    /// The client's name for it, which every reply carries.
    pub cookie: u64,
    offset: u64,
    len: u32,
}

/// Bytes where a request should be, and is none: there is no way to find the next one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a request starts with {0:#x}")]
pub struct NoRequest(u32);

impl Header {
    /// Reads a header.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, NoRequest> {
        let mut reader = Reader::new(bytes);
        let mut parse = || {
            let magic = reader.u32()?;
            let (flags, command) = (reader.u16()?, reader.u16()?);
            let (cookie, offset, len) = (reader.u64()?, reader.u64()?, reader.u32()?);
            Ok::<_, Malformed>((magic, Self { flags, command, cookie, offset, len }))
        };
        let (magic, header) = parse().expect("the array is as long as a header");
        if magic == REQUEST { Ok(header) } else { Err(NoRequest(magic)) }
    }

    /// How many bytes of payload follow it. They follow it even where it is refused.
    pub fn payload_len(&self) -> u32 {
        if self.command == command::WRITE { self.len } else { 0 }
    }

    fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// A request that may be carried out. Ranges are bytes, not empty, and within the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send the content, of at most [`PAYLOAD_MAX`] bytes.
    Read {
        /// Of what.
        range: Range<u64>,
        /// Whether it has to be sent in one piece.
        whole: bool,
    },
    /// Write the payload.
    Write {
        /// Where; as long as the payload.
        range: Range<u64>,
        /// Whether it has to be durable before the reply.
        durable: bool,
    },
    /// Make it read as zeroes.
    Zero {
        /// What.
        range: Range<u64>,
        /// How.
        how: Zeroing,
        /// Whether to refuse if that is no faster than writing.
        fast_only: bool,
        /// Whether it has to be durable before the reply.
        durable: bool,
    },
    /// Let the content go.
    Trim {
        /// Of what.
        range: Range<u64>,
        /// Whether it has to be durable before the reply.
        durable: bool,
    },
    /// Make what was written durable.
    Flush,
    /// Read it soon.
    Cache {
        /// What.
        range: Range<u64>,
    },
    /// Say what is data and what is hole.
    Status {
        /// Of what.
        range: Range<u64>,
        /// Whether one run is enough.
        one: bool,
    },
    /// Succeed: it is about no byte.
    Nothing,
    /// Reply to what is under way, and close. It has no reply of its own.
    Disconnect,
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason as a number.
    pub number: ErrorNumber,
    /// The reason in words.
    pub words: &'static str,
}

/// The protocol's error numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorNumber {
    /// The export is read-only.
    NotPermitted = 1,
    /// The disk behind the export failed.
    Io = 5,
    /// The request makes no sense.
    Invalid = 22,
    /// There is no room, or it is past the end.
    NoSpace = 28,
    /// Not possible in the time it was asked for.
    NotSupported = 95,
}

impl ErrorNumber {
    /// The number that an error of an export becomes.
    pub fn of(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => Self::NoSpace,
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Self::NotPermitted,
            _ => Self::Io,
        }
    }
}

impl fmt::Display for ErrorNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPermitted => "not permitted",
            Self::Io => "input/output error",
            Self::Invalid => "invalid",
            Self::NoSpace => "no space",
            Self::NotSupported => "not supported",
        })
    }
}

/// What a connection's requests are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Length of the disk in bytes.
    pub size: u64,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether replies are structured.
    pub structured: bool,
    /// Whether the client may ask what is allocated.
    pub allocation: bool,
}

impl Terms {
    /// What `agreement` comes to for `export`.
    pub fn new(export: &dyn Export, agreement: crate::negotiation::Agreement) -> Self {
        Self {
            size: export.len(),
            writable: export.writable().is_some(),
            structured: agreement.structured,
            allocation: agreement.allocation,
        }
    }

    /// The command that a request is, or why it is none.
    pub fn admit(&self, header: &Header) -> Result<Command, Refusal> {
        self.check_flags(header)?;
        let durable = header.has(flag::FUA);
        match header.command {
            command::READ => self.read(header),
            command::WRITE => {
                self.check_writable()?;
                check_payload(header)?;
                self.on_range(header, |range| Command::Write { range, durable })
            }
            command::WRITE_ZEROES => {
                self.check_writable()?;
                let fast_only = header.has(flag::FAST_ZERO);
                let how =
                    if header.has(flag::NO_HOLE) { Zeroing::Allocate } else { Zeroing::Punch };
                self.on_range(header, |range| Command::Zero { range, how, fast_only, durable })
            }
            command::TRIM => {
                self.check_writable()?;
                self.on_range(header, |range| Command::Trim { range, durable })
            }
            command::CACHE => self.on_range(header, |range| Command::Cache { range }),
            command::BLOCK_STATUS => self.status(header),
            command::FLUSH => self.flush(header),
            command::DISCONNECT => Ok(Command::Disconnect),
            _ => Err(invalid("this command is not known here")),
        }
    }

    fn check_flags(&self, header: &Header) -> Result<(), Refusal> {
        let of_command = match header.command {
            command::READ if self.structured => flag::DF,
            command::WRITE_ZEROES => flag::NO_HOLE | flag::FAST_ZERO,
            command::BLOCK_STATUS => flag::REQ_ONE,
            _ => 0,
        };
        // Where it is offered at all, every command may carry it.
        let of_all = if self.writable { flag::FUA } else { 0 };
        if header.flags & !(of_command | of_all) == 0 {
            return Ok(());
        }
        Err(invalid("a flag that this command does not have here"))
    }

    fn check_writable(&self) -> Result<(), Refusal> {
        if self.writable {
            return Ok(());
        }
        Err(Refusal { number: ErrorNumber::NotPermitted, words: "this export is read-only" })
    }

    fn read(&self, header: &Header) -> Result<Command, Refusal> {
        check_payload(header)?;
        let whole = header.has(flag::DF) || !self.structured;
        self.on_range(header, |range| Command::Read { range, whole })
    }

    fn status(&self, header: &Header) -> Result<Command, Refusal> {
        if !self.allocation {
            return Err(invalid("base:allocation was not selected in the handshake"));
        }
        if header.len == 0 {
            return Err(invalid("there is nothing to say of no byte"));
        }
        let one = header.has(flag::REQ_ONE);
        self.on_range(header, |range| Command::Status { range, one })
    }

    fn flush(&self, header: &Header) -> Result<Command, Refusal> {
        if !self.writable {
            return Err(invalid("flush is not offered on a read-only export"));
        }
        if (header.offset, header.len) != (0, 0) {
            return Err(invalid("a flush has no range"));
        }
        Ok(Command::Flush)
    }

    /// A command on the request's range, which has to lie within the disk.
    fn on_range(
        &self,
        header: &Header,
        command: impl FnOnce(Range<u64>) -> Command,
    ) -> Result<Command, Refusal> {
        let end = header.offset.checked_add(header.len.into()).filter(|end| *end <= self.size);
        match end {
            Some(_) if header.len == 0 => Ok(Command::Nothing),
            Some(end) => Ok(command(header.offset..end)),
            None => Err(past_the_end(header.command)),
        }
    }
}

fn check_payload(header: &Header) -> Result<(), Refusal> {
    if header.len <= PAYLOAD_MAX {
        return Ok(());
    }
    Err(invalid("more than 32 MiB in one request"))
}

fn past_the_end(command: u16) -> Refusal {
    let number = match command {
        command::WRITE | command::WRITE_ZEROES => ErrorNumber::NoSpace,
        _ => ErrorNumber::Invalid,
    };
    Refusal { number, words: "it goes past the end of the disk" }
}

fn invalid(words: &'static str) -> Refusal {
    Refusal { number: ErrorNumber::Invalid, words }
}

/// The bits of `base:allocation` for a kind of content.
pub(crate) fn allocation_flags(content: Content) -> u32 {
    use crate::numbers::allocation::{HOLE, ZERO};
    match content {
        Content::Data => 0,
        Content::Hole => HOLE | ZERO,
    }
}
