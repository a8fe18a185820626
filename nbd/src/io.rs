//! Sockets and threads around the pure part.
//!
//! One thread accepts. Each connection has a thread that reads requests and a few that carry them
//! out, so that several are under way at once; replies go out in the order in which they are ready.

mod budget;
mod channel;
mod connection;
mod listen;
mod server;
mod socket;
mod tls;
mod work;

pub use listen::{BindError, Listen, Listener};
pub use server::{Limits, NamedExport, Server};
pub use tls::{Tls, TlsError};
