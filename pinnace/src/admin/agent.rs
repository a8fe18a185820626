//! What the agent is asked, and how it answers. The types are the `--json` output as well.

use std::path::PathBuf;

use blocks::{CutTime, PointRecord};
use serde::{Deserialize, Serialize};

use crate::agent::{Difference, Estimate};

/// A request to the agent.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Status,
    Protect {
        path: PathBuf,
        only_check: bool,
    },
    Unprotect {
        disk: String,
    },
    Pause {
        disk: Option<String>,
    },
    /// Ship again, and try again at once what failed or was refused.
    Resume {
        disk: Option<String>,
    },
    /// Make the replica what the disk is, although it holds something of its own.
    DiscardTarget {
        disk: String,
    },
    /// Try the connection again at once, and what was refused on it.
    Retry,
    /// Compare a disk with its replica: now, or in the window of comparisons.
    Resync {
        disk: String,
        now: bool,
    },
    /// Hold a disk against its replica, reading so many bytes a second.
    Verify {
        disk: String,
        rate_bytes: u64,
    },
    /// Say what a comparison would amount to.
    EstimateResync {
        disk: String,
    },
    /// Make a recovery point now; the answer comes when it is durable.
    CreatePoint {
        app_consistent: bool,
    },
}

/// The agent's answer; which one depends on the request.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Response {
    Status(Status),
    /// What was done, in words.
    Done(String),
    /// The point that was made.
    Point(PointMade),
    /// What a comparison would amount to.
    Estimate(Estimate),
}

/// The agent as a whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Status {
    pub(crate) machine: String,
    pub(crate) target: Option<String>,
    pub(crate) link: LinkStatus,
    pub(crate) disks: Vec<DiskStatus>,
    /// What is wrong beside them, in words.
    pub(crate) problems: Vec<String>,
    /// Resident memory of the agent, in bytes.
    pub(crate) memory_bytes: u64,
    pub(crate) points: PointsStatus,
    /// Datagrams of the connection to the target, since the agent started.
    pub(crate) link_bytes: LinkBytes,
}

/// Bytes of datagrams, headers of UDP and IP not counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct LinkBytes {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// The connection to the target.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub(crate) enum LinkStatus {
    NotEnrolled,
    Connecting {
        last_error: Option<String>,
        /// When it is tried again.
        next_attempt: Option<jiff::Timestamp>,
    },
    Connected {
        since: jiff::Timestamp,
    },
    /// Retrying is useless until a person has acted.
    Refused {
        reason: String,
    },
}

impl std::fmt::Display for LinkStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotEnrolled => f.write_str("not enrolled"),
            Self::Connecting { last_error: None, .. } => f.write_str("connecting"),
            Self::Connecting { last_error: Some(error), next_attempt } => {
                write!(f, "retrying: {error}")?;
                next_attempt.map_or(Ok(()), |at| write!(f, ", next at {at:.0}"))
            }
            Self::Connected { since } => write!(f, "connected since {since:.0}"),
            Self::Refused { reason } => write!(f, "refused: {reason}"),
        }
    }
}

/// One protected disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct DiskStatus {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) id: String,
    pub(crate) generation: String,
    pub(crate) class: String,
    pub(crate) size_bytes: u64,
    pub(crate) chunk_bytes: u64,
    pub(crate) state: DiskState,
    /// Since when it is in that state.
    pub(crate) since: jiff::Timestamp,
    /// Why the state is not green, and what to do.
    pub(crate) reason: Option<String>,
    /// The comparison that is due or under way.
    pub(crate) resync: Option<ResyncStatus>,
    /// The last verification.
    pub(crate) verify: Option<VerifyStatus>,
    /// Blocks drawn at random that did not differ, since the agent started, or since a comparison
    /// or a difference; and the share of all blocks that may differ all the same, with a
    /// confidence of 95 %.
    pub(crate) sampled_blocks: u64,
    pub(crate) divergence_max: f64,
    /// What it has found, and nobody has sent yet.
    pub(crate) difference: Option<Difference>,
    /// How long initial replication or comparison will still take, at the pace so far.
    pub(crate) remaining_seconds: Option<f64>,
    /// The age of the oldest write that the replica lacks.
    pub(crate) rpo_seconds: f64,
    /// How old it may be.
    pub(crate) objective_seconds: f64,
    /// Marked and not yet sent.
    pub(crate) dirty_bytes: u64,
    /// Sent and not yet durable on the target.
    pub(crate) in_flight_bytes: u64,
    /// Bytes a second read for the replica, over the last epoch.
    pub(crate) rate_bytes: u64,
    pub(crate) epoch: u64,
    pub(crate) last_durable: Option<jiff::Timestamp>,
    pub(crate) sent: SentBytes,
    pub(crate) tracking: TrackingStatus,
    pub(crate) ack_latency: Option<Latency>,
    /// The newest recovery point that the target holds of it.
    pub(crate) last_point: Option<PointMade>,
}

/// A comparison that is due or under way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct ResyncStatus {
    /// The reason's name for machines.
    pub(crate) reason: String,
    /// The reason in words.
    pub(crate) detail: String,
    pub(crate) since: jiff::Timestamp,
    /// When it began, if it has.
    pub(crate) begun: Option<jiff::Timestamp>,
    /// The window in which it may begin.
    pub(crate) window: String,
    /// When it begins at the latest, if it waits for the window and that opens.
    pub(crate) begins: Option<jiff::Timestamp>,
}

/// A verification under way, or the last one.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct VerifyStatus {
    pub(crate) phase: VerifyPhase,
    pub(crate) began: jiff::Timestamp,
    pub(crate) ended: Option<jiff::Timestamp>,
    /// Bytes of the disk that were looked at.
    pub(crate) bytes: u64,
    pub(crate) of_bytes: u64,
    pub(crate) differing_bytes: u64,
    /// Bytes that were dirty whenever they were looked at.
    pub(crate) unsettled_bytes: u64,
    pub(crate) error: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerifyPhase {
    Running,
    Done,
    Failed,
}

/// A recovery point that is durable.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct PointMade {
    pub(crate) id: String,
    pub(crate) cut: Option<jiff::Timestamp>,
    /// As `CLOCK_MONOTONIC` of this boot has it, in nanoseconds.
    pub(crate) cut_monotonic_ns: u64,
    pub(crate) consistency: String,
    pub(crate) method: String,
    pub(crate) attempts: u32,
    pub(crate) window_seconds: f64,
    pub(crate) freeze_seconds: f64,
    /// Whether the counters have proven since that nothing was missed.
    pub(crate) confirmed: bool,
    /// The names of its disks, where they are told.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) disks: Vec<String>,
}

/// What the recovery points of this machine amounted to, since the agent started.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct PointsStatus {
    pub(crate) made: u64,
    pub(crate) refused: u64,
    pub(crate) retracted: u64,
    pub(crate) newest: Option<jiff::Timestamp>,
    /// From the instant of a cut to the last look at what was written meanwhile.
    pub(crate) window: Option<Latency>,
    /// How long file systems stood still.
    pub(crate) freeze: Option<Latency>,
    pub(crate) attempts_p50: u64,
    pub(crate) attempts_max: u64,
    /// Why the newest point that was due was not made, if it was not.
    pub(crate) last_refusal: Option<Refusal>,
    pub(crate) last_retraction: Option<Refusal>,
    /// What the hooks of the last application-consistent point printed.
    pub(crate) hooks: Vec<String>,
}

/// Why there is no point.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Refusal {
    pub(crate) at: jiff::Timestamp,
    pub(crate) reason: String,
}

impl PointMade {
    pub(crate) fn new(record: &PointRecord, disks: Vec<String>) -> Self {
        Self {
            id: record.id.to_string(),
            cut: Self::time(record.cut),
            cut_monotonic_ns: record.cut.monotonic.0,
            consistency: record.consistency.to_string(),
            method: record.method.to_string(),
            attempts: record.attempts,
            window_seconds: record.window.as_secs_f64(),
            freeze_seconds: record.freeze.as_secs_f64(),
            confirmed: false,
            disks,
        }
    }

    /// A cut as people read it; nothing where the clock was out of all bounds.
    pub(crate) fn time(cut: CutTime) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_nanosecond(cut.unix_ns.into()).ok()
    }
}

impl Refusal {
    pub(crate) fn new(reason: &str) -> Self {
        Self { at: jiff::Timestamp::now(), reason: reason.to_owned() }
    }
}

/// Totals since the agent started.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct SentBytes {
    /// Read from the disk for the replica.
    pub(crate) raw: u64,
    /// Of that, zeroes: not sent as data.
    pub(crate) zero: u64,
    /// Of that, equal on the replica according to its hashes: not sent.
    pub(crate) equal: u64,
    /// What was sent, with headers.
    pub(crate) wire: u64,
    /// Epochs acknowledged.
    pub(crate) epochs: u64,
}

/// What the programs in the kernel report.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct TrackingStatus {
    pub(crate) writes: u64,
    pub(crate) bytes: u64,
    pub(crate) ring_lost: u64,
    pub(crate) gaps: u64,
}

/// From seal to durable acknowledgement, in seconds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Where a disk stands.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DiskState {
    InitialReplication { percent: u8 },
    Protected,
    Lagging,
    ResyncRequired,
    Resynchronising { percent: u8 },
    Paused,
    Critical,
}

impl DiskState {
    /// Its name for machines.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::InitialReplication { .. } => "initial_replication",
            Self::Protected => "protected",
            Self::Lagging => "lagging",
            Self::ResyncRequired => "resync_required",
            Self::Resynchronising { .. } => "resynchronising",
            Self::Paused => "paused",
            Self::Critical => "critical",
        }
    }
}

impl std::fmt::Display for DiskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InitialReplication { percent } => write!(f, "Initial replication {percent}%"),
            Self::Protected => f.write_str("Protected"),
            Self::Lagging => f.write_str("Lagging"),
            Self::ResyncRequired => f.write_str("Resync required"),
            Self::Resynchronising { percent } => write!(f, "Resynchronising {percent}%"),
            Self::Paused => f.write_str("Paused"),
            Self::Critical => f.write_str("Critical"),
        }
    }
}
