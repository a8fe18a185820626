//! What is said on one connection of an admin socket, from both ends.

use std::io::{BufRead as _, BufReader, ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Answer, Daemon, unreachable};
use crate::exit::{Exit, Failure};

/// A request may not be longer than this: one to protect a hundred disks has some 10 KiB.
const REQUEST_MAX: usize = 1 << 20;

/// How often a caller is told how far its request is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// How far something is that takes long.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    /// Bytes that are done.
    pub(crate) done: u64,
    /// Bytes in all.
    pub(crate) total: u64,
}

/// What a daemon says. `Ok` and `Err` end the answer.
#[derive(Deserialize)]
enum Line<A> {
    Ok(A),
    Err(Failure),
    Progress(Progress),
}

/// A connection after the answer. What the daemon holds for it is let go of when this is dropped,
/// or when this process ends.
pub(crate) struct Connection(UnixStream);

impl Connection {
    /// Waits until the daemon hangs up, or `limit` has passed; whether it has hung up.
    pub(crate) fn has_ended_within(&self, limit: Duration) -> bool {
        // Nothing is said on it any more: what can be read is its end.
        drop(self.0.set_read_timeout(Some(limit)));
        match (&self.0).read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

/// Asks a daemon, with an open file if it needs one, and tells `progress` how far it is.
pub(crate) fn converse<Q: Serialize, A: DeserializeOwned>(
    daemon: Daemon<'_>,
    request: &Q,
    file: Option<BorrowedFd<'_>>,
    mut progress: impl FnMut(Progress),
) -> Result<(A, Connection)> {
    let Daemon { socket, timeout } = daemon;
    let stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, &error))?;
    stream.set_read_timeout(Some(timeout))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    send(&stream, line.as_bytes(), file).map_err(|error| unreachable(socket, &error))?;
    let mut lines = BufReader::new(&stream);
    loop {
        let mut answer = String::new();
        match lines.read_line(&mut answer) {
            Ok(0) => {
                let message = "the daemon stopped before it answered";
                return Err(Failure::new(Exit::Unreachable, message).into());
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let message = format!("no answer within {timeout:?}");
                return Err(Failure::new(Exit::Timeout, message).into());
            }
            Err(error) => return Err(unreachable(socket, &error).into()),
        }
        match serde_json::from_str(&answer).context("an answer that this version can't read")? {
            Line::Ok(answer) => return Ok((answer, Connection(stream))),
            Line::Err(failure) => return Err(failure.into()),
            Line::Progress(step) => progress(step),
        }
    }
}

/// Sends bytes, and a file along with the first of them.
fn send(stream: &UnixStream, bytes: &[u8], file: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files: Vec<_> = file.into_iter().collect();
    if !files.is_empty() {
        let pushed = control.push(SendAncillaryMessage::ScmRights(&files));
        debug_assert!(pushed, "there is space for one");
    }
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    let mut stream = stream;
    stream.write_all(&bytes[sent..])
}

/// Whoever asks, as its request is handled.
pub(crate) struct Caller<'a> {
    stream: &'a UnixStream,
    file: Option<OwnedFd>,
    told: Instant,
}

/// An answer, and what is kept for the caller until it hangs up.
pub(crate) struct Answered<A> {
    pub(crate) answer: A,
    pub(crate) held: Option<Box<dyn Send>>,
}

impl<A> From<A> for Answered<A> {
    fn from(answer: A) -> Self {
        Self { answer, held: None }
    }
}

impl Caller<'_> {
    /// The file that came with the request.
    pub(crate) fn take_file(&mut self) -> Result<OwnedFd, Failure> {
        let missing = || Failure::new(Exit::Usage, "this request needs an open file with it");
        self.file.take().ok_or_else(missing)
    }

    /// Tells the caller how far its request is, now and then. An error means that it has gone.
    pub(crate) fn progress(&mut self, progress: Progress) -> std::io::Result<()> {
        if self.told.elapsed() < PROGRESS_EVERY {
            return Ok(());
        }
        self.told = Instant::now();
        write_line(self.stream, &serde_json::json!({ "Progress": progress }))
    }
}

/// Answers the request on a connection, and keeps what is held until the caller hangs up.
pub(super) fn answer<Q: DeserializeOwned, A: Serialize>(
    stream: &UnixStream,
    handle: impl Fn(Q, &mut Caller<'_>) -> Result<Answered<A>>,
) {
    let long_ago = Instant::now() - PROGRESS_EVERY;
    let mut caller = Caller { stream, file: None, told: long_ago };
    let request = receive(stream, &mut caller.file);
    let answered = match request.map(|line| serde_json::from_slice::<Q>(&line)) {
        Ok(Ok(request)) => handle(request, &mut caller).map_err(|error| Failure::of(&error)),
        Ok(Err(error)) => Err(Failure::new(Exit::Usage, format!("not a request: {error}"))),
        Err(error) => Err(Failure::new(Exit::Failed, error.to_string())),
    };
    let (answer, held): (Answer<A>, _) = match answered {
        Ok(Answered { answer, held }) => (Ok(answer), held),
        Err(failure) => (Err(failure), None),
    };
    // A client that went away does not want the answer.
    if write_line(stream, &answer).is_ok() && held.is_some() {
        // It has nothing more to say, so what can be read is its end.
        let mut stream = stream;
        drop(stream.read(&mut [0]));
    }
    drop(held);
}

fn write_line(mut stream: &UnixStream, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// Reads up to the end of a line, and takes the last file that comes along.
fn receive(stream: &UnixStream, file: &mut Option<OwnedFd>) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut part = vec![0; 16 << 10];
    while line.last() != Some(&b'\n') && line.len() < REQUEST_MAX {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(stream, &mut [IoSliceMut::new(&mut part)], &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                *file = files.last();
            }
        }
        if received.bytes == 0 {
            break;
        }
        line.extend_from_slice(&part[..received.bytes]);
    }
    Ok(line)
}
