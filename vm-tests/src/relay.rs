//! A path between agent and target that can be cut, or led elsewhere: a small UDP relay on loopback.
//!
//! A cut path loses every datagram in both directions without a word, as a pulled cable does.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};

/// Longer than any datagram a loopback path carries.
const DATAGRAM_MAX: usize = 65_536;
/// How often the relay looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(50);
/// Ample for what is connected at once. An agent that starts anew is another client, so the oldest
/// makes room.
const CLIENTS_MAX: usize = 64;

/// A relay in front of one server.
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    server: Mutex<SocketAddr>,
    cut: AtomicBool,
    stop: AtomicBool,
    bytes: AtomicU64,
}

impl State {
    fn server(&self) -> SocketAddr {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What carries the datagrams of one client, and where to.
struct Way {
    server: SocketAddr,
    socket: UdpSocket,
    opened: u64,
    /// The way back is open for as long as this is there.
    _open: Arc<()>,
}

impl Relay {
    /// Relays datagrams between its own port on loopback and `server`.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the relay")?;
        front.set_read_timeout(Some(PATIENCE))?;
        let address = front.local_addr()?;
        let state = Arc::new(State {
            server: Mutex::new(server),
            cut: AtomicBool::default(),
            stop: AtomicBool::default(),
            bytes: AtomicU64::default(),
        });
        let shared = Arc::clone(&state);
        let run = move || forward(&front, &shared);
        let thread = std::thread::Builder::new().name("relay".into()).spawn(run)?;
        Ok(Self { address, state, thread: Some(thread) })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on every datagram is lost.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::Relaxed);
    }

    /// From now on datagrams pass again.
    pub fn mend(&self) {
        self.state.cut.store(false, Ordering::Relaxed);
    }

    /// From now on datagrams go to another server; what the one before still sends is lost.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.state.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    /// How many bytes have passed towards the server.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The way from clients to the server; each client gets a socket and a thread for the way back.
fn forward(front: &UdpSocket, state: &Arc<State>) {
    let mut ways: HashMap<SocketAddr, Way> = HashMap::new();
    let mut opened = 0;
    let mut buffer = vec![0; DATAGRAM_MAX];
    while !state.stop.load(Ordering::Relaxed) {
        let (len, client) = match front.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if is_patience(&error) => continue,
            // ICMP errors of a server that is away: as lossy as the path is meant to be.
            Err(_) => continue,
        };
        if state.cut.load(Ordering::Relaxed) {
            continue;
        }
        let server = state.server();
        ways.retain(|_, way| way.server == server);
        if !ways.contains_key(&client) {
            if ways.len() == CLIENTS_MAX {
                let oldest = ways.values().map(|way| way.opened).min();
                ways.retain(|_, way| Some(way.opened) != oldest);
            }
            opened += 1;
            let Ok(way) = open_way(front, server, client, state, opened) else { continue };
            ways.insert(client, way);
        }
        if let Some(Way { socket, .. }) = ways.get(&client) {
            state.bytes.fetch_add(len as u64, Ordering::Relaxed);
            let _ = socket.send(&buffer[..len]);
        }
    }
}

fn open_way(
    front: &UdpSocket,
    server: SocketAddr,
    client: SocketAddr,
    state: &Arc<State>,
    opened: u64,
) -> Result<Way> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (back, front, state) = (socket.try_clone()?, front.try_clone()?, Arc::clone(state));
    let open = Arc::new(());
    let is_open: Weak<()> = Arc::downgrade(&open);
    let run = move || {
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !state.stop.load(Ordering::Relaxed) && is_open.strong_count() > 0 {
            if let Ok(len) = back.recv(&mut buffer)
                && !state.cut.load(Ordering::Relaxed)
                && state.server() == server
            {
                let _ = front.send_to(&buffer[..len], client);
            }
        }
    };
    std::thread::Builder::new().name("relay-back".into()).spawn(run)?;
    Ok(Way { server, socket, opened, _open: open })
}

fn is_patience(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_path_loses_everything_and_a_mended_one_nothing() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let relay = Relay::start(server.local_addr().unwrap()).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 16];
        relay.cut();
        client.send_to(b"lost", relay.address()).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        relay.mend();
        client.send_to(b"there", relay.address()).unwrap();
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"there");
        server.send_to(b"back", from).unwrap();
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"back");
    }
    #[test]
    fn a_path_that_is_led_elsewhere_has_one_end() {
        let bind = || {
            let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            server
        };
        let (first, second, client) = (bind(), bind(), bind());
        let relay = Relay::start(first.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 16];
        client.send_to(b"one", relay.address()).unwrap();
        let (_, to_first) = first.recv_from(&mut buffer).unwrap();
        relay.lead_to(second.local_addr().unwrap());
        first.send_to(b"late", to_first).unwrap();
        client.send_to(b"two", relay.address()).unwrap();
        let (len, to_second) = second.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"two");
        second.send_to(b"back", to_second).unwrap();
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"back");
    }
}
