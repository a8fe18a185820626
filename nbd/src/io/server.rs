//! Accepting clients, within limits, until told to stop.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::budget::Budget;
use super::connection::{self, Shared};
use super::listen::{Listen, Listener};
use super::socket::{Socket, is_tick};
use crate::PAYLOAD_MAX;
use crate::export::Export;
use crate::negotiation::Offer;

/// How long replies that are under way may take when the server stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long to wait before the next client is let in after the system did not let one in.
const RECOVERY: Duration = Duration::from_millis(100);

/// An export and what clients call it.
#[derive(Clone, Debug)]
pub struct NamedExport {
    /// Its name, at most 4096 bytes. If there is only one export, the empty name means it too.
    pub name: String,
    /// Words for people; may be empty.
    pub description: String,
    /// The disk.
    pub export: Arc<dyn Export>,
}

/// What a server may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients at a time; others are sent away at once.
    pub connections: usize,
    /// Requests of one client that are carried out at a time.
    pub workers: usize,
    /// Requests of one client that wait for that.
    pub queue: usize,
    /// Bytes of all clients that are held at a time, of payloads to be written and of content that
    /// has to be sent in one piece. Raised to what one request may need.
    pub memory: u64,
    /// How long a client may take to finish what it has begun: the handshake, a request, taking a
    /// reply.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16,
            workers: 4,
            queue: 32,
            memory: 128 << 20,
            patience: Duration::from_secs(60),
        }
    }
}

/// A running server. Dropping it stops it; its socket's file is gone then, and it holds no export
/// any more.
#[derive(Debug)]
pub struct Server {
    address: Listen,
    stop: UnixStream,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `exports` to whoever comes to `listener`, from now on. The error is one of the
    /// system, which has no thread or descriptor left.
    pub fn start(
        listener: Listener,
        exports: Vec<NamedExport>,
        limits: Limits,
    ) -> io::Result<Self> {
        let address = listener.address().clone();
        let tls = listener.tls().cloned();
        let offers = exports
            .iter()
            .map(|named| Offer::new(&named.name, &named.description, &named.export))
            .collect();
        let budget = Budget::new(limits.memory.max(PAYLOAD_MAX.into()));
        let shared = Arc::new(Shared { exports, offers, tls, limits, budget });
        let (stop, stopped) = UnixStream::pair()?;
        let accepting = Builder::new()
            .name("nbd-accept".into())
            .spawn(move || accept_all(&listener, &stopped, &shared))?;
        Ok(Self { address, stop, accepting: Some(accepting) })
    }

    /// Where it listens, with the port it was given if none was asked for.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    /// Lets no more clients in, finishes what they have asked for, and ends.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The other end is held by the thread; if it is gone, it has ended already.
        drop((&self.stop).write_all(&[0]));
        if let Some(accepting) = self.accepting.take()
            && accepting.join().is_err()
        {
            tracing::error!("the thread that accepts NBD clients has panicked");
        }
    }
}

/// A client's thread, and the socket by which it can be ended.
struct Client {
    socket: Arc<Socket>,
    thread: JoinHandle<()>,
}

fn accept_all(listener: &Listener, stopped: &UnixStream, shared: &Arc<Shared>) {
    let mut clients: Vec<Client> = Vec::new();
    while wait(listener, stopped) {
        clients.retain(|client| !client.thread.is_finished());
        match listener.accept() {
            Ok(_) if clients.len() >= shared.limits.connections => {
                tracing::warn!("an NBD client was sent away: there are {} already", clients.len());
            }
            Ok(socket) => match start(shared, socket) {
                Ok(client) => clients.push(client),
                Err(error) => tracing::warn!(%error, "an NBD client was sent away"),
            },
            Err(error) if is_tick(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "an NBD client could not be let in");
                sleep(RECOVERY);
            }
        }
    }
    farewell(clients);
}

/// Waits for a client. False when it is time to stop.
fn wait(listener: &Listener, stopped: &UnixStream) -> bool {
    let mut fds = [
        PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
    ];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) => fds[1].revents().is_none_or(|events| events.is_empty()),
        Err(errno) => errno == Errno::EINTR,
    }
}

fn start(shared: &Arc<Shared>, socket: Socket) -> io::Result<Client> {
    let socket = Arc::new(socket);
    let shared = Arc::clone(shared);
    let thread = Builder::new().name("nbd-client".into()).spawn({
        let socket = Arc::clone(&socket);
        move || {
            if let Err(error) = connection::serve(&shared, &socket) {
                tracing::info!("an NBD connection ended: {error}");
            }
            socket.shutdown(Shutdown::Both);
        }
    })?;
    Ok(Client { socket, thread })
}

/// Ends all clients: no more requests, and an end to replies that nobody takes.
fn farewell(clients: Vec<Client>) {
    clients.iter().for_each(|client| client.socket.shutdown(Shutdown::Read));
    let deadline = Instant::now() + FAREWELL;
    while Instant::now() < deadline && clients.iter().any(|client| !client.thread.is_finished()) {
        sleep(Duration::from_millis(10));
    }
    for client in clients {
        client.socket.shutdown(Shutdown::Both);
        if client.thread.join().is_err() {
            tracing::error!("the thread of an NBD client has panicked");
        }
    }
}
