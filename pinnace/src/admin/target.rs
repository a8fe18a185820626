//! What the target is asked, and how it answers. The types are the `--json` output as well.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::points::{PointRequest, PointResponse};

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
    /// Makes a replica a disk of its own.
    Promote {
        disk: String,
    },
    Point(PointRequest),
}

/// The target's answer; which one depends on the request.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    Status(Status),
    Token { token: String, id: String, expires: jiff::Timestamp },
    Tokens(Vec<TokenStatus>),
    Point(PointResponse),
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
    pub(crate) history: HistoryStatus,
    pub(crate) disks: Vec<ReplicaStatus>,
}

/// The recovery points of all machines, as a whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct HistoryStatus {
    pub(crate) points: usize,
    pub(crate) oldest: Option<jiff::Timestamp>,
    pub(crate) newest: Option<jiff::Timestamp>,
    /// What deltas take.
    pub(crate) bytes: u64,
    pub(crate) quota_bytes: Option<u64>,
    /// How points are thinned out, as in the configuration.
    pub(crate) ladder: String,
    /// Why room is short, or what keeps the policy from being carried out.
    pub(crate) note: Option<String>,
}

/// One replica disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ReplicaStatus {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) machine: String,
    pub(crate) size_bytes: u64,
    pub(crate) state: String,
    /// The line of history that it is in.
    pub(crate) generation: String,
    pub(crate) promoted: bool,
    pub(crate) epoch: u64,
    pub(crate) connected: bool,
    pub(crate) base: PathBuf,
    /// What verifying it at rest has come to; nothing before that has begun.
    pub(crate) scrub: Option<ScrubStatus>,
}

/// What verifying a replica at rest has come to.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct ScrubStatus {
    pub(crate) running: bool,
    /// When the pass under way began.
    pub(crate) began: Option<jiff::Timestamp>,
    /// When the last whole pass ended.
    pub(crate) ended: Option<jiff::Timestamp>,
    /// What the pass under way, or else the last one, has read.
    pub(crate) read_bytes: u64,
    /// What did not verify.
    pub(crate) damage: Vec<DamageStatus>,
}

/// Something at rest that did not verify.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct DamageStatus {
    /// What it is, and what is wrong with it.
    pub(crate) part: String,
    /// The points that are lost by it.
    pub(crate) points: Vec<String>,
}

/// One enrolment token; never its secret.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct TokenStatus {
    pub(crate) id: String,
    pub(crate) expires: jiff::Timestamp,
    pub(crate) uses_left: u32,
}
