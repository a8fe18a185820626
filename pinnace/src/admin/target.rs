//! What the target is asked, and how it answers. The types are the `--json` output as well.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A request to the target.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Status,
    CreateToken {
        ttl_seconds: u64,
        uses: u32,
    },
    ListTokens,
    RevokeToken {
        id: String,
    },
    /// Sets a block device aside as the replica of a disk that is to be protected.
    Assign {
        machine: String,
        disk: String,
        device: PathBuf,
    },
}

/// The target's answer; which one depends on the request.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    Status(Status),
    Token { token: String, id: String, expires: jiff::Timestamp },
    Tokens(Vec<TokenStatus>),
    Done(String),
}

/// The target as a whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Status {
    pub(crate) target: String,
    pub(crate) store: PathBuf,
    pub(crate) listen: String,
    pub(crate) used_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) disks: Vec<ReplicaStatus>,
}

/// One replica disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ReplicaStatus {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) machine: String,
    pub(crate) size_bytes: u64,
    pub(crate) state: String,
    pub(crate) epoch: u64,
    pub(crate) connected: bool,
    pub(crate) base: PathBuf,
}

/// One enrolment token; never its secret.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct TokenStatus {
    pub(crate) id: String,
    pub(crate) expires: jiff::Timestamp,
    pub(crate) uses_left: u32,
}
