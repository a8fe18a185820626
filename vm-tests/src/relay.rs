//! A path between agent and target that can be cut: a small UDP relay on loopback.
//!
//! A cut path loses every datagram in both directions without a word, as a pulled cable does.

use std::{
    collections::HashMap,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
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
/// Ample for the few connections of one test.
const CLIENTS_MAX: usize = 64;

/// A relay in front of one server.
pub struct Relay {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    stop: AtomicBool,
    bytes: AtomicU64,
}

impl Relay {
    /// Relays datagrams between its own port on loopback and `server`.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("binding the relay")?;
        front.set_read_timeout(Some(PATIENCE))?;
        let address = front.local_addr()?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let run = move || forward(&front, server, &shared);
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
fn forward(front: &UdpSocket, server: SocketAddr, state: &Arc<State>) {
    let mut clients: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut backs = Vec::new();
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
        if !clients.contains_key(&client) && clients.len() < CLIENTS_MAX {
            let opened = open_back(front, server, client, state);
            let Ok((socket, back)) = opened else { continue };
            clients.insert(client, socket);
            backs.push(back);
        }
        if let Some(socket) = clients.get(&client) {
            state.bytes.fetch_add(len as u64, Ordering::Relaxed);
            let _ = socket.send(&buffer[..len]);
        }
    }
    for back in backs {
        let _ = back.join();
    }
}

fn open_back(
    front: &UdpSocket,
    server: SocketAddr,
    client: SocketAddr,
    state: &Arc<State>,
) -> Result<(UdpSocket, JoinHandle<()>)> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let (back, front, state) = (socket.try_clone()?, front.try_clone()?, Arc::clone(state));
    let run = move || {
        let mut buffer = vec![0; DATAGRAM_MAX];
        while !state.stop.load(Ordering::Relaxed) {
            if let Ok(len) = back.recv(&mut buffer)
                && !state.cut.load(Ordering::Relaxed)
            {
                let _ = front.send_to(&buffer[..len], client);
            }
        }
    };
    Ok((socket, std::thread::Builder::new().name("relay-back".into()).spawn(run)?))
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
}
