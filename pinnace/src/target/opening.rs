//! Opening a replica for an agent, and the wire's words for what can go wrong with a store.
//!
//! Whether source and replica belong together is for [`control::generations`] to judge; here its
//! verdict is asked for while the store keeps everybody else out, and put into words.

use std::path::Path;
use std::time::{Duration, Instant};

use blocks::{Claim, DiskId, Generation, Lineage, MachineId, Ticket};
use control::generations::{Content, Refusal, ReplicaSide, Role, SourceSide, Verdict, judge};
use replica::{
    Admission, AdmitError, Admitted, AttachError, Completeness, ContentError, DiskSpec,
    FailureClass, IncomingError, OpenDiskError, ReplicaOrigin, ReplicaRole, SourceOrigin, Store,
};
use wire::message::{OpenDisk, Origin};
use wire::{CloseCode, Reason};

use super::connection::Holdings;
use crate::causes::with_causes;
use crate::identity::random_bytes;

/// How long the last connection of the same agent may take to let go of a disk.
const LET_GO: Duration = Duration::from_secs(5);

/// Why a replica is not opened.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: CloseCode,
    pub(super) detail: String,
    /// The line that the replica is in, if it is for a person to decide.
    pub(super) replica: Option<Generation>,
}

impl From<(CloseCode, String)> for Refused {
    fn from((code, detail): (CloseCode, String)) -> Self {
        Self { code, detail, replica: None }
    }
}

/// Opens or creates the replica that `open` asks for. Blocks.
pub(super) fn open(
    holdings: &Holdings,
    machine: MachineId,
    open: OpenDisk,
) -> Result<Admitted, Refused> {
    let spec = DiskSpec {
        id: open.disk,
        generation: open.generation,
        geometry: open.geometry,
        name: open.name.as_str().to_owned(),
        machine,
        key: open.key,
    };
    if spec.geometry.len() > holdings.disk_size_max {
        let detail =
            format!("{} (disk_size_max is {})", spec.geometry.len(), holdings.disk_size_max);
        return Err((Reason::DiskTooLarge.into(), detail).into());
    }
    let assigned = holdings.assignments.device_for(machine, &spec.name);
    if let Some(device) = &assigned {
        attach(&holdings.store, spec.id, device)?;
    }
    let disk = open_spec(&holdings.store, &spec, &open.origin)?;
    if assigned.is_some()
        && let Err(error) = holdings.assignments.use_up(machine, &spec.name)
    {
        tracing::warn!(DISK = %spec.id, "an assignment stays on record: {error:#}");
    }
    Ok(disk)
}

/// Makes a device the base of a disk that has none yet.
fn attach(store: &Store, id: DiskId, device: &Path) -> Result<(), (CloseCode, String)> {
    match store.attach_base(id, device) {
        Ok(()) | Err(AttachError::DiskExists(_)) => Ok(()),
        Err(error) => Err((Reason::DeviceUnusable.into(), with_causes(&error))),
    }
}

fn open_spec(store: &Store, spec: &DiskSpec, said: &Origin) -> Result<Admitted, Refused> {
    let malformed = |error: &dyn std::error::Error| {
        Refused::from((Reason::ProtocolViolation.into(), error.to_string()))
    };
    let lineage =
        Lineage::new(spec.generation, said.past.clone()).map_err(|error| malformed(&error))?;
    let secret = random_bytes()
        .map_err(|error| Refused::from((Reason::StoreFailed.into(), format!("{error:#}"))))?;
    let origin = SourceOrigin { lineage, ticket: said.claim.ticket, secret };
    let deadline = Instant::now() + LET_GO;
    loop {
        let judged = |found: &ReplicaOrigin| admission(spec, said, &origin.lineage, found);
        match store.admit(spec, &origin, judged) {
            Err(AdmitError::Open(OpenDiskError::Busy(_))) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(AdmitError::Open(error)) => {
                return Err((open_code(&error), with_causes(&error)).into());
            }
            Err(AdmitError::Refused(refused)) => return Err(refused),
            Ok(admitted) => return Ok(admitted),
        }
    }
}

/// How the source is let in, if it is.
fn admission(
    spec: &DiskSpec,
    said: &Origin,
    lineage: &Lineage,
    found: &ReplicaOrigin,
) -> Result<Admission, Refused> {
    let source = SourceSide {
        lineage,
        acked: said.acked,
        has_changed: said.has_changed,
        discard: said.discard,
    };
    let durable = found.state.last_durable;
    let replica = ReplicaSide {
        lineage: &found.lineage,
        durable,
        content: match found.state.completeness {
            Completeness::Empty => Content::Nothing,
            Completeness::Partial => Content::Part,
            Completeness::Follows => Content::Whole,
        },
        role: match found.role {
            ReplicaRole::Follower => Role::Follower,
            ReplicaRole::Promoted => Role::Promoted,
        },
        shown: found.tickets.judge(said.claim, durable),
    };
    let verdict = judge(&source, &replica);
    tracing::info!(DISK = %spec.id, ?verdict, "source and replica meet");
    match verdict {
        Verdict::Seed | Verdict::GoOn | Verdict::NothingToDo | Verdict::Delta => {
            Ok(Admission::GoOn)
        }
        Verdict::Resync(_) => Ok(Admission::Compare),
        Verdict::Refuse(why) => Err(Refused {
            code: refusal_code(why),
            detail: facts(why, said, found),
            replica: Some(found.lineage.current()),
        }),
    }
}

fn refusal_code(why: Refusal) -> CloseCode {
    CloseCode::from(match why {
        Refusal::Fenced { .. } => Reason::ReplicaPromoted,
        Refusal::SplitBrain { .. } => Reason::SplitBrain,
        Refusal::AnotherSource => Reason::AnotherSource,
        Refusal::Unrelated => Reason::GenerationMismatch,
    })
}

/// What a person must know to decide, as a sentence.
fn facts(why: Refusal, said: &Origin, found: &ReplicaOrigin) -> String {
    let (durable, line) = (found.state.last_durable, short(found.lineage.current()));
    let role = match found.role {
        ReplicaRole::Follower => "follows another line",
        ReplicaRole::Promoted => "was promoted",
    };
    let changed = if said.has_changed { "it holds writes since" } else { "nothing is dirty there" };
    match why {
        Refusal::Fenced { since } => format!(
            "They were one up to epoch {since}; the replica {role} then and is at epoch {durable} of \
             line {line}. The source holds nothing that the replica lacks."
        ),
        Refusal::SplitBrain { since } => format!(
            "They were one up to epoch {since}; the replica {role} then and is at epoch {durable} of \
             line {line}, the source knows of epoch {} and {changed}.",
            said.acked
        ),
        Refusal::AnotherSource => {
            let Claim { ticket: Ticket { number, .. }, sealed } = said.claim;
            let sealed = sealed.map_or_else(String::new, |sealed| {
                format!(", and this source has sealed none after {sealed}")
            });
            format!(
                "The replica was opened {} times, this source was there at the {number}th; the \
                 replica is at epoch {durable}{sealed}.",
                found.tickets.last.number
            )
        }
        Refusal::Unrelated => {
            format!(
                "They have no line in common; the replica is at epoch {durable} of line {line}."
            )
        }
    }
}

/// As much of a line's name as tells it from others for people.
fn short(line: Generation) -> String {
    line.to_string()[..8].to_owned()
}

fn open_code(error: &OpenDiskError) -> CloseCode {
    match error {
        OpenDiskError::Busy(_) => Reason::DiskBusy.into(),
        OpenDiskError::OtherMachine(_) => Reason::NotAuthorised.into(),
        OpenDiskError::GenerationMismatch { .. } => Reason::GenerationMismatch.into(),
        OpenDiskError::Promoted => Reason::ReplicaPromoted.into(),
        OpenDiskError::GeometryChanged { .. } => Reason::GeometryChanged.into(),
        OpenDiskError::ReplicaTooSmall { .. } => Reason::ReplicaTooSmall.into(),
        other => code(other.class()),
    }
}

/// The reason that an epoch which was not taken in has on the wire. What the source can't mend by
/// sending it again is permanent.
pub(super) fn incoming_code(error: &IncomingError) -> CloseCode {
    match error {
        IncomingError::End(_) | IncomingError::Content(ContentError::Open(_)) => {
            Reason::NotAuthentic.into()
        }
        IncomingError::Foreign { .. }
        | IncomingError::Chain(_)
        | IncomingError::TooManyFrames
        | IncomingError::TooManyExtents
        | IncomingError::PointOfNothing
        | IncomingError::Content(ContentError::Coding(_) | ContentError::PastEnd) => {
            Reason::ProtocolViolation.into()
        }
        other => code(other.class()),
    }
}

/// The reason that a class of the store's failures has on the wire.
pub(super) fn code(class: FailureClass) -> CloseCode {
    CloseCode::from(match class {
        FailureClass::StoreFull => Reason::StoreFull,
        FailureClass::StoreFailed => Reason::StoreFailed,
        FailureClass::Corrupt => Reason::ReplicaInvalid,
        FailureClass::Refused => Reason::EpochOutOfOrder,
    })
}

/// What to answer when a thread of our own has died.
pub(super) fn broken(error: &tokio::task::JoinError) -> (CloseCode, String) {
    (Reason::StoreFailed.into(), error.to_string())
}
