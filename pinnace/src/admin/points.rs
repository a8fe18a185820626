//! Recovery points, as the target is asked for them and as it describes them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A request about recovery points.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PointRequest {
    /// All points, oldest first.
    List { machine: Option<String> },
    /// One point.
    Show { which: Which },
    /// Keeps a point, whatever the policy says, or no longer.
    Pin { which: Which, pin: bool },
    /// Reads all of a point, or of one disk of it.
    Verify { which: Which, disk: Option<String> },
    /// Writes the content of a disk at a point into the file that comes with the request.
    Export { which: Which, disk: String },
    /// Serves a disk at a point over NBD, on the listening socket that comes with the request, for
    /// as long as the connection of the request lives.
    Serve { which: Which, disk: String, writable: bool },
    /// What the policy would drop now.
    PlanPrune,
}

/// The answer to a request about points.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PointResponse {
    Points(Vec<PointStatus>),
    Point(Box<PointStatus>),
    Verified(Verification),
    Exported { written_bytes: u64, size_bytes: u64 },
    Serving { point: Box<PointStatus>, disk: String, size_bytes: u64 },
    Prune(PrunePlan),
    Done(String),
}

/// How a point is meant on the command line.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Which {
    /// `latest`, `latest-app`, a time, or the first digits of an identity.
    pub(crate) point: String,
    /// The first digits of a machine's identity; needed where several have points.
    pub(crate) machine: Option<String>,
    /// A point that was retracted will do.
    pub(crate) retracted: bool,
}

/// A recovery point.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct PointStatus {
    pub(crate) id: String,
    pub(crate) machine: String,
    /// The instant whose content it holds, by the clock of its source.
    pub(crate) time: jiff::Timestamp,
    pub(crate) kind: PointKind,
    /// How it was made one instant.
    pub(crate) method: String,
    /// From the instant to the last look at what was written meanwhile.
    pub(crate) window_seconds: f64,
    /// How long the application stood still for it.
    pub(crate) freeze_seconds: f64,
    pub(crate) attempts: u32,
    pub(crate) state: PointState,
    /// Why it was retracted, if it was.
    pub(crate) reason: Option<String>,
    pub(crate) pinned: bool,
    /// Whether somebody reads it now.
    pub(crate) in_use: bool,
    /// How many disks it has; it is whole when so many are in `disks`.
    pub(crate) disk_count: u16,
    pub(crate) disks: Vec<PointDisk>,
    /// What the deltas of its disks take.
    pub(crate) delta_bytes: u64,
}

/// What an application finds when it starts from a point.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PointKind {
    Crash,
    Filesystem,
    Application,
}

/// What a point is worth.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PointState {
    /// Not all of its disks have arrived.
    Incomplete,
    /// The cross-check has not had its say yet.
    Provisional,
    Confirmed,
    /// It is not one instant after all, or may not be.
    Retracted,
}

/// A disk of a point.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct PointDisk {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) epoch: u64,
    /// What its delta takes; nothing if the base is the point.
    pub(crate) delta_bytes: u64,
}

/// What reading a point came to.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Verification {
    pub(crate) point: String,
    pub(crate) disks: usize,
    /// What was read; holes need no reading.
    pub(crate) read_bytes: u64,
    pub(crate) damaged_bytes: u64,
    /// The first places that can't be read.
    pub(crate) damage: Vec<Damage>,
}

/// A place of a point that can't be read.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Damage {
    pub(crate) disk: String,
    pub(crate) bytes: Range<u64>,
    pub(crate) reason: String,
}

/// What the policy would drop.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct PrunePlan {
    pub(crate) ladder: String,
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) kept: usize,
    /// What the deltas of all points take.
    pub(crate) history_bytes: u64,
    pub(crate) dropped: Vec<Dropped>,
    /// At most this much is freed: content that a later point still shows moves into it.
    pub(crate) freed_bytes_max: u64,
}

/// A point that the policy would drop.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Dropped {
    pub(crate) point: PointStatus,
    pub(crate) reason: String,
}
