//! The QUIC settings that both ends share.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use zeroize::Zeroizing;

use crate::identity::random_bytes;
use crate::pki::write_private;

/// A path that is silent for this long is lost.
const IDLE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// What may be under way on one data stream, and in all.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// The largest datagram that is looked for on a path: jumbo frames and loopback carry it, and then
/// a byte costs a fraction of what it costs in datagrams of 1,452. quinn hands the kernel up to ten
/// datagrams at once, and the kernel takes 65,507 bytes at once: larger ones would get lost.
const DATAGRAM_MAX: u16 = 6400;
/// What a socket may hold while its task does something else; the kernel's default is three of the
/// kernel's own batches, and what does not fit is lost and sent again.
const SOCKET_BUFFER: usize = 8 << 20;

/// The transport of a replication or enrolment connection.
pub(crate) fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE).expect("ten seconds are a valid idle time");
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_MAX);
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(CONNECTION_WINDOW.into())
        .mtu_discovery_config(Some(discovery))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(256));
    Arc::new(transport)
}

/// An endpoint for one outgoing connection to `peer`.
pub(crate) fn client_endpoint(peer: SocketAddr) -> Result<Endpoint> {
    let local: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    endpoint(local, EndpointConfig::default(), None).context("opening a UDP socket")
}

/// An endpoint that takes connections at `listen`.
pub(crate) fn server_endpoint(
    server: ServerConfig,
    listen: SocketAddr,
    key: &ResetKey,
) -> Result<Endpoint> {
    endpoint(listen, key.config(), Some(server))
        .with_context(|| format!("listening at UDP {listen}"))
}

/// What lets a target that was restarted tell agents that their connections are no more: the keys
/// of its stateless resets and of its connection identifiers, the same in each of its lives.
pub(crate) struct ResetKey(Zeroizing<[u8; Self::LEN]>);

impl ResetKey {
    const RESETS: usize = 64;
    const LEN: usize = Self::RESETS + 8;

    /// Reads the key at `path`; the first time, makes one.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let reading = || format!("reading {}", path.display());
        match std::fs::read(path).map(Zeroizing::new) {
            Ok(bytes) => {
                let key = bytes.as_slice().try_into().context("not a key of 72 bytes");
                Ok(Self(Zeroizing::new(key.with_context(reading)?)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = Self(Zeroizing::new(random_bytes()?));
                write_private(path, key.0.as_slice())?;
                Ok(key)
            }
            Err(error) => Err(error).with_context(reading),
        }
    }

    fn config(&self) -> EndpointConfig {
        let (resets, identifiers) = self.0.split_at(Self::RESETS);
        let identifiers = identifiers.try_into().expect("eight bytes are left");
        let identifiers = u64::from_le_bytes(identifiers);
        let resets = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, resets);
        let mut config = EndpointConfig::new(Arc::new(resets));
        // A packet whose identifier is none of ours is not answered; hence the same key for them.
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(identifiers)));
        config
    }
}

fn endpoint(
    local: SocketAddr,
    mut config: EndpointConfig,
    server: Option<ServerConfig>,
) -> Result<Endpoint> {
    let socket = UdpSocket::bind(local)?;
    // Past the system's limit where the privilege is there, else up to it: slower is no error.
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER);
    }
    if setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        let _ = setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER);
    }
    config.max_udp_payload_size(DATAGRAM_MAX).context("the largest datagram")?;
    Ok(Endpoint::new(config, server, socket, Arc::new(TokioRuntime))?)
}
