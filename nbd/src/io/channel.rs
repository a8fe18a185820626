//! One connection's bytes, in the clear or through TLS, with a limit on waiting.
//!
//! One thread receives, any number send; what one `send` is given goes out in one piece. Something
//! that was begun (a request, a reply) has to be finished by the client within the connection's
//! patience. Between requests it may take all the time it wants.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConnection;

use super::socket::{Socket, is_tick};
use super::tls::Tls;

/// Ciphertext that is read at a time: a TLS record.
const CIPHERTEXT: usize = 16 * 1024 + 512;

/// A connection to a client.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Arc<Socket>,
    tls: Option<Mutex<ServerConnection>>,
    /// Held while something goes out, and taken before `tls` where both are.
    sending: Mutex<()>,
    patience: Duration,
}

/// What waiting for bytes came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// All of them.
    All,
    /// The client had ended before the first.
    End,
}

/// Whether there is a limit on waiting for the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// None: nothing was begun.
    AnyTime,
    /// All of it has to come by then.
    Before(Instant),
}

impl Channel {
    pub(super) fn new(socket: Arc<Socket>, patience: Duration) -> Self {
        Self { socket, tls: None, sending: Mutex::new(()), patience }
    }

    /// When what begins now has to be finished.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }

    /// The same connection, after a TLS handshake.
    pub(super) fn secure(self, tls: &Tls) -> io::Result<Self> {
        let mut connection = tls.connection().map_err(io::Error::other)?;
        let deadline = self.deadline();
        while connection.is_handshaking() {
            match connection.complete_io(&mut &*self.socket) {
                Err(error) if is_tick(&error) => check(deadline)?,
                result => drop(result?),
            }
        }
        Ok(Self { tls: Some(Mutex::new(connection)), ..self })
    }

    /// Fills `buffer`.
    pub(super) fn receive(&self, buffer: &mut [u8], first: Beginning) -> io::Result<Received> {
        let mut filled = 0;
        let mut deadline = match first {
            Beginning::AnyTime => None,
            Beginning::Before(deadline) => Some(deadline),
        };
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(Received::End),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if is_tick(&error) => {}
                Err(error) => return Err(error),
            }
            if filled > 0 && deadline.is_none() {
                deadline = Some(self.deadline());
            }
            if filled < buffer.len() {
                deadline.map_or(Ok(()), check)?;
            }
        }
        Ok(Received::All)
    }

    /// Sends all of `parts`, in order.
    pub(super) fn send(&self, parts: &[&[u8]]) -> io::Result<()> {
        let sending = self.sending();
        let deadline = self.deadline();
        match &self.tls {
            None => self.send_clear(parts, deadline)?,
            Some(tls) => {
                for part in parts {
                    self.send_sealed(tls, part, deadline)?;
                }
            }
        }
        drop(sending);
        Ok(())
    }

    /// Says good-bye where TLS has words for it, and ends the connection.
    pub(super) fn close(&self) {
        if let Some(tls) = &self.tls {
            let sending = self.sending();
            lock(tls).send_close_notify();
            // A client that is gone does not miss it.
            drop(self.flush(tls, self.deadline()));
            drop(sending);
        }
        self.socket.shutdown(Shutdown::Both);
    }

    /// Ends the connection at once.
    pub(super) fn abort(&self) {
        self.socket.shutdown(Shutdown::Both);
    }

    fn sending(&self) -> MutexGuard<'_, ()> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_clear(&self, parts: &[&[u8]], deadline: Instant) -> io::Result<()> {
        let mut slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = &mut slices[..];
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match (&*self.socket).write_vectored(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if is_tick(&error) => check(deadline)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn send_sealed(
        &self,
        tls: &Mutex<ServerConnection>,
        mut bytes: &[u8],
        deadline: Instant,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            // It takes as much as its buffer has room for, so that it is emptied in between.
            let taken = lock(tls).writer().write(bytes)?;
            bytes = &bytes[taken..];
            self.flush(tls, deadline)?;
        }
        Ok(())
    }

    /// Sends what TLS has to say. Only with `sending` held.
    fn flush(&self, tls: &Mutex<ServerConnection>, deadline: Instant) -> io::Result<()> {
        let mut sealed = Vec::new();
        loop {
            {
                let mut tls = lock(tls);
                while tls.wants_write() {
                    tls.write_tls(&mut sealed)?;
                }
            }
            if sealed.is_empty() {
                return Ok(());
            }
            self.send_clear(&[&sealed], deadline)?;
            sealed.clear();
        }
    }

    /// Some bytes; none at the end.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return (&*self.socket).read(buffer) };
        loop {
            match lock(tls).reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.read_sealed(tls)?;
        }
    }

    /// Gives TLS what has come. The lock is not held while waiting for it, or nobody could send.
    fn read_sealed(&self, tls: &Mutex<ServerConnection>) -> io::Result<()> {
        let mut sealed = [0; CIPHERTEXT];
        let read = (&*self.socket).read(&mut sealed)?;
        let mut sealed = &sealed[..read];
        let mut tls_has_words = false;
        loop {
            let mut tls = lock(tls);
            // An empty slice is how it learns of the end.
            tls.read_tls(&mut sealed)?;
            tls.process_new_packets().map_err(io::Error::other)?;
            tls_has_words |= tls.wants_write();
            if sealed.is_empty() {
                break;
            }
        }
        if tls_has_words {
            let sending = self.sending();
            self.flush(tls, self.deadline())?;
            drop(sending);
        }
        Ok(())
    }
}

fn lock(tls: &Mutex<ServerConnection>) -> MutexGuard<'_, ServerConnection> {
    tls.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(deadline: Instant) -> io::Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let words = "the client has not gone on with what it began";
    Err(io::Error::new(io::ErrorKind::ConnectionAborted, words))
}
