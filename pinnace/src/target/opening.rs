//! Opening a replica for an agent, and the wire's words for what can go wrong with a store.

use std::path::Path;
use std::time::{Duration, Instant};

use blocks::{DiskId, MachineId};
use replica::{
    AttachError, ContentError, Disk, DiskSpec, FailureClass, IncomingError, OpenDiskError, Store,
};
use wire::message::OpenDisk;
use wire::{CloseCode, Reason};

use super::connection::Holdings;
use crate::causes::with_causes;

/// How long the last connection of the same agent may take to let go of a disk.
const LET_GO: Duration = Duration::from_secs(5);

/// Opens or creates the replica that `open` asks for. Blocks.
pub(super) fn open(
    holdings: &Holdings,
    machine: MachineId,
    open: OpenDisk,
) -> Result<Disk, (CloseCode, String)> {
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
        return Err((Reason::DiskTooLarge.into(), detail));
    }
    let assigned = holdings.assignments.device_for(machine, &spec.name);
    if let Some(device) = &assigned {
        attach(&holdings.store, spec.id, device)?;
    }
    let disk = open_spec(&holdings.store, &spec)?;
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

fn open_spec(store: &Store, spec: &DiskSpec) -> Result<Disk, (CloseCode, String)> {
    let deadline = Instant::now() + LET_GO;
    loop {
        match store.open_disk(spec) {
            Err(OpenDiskError::Busy(_)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => return Err((open_code(&error), with_causes(&error))),
            Ok(disk) => return Ok(disk),
        }
    }
}

fn open_code(error: &OpenDiskError) -> CloseCode {
    match error {
        OpenDiskError::Busy(_) => Reason::DiskBusy.into(),
        OpenDiskError::OtherMachine(_) => Reason::NotAuthorised.into(),
        OpenDiskError::GenerationMismatch { .. } => Reason::GenerationMismatch.into(),
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
