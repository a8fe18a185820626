//! A small server of the NBD protocol, by which a disk that exists here only as an index over
//! deltas is read, or started from, by whatever speaks NBD: QEMU, libnbd, the kernel's client.
//!
//! The room knows nothing of replicas. What it serves is an [`Export`]; what a recovery point's
//! view has to do to be one is the binary's business. `docs/nbd.md` says what is spoken, and what
//! the limits are.
//!
//! - [`negotiation`]: from the first byte to an agreement on one export. Sans-I/O.
//! - [`request`], [`reply`]: the transmission phase, checked and encoded. Sans-I/O.
//! - [`RawFile`]: a disk that is a file. [`Overlay`]: a writable disk over a read-only one, thrown away at the end.
//! - [`Server`]: sockets, threads and limits around all that.
//!
//! Nothing from a client panics, or is allocated for before its length was checked. The content
//! of an export is read by nobody the listener does not admit: a Unix socket of mode 0600, a
//! loopback address, or TLS with certificates on both sides.

mod export;
mod io;
mod layout;
pub mod negotiation;
mod numbers;
mod overlay;
mod raw_file;
pub mod reply;
pub mod request;
mod sparse;

pub use export::{BLOCK_PREFERRED, Content, Export, Run, Writable, Zeroing};
pub use io::{BindError, Limits, Listen, Listener, NamedExport, Server, Tls, TlsError};
pub use overlay::{Overlay, OverlayError};
pub use raw_file::RawFile;

/// Bytes that one request may read or write at most, and the largest allocation a client can
/// cause: 32 MiB, which every client may count on.
pub const PAYLOAD_MAX: u32 = 32 << 20;
