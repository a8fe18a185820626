//! The QUIC settings that both ends share.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};

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
    endpoint(local, None).context("opening a UDP socket")
}

/// An endpoint that takes connections at `listen`.
pub(crate) fn server_endpoint(server: ServerConfig, listen: SocketAddr) -> Result<Endpoint> {
    endpoint(listen, Some(server)).with_context(|| format!("listening at UDP {listen}"))
}

fn endpoint(local: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = UdpSocket::bind(local)?;
    // Past the system's limit where the privilege is there, else up to it: slower is no error.
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER);
    }
    if setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        let _ = setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER);
    }
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(DATAGRAM_MAX).context("the largest datagram")?;
    Ok(Endpoint::new(config, server, socket, Arc::new(TokioRuntime))?)
}
