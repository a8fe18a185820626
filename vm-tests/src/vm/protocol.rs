//! What host and guest say to each other over the guest's second serial port: JSON, a line each.
//!
//! The guest says [`Reply::Ready`] once; then each [`Request`] gets one [`Reply::Ended`]. A serial
//! port is slow and synchronous: what has been said has left the guest, whatever becomes of it next.

use serde::{Deserialize, Serialize};

/// A command to run in the guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// After so many seconds it is killed.
    pub limit_s: u64,
}

/// What the guest says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is up, and waits for requests.
    Ready {
        /// The release of its kernel.
        release: String,
    },
    /// A command ended.
    Ended(Ended),
}

/// How a command ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit code; nothing if it was killed.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}
