//! Carrying out commands, and sending what comes of them.
//!
//! An error of the export is a reply; an error of the connection is an `Err`, and ends it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::budget::{Budget, Lease};
use super::channel::Channel;
use crate::export::{Content, Export, Writable, Zeroing};
use crate::reply::{Form, Place, Reply, Stretch};
use crate::request::{Command, ErrorNumber, Refusal};

/// Content that is read and sent at a time. Each worker keeps this much.
const PIECE: u32 = 256 * 1024;

/// Runs that are asked for at a time while reading.
const READ_RUNS: usize = 64;

/// Runs in an answer to a status request.
const STATUS_RUNS: usize = 4096;

/// A request on its way to a worker.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) cookie: u64,
    pub(super) command: Result<Command, Refusal>,
    pub(super) payload: Payload,
}

/// What a client sent to be written, and its part of the budget.
#[derive(Debug, Default)]
pub(super) struct Payload {
    pub(super) bytes: Vec<u8>,
    pub(super) _lease: Option<Lease>,
}

/// One of a connection's workers.
#[derive(Debug)]
pub(super) struct Worker<'a> {
    channel: &'a Channel,
    export: &'a dyn Export,
    form: Form,
    budget: &'a Arc<Budget>,
    piece: Vec<u8>,
    heads: Vec<u8>,
}

/// Why a request was not carried out, or not reported.
enum Trouble {
    /// The client is told.
    Export(ErrorNumber, String),
    /// The client can't be told any more.
    Channel(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Export(ErrorNumber::of(&error), error.to_string())
    }
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        channel: &'a Channel,
        export: &'a dyn Export,
        form: Form,
        budget: &'a Arc<Budget>,
    ) -> Self {
        Self { channel, export, form, budget, piece: Vec::new(), heads: Vec::new() }
    }

    /// Carries out a request, and replies.
    pub(super) fn run(&mut self, job: Job) -> io::Result<()> {
        let reply = Reply { form: self.form, cookie: job.cookie };
        self.heads.clear();
        let done = match job.command {
            Ok(command) => self.execute(reply, command, &job.payload.bytes),
            Err(refusal) => Err(Trouble::Export(refusal.number, refusal.words.to_owned())),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Trouble::Channel(error)) => Err(error),
            Err(Trouble::Export(number, words)) => {
                tracing::debug!(%number, words, "a request was refused or failed");
                self.heads.clear();
                reply.error(number, &words, &mut self.heads);
                self.channel.send(&[&self.heads])
            }
        }
    }

    fn execute(&mut self, reply: Reply, command: Command, payload: &[u8]) -> Result<(), Trouble> {
        match command {
            Command::Read { range, whole: true } => return self.read_whole(reply, range),
            Command::Read { range, whole: false } => return self.read_in_pieces(reply, range),
            Command::Status { range, one } => return self.status(reply, range, one),
            Command::Cache { range } => self.cache(range)?,
            Command::Flush => self.writable()?.flush()?,
            Command::Write { range, durable } => {
                let disk = self.writable()?;
                disk.write_at(range.start, payload)?;
                flush_if(disk, durable)?;
            }
            Command::Zero { range, how, fast_only, durable } => {
                self.zero(range, how, fast_only, durable)?;
            }
            Command::Trim { range, durable } => {
                let disk = self.writable()?;
                disk.trim(range)?;
                flush_if(disk, durable)?;
            }
            Command::Nothing | Command::Disconnect => {}
        }
        reply.done(&mut self.heads);
        self.send_heads()
    }

    fn writable(&self) -> Result<&'a dyn Writable, Trouble> {
        let words = || "this export is read-only".to_owned();
        self.export.writable().ok_or_else(|| Trouble::Export(ErrorNumber::NotPermitted, words()))
    }

    fn zero(
        &self,
        range: Range<u64>,
        how: Zeroing,
        fast_only: bool,
        durable: bool,
    ) -> Result<(), Trouble> {
        let disk = self.writable()?;
        if fast_only && !disk.zeroes_fast(how) {
            let words = "zeroing is no faster than writing here".to_owned();
            return Err(Trouble::Export(ErrorNumber::NotSupported, words));
        }
        disk.zero(range, how)?;
        flush_if(disk, durable)
    }

    /// All in one: what a simple reply can't help, and a structured one can be asked for.
    fn read_whole(&mut self, reply: Reply, range: Range<u64>) -> Result<(), Trouble> {
        let len = length(&range);
        let lease = (len > PIECE).then(|| self.budget.lease(len));
        let mut content = std::mem::take(&mut self.piece);
        content.resize((len as usize).max(content.len()), 0);
        self.export.read_at(range.start, &mut content[..len as usize])?;
        let sent = self.send_data(reply, &content[..len as usize], (range.start, Place::Last));
        if content.len() <= PIECE as usize {
            self.piece = content;
        }
        drop(lease);
        sent
    }

    fn read_in_pieces(&mut self, reply: Reply, range: Range<u64>) -> Result<(), Trouble> {
        let mut at = range.start;
        while at < range.end {
            for run in self.export.status(at..range.end, READ_RUNS)? {
                let run_end = at + run.len;
                if run.content == Content::Data {
                    self.read_data(reply, at..run_end, range.end)?;
                } else {
                    let stretch = Stretch { offset: at, len: length(&(at..run_end)) };
                    reply.hole(stretch, place(run_end, range.end), &mut self.heads);
                }
                at = run_end;
            }
        }
        self.send_heads()
    }

    fn read_data(&mut self, reply: Reply, run: Range<u64>, end: u64) -> Result<(), Trouble> {
        let mut at = run.start;
        while at < run.end {
            let piece_end = run.end.min(at + u64::from(PIECE));
            let len = length(&(at..piece_end)) as usize;
            let mut content = std::mem::take(&mut self.piece);
            content.resize(len.max(content.len()), 0);
            self.export.read_at(at, &mut content[..len])?;
            self.send_data(reply, &content[..len], (at, place(piece_end, end)))?;
            self.piece = content;
            at = piece_end;
        }
        Ok(())
    }

    fn status(&mut self, reply: Reply, range: Range<u64>, one: bool) -> Result<(), Trouble> {
        let runs = self.export.status(range, if one { 1 } else { STATUS_RUNS })?;
        reply.status(&runs, &mut self.heads);
        self.send_heads()
    }

    /// Reads, so that whatever caches there are below have it.
    fn cache(&mut self, range: Range<u64>) -> Result<(), Trouble> {
        self.piece.resize(PIECE as usize, 0);
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + u64::from(PIECE));
            self.export.read_at(at, &mut self.piece[..length(&(at..end)) as usize])?;
            at = end;
        }
        Ok(())
    }

    /// Sends content after its head, and after heads that wait.
    fn send_data(
        &mut self,
        reply: Reply,
        content: &[u8],
        (offset, place): (u64, Place),
    ) -> Result<(), Trouble> {
        let len = u32::try_from(content.len()).expect("at most 32 MiB");
        reply.data(Stretch { offset, len }, place, &mut self.heads);
        self.channel.send(&[&self.heads, content]).map_err(Trouble::Channel)?;
        self.heads.clear();
        Ok(())
    }

    fn send_heads(&mut self) -> Result<(), Trouble> {
        if !self.heads.is_empty() {
            self.channel.send(&[&self.heads]).map_err(Trouble::Channel)?;
            self.heads.clear();
        }
        Ok(())
    }
}

fn flush_if(disk: &dyn Writable, durable: bool) -> Result<(), Trouble> {
    if durable {
        disk.flush()?;
    }
    Ok(())
}

fn place(end: u64, of: u64) -> Place {
    if end == of { Place::Last } else { Place::Inner }
}

/// The length of a range that a request named, and which is a `u32` therefore.
fn length(range: &Range<u64>) -> u32 {
    u32::try_from(range.end - range.start).expect("a request's length is a u32")
}
