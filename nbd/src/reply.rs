//! Encoding replies: simple ones, and chunks of structured ones.
//!
//! Everything appends to a buffer, so that several small chunks and the head of a large one leave
//! in one piece. A content's bytes are never copied into it; they are sent after their head.

use crate::Run;
use crate::numbers::{SIMPLE_REPLY, STRING_LEN_MAX, STRUCTURED_REPLY, allocation, chunk};
use crate::request::{ErrorNumber, allocation_flags};

#[cfg(test)]
mod tests;

/// Which kind of reply a connection has agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A number, and for a read the bytes.
    Simple,
    /// Chunks.
    Structured,
}

/// Whether a chunk is the last of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Others follow.
    Inner,
    /// It ends the reply.
    Last,
}

/// A stretch of the disk, as a chunk names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its first byte.
    pub offset: u64,
    /// How many bytes, at most [`PAYLOAD_MAX`](crate::PAYLOAD_MAX).
    pub len: u32,
}

/// The replies to one request.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// The connection's form.
    pub form: Form,
    /// The request's cookie.
    pub cookie: u64,
}

impl Reply {
    /// It was done, and there is nothing more to say. Not for a read of a simple connection.
    pub fn done(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Simple => self.simple(0, out),
            Form::Structured => self.chunk((chunk::NONE, Place::Last), 0, out),
        }
    }

    /// It was not done. What was sent of a structured reply before counts for nothing.
    pub fn error(&self, number: ErrorNumber, words: &str, out: &mut Vec<u8>) {
        let code = number as u32;
        if self.form == Form::Simple {
            return self.simple(code, out);
        }
        let words = &words[..words.floor_char_boundary(STRING_LEN_MAX)];
        let len = u16::try_from(words.len()).expect("it was cut to 4096 bytes");
        self.chunk((chunk::ERROR, Place::Last), 6 + u32::from(len), out);
        out.extend(code.to_be_bytes());
        out.extend(len.to_be_bytes());
        out.extend(words.as_bytes());
    }

    /// The head of content; its bytes are to follow. On a simple connection it has to be all that
    /// was asked for.
    pub fn data(&self, stretch: Stretch, place: Place, out: &mut Vec<u8>) {
        if self.form == Form::Simple {
            return self.simple(0, out);
        }
        self.chunk((chunk::OFFSET_DATA, place), 8 + stretch.len, out);
        out.extend(stretch.offset.to_be_bytes());
    }

    /// A stretch that reads as zeroes, on a structured connection.
    pub fn hole(&self, stretch: Stretch, place: Place, out: &mut Vec<u8>) {
        self.chunk((chunk::OFFSET_HOLE, place), 12, out);
        out.extend(stretch.offset.to_be_bytes());
        out.extend(stretch.len.to_be_bytes());
    }

    /// What is data and what is hole, on a structured connection. No run is longer than a request
    /// can be, 4 GiB - 1.
    pub fn status(&self, runs: &[Run], out: &mut Vec<u8>) {
        let len = u32::try_from(4 + 8 * runs.len()).expect("the number of runs is bounded");
        self.chunk((chunk::BLOCK_STATUS, Place::Last), len, out);
        out.extend(allocation::ID.to_be_bytes());
        for run in runs {
            let len = u32::try_from(run.len).expect("a run lies within the request");
            out.extend(len.to_be_bytes());
            out.extend(allocation_flags(run.content).to_be_bytes());
        }
    }

    fn simple(&self, code: u32, out: &mut Vec<u8>) {
        out.extend(SIMPLE_REPLY.to_be_bytes());
        out.extend(code.to_be_bytes());
        out.extend(self.cookie.to_be_bytes());
    }

    fn chunk(&self, (kind, place): (u16, Place), len: u32, out: &mut Vec<u8>) {
        let flags = if place == Place::Last { chunk::DONE } else { 0 };
        out.extend(STRUCTURED_REPLY.to_be_bytes());
        out.extend(flags.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend(self.cookie.to_be_bytes());
        out.extend(len.to_be_bytes());
    }
}
