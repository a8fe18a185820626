//! The server on real sockets, with clients that nobody here wrote: libnbd's `nbdinfo`, `nbdcopy`
//! and `nbdsh`, QEMU's `qemu-img` and `qemu-io`; and with clients that mean no good.
#![allow(clippy::unwrap_used, reason = "tests")]

mod hostile;
mod limits;
mod listening;
mod odd_requests;
mod reading;
mod rig;
mod tls;
mod writing;
