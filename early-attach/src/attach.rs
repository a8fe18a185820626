//! All of it, in the order that the proof needs.
//!
//! | step | why in this place |
//! |---|---|
//! | find the closed records, and the disks they are of | what finds nothing has changed nothing |
//! | attach the programs, add the disks | from here on every write is marked |
//! | statistics: nothing was written since this kernel met the disk | after attaching, so that no write is between the two |
//! | fingerprints are as they were at the closing | nothing was written before this kernel, as far as that tells |
//! | take the records: overwrite them, durably | a boot that comes to nothing leaves no log that a later one believes |
//! | keep the numbers beside the bitmaps | the agent believes the log that has the number, and none else |
//!
//! A disk that fails at a step is let go. A crash anywhere leaves nothing in the kernel, and a record
//! that is closed as it was, or taken.

use std::{fs, io, path::Path};

use blocks::DiskId;
use ebpf_object::{
    device::{Device, Direct, DiskClass, DiskStatistics, probe, whole_disks, writes_in_flight},
    meta::Arrival,
    pins::DirectoryError,
    spec::DiskSpec,
};
use tracker::last::{LastRecord, LastState, Plan, PlannedRecord, RECORD_LEN};

use crate::{
    disk::{AddError, Added},
    load::{LoadError, Loaded},
};

/// Nothing was attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The disks of this machine could not be listed.
    #[error("listing the disks")]
    Disks(#[source] io::Error),
    /// The kernel does not say which boot this is.
    #[error("the identity of this boot")]
    Boot(#[source] io::Error),
    /// The programs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The pins of what was attached in vain.
    #[error(transparent)]
    Pins(#[from] DirectoryError),
}

/// Why the log of a disk is of no use: the disk will be compared.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No disk has a record of it that was closed.
    #[error("its log was not closed by an orderly stop, or is not where it was")]
    NotClosed,
    /// Several have.
    #[error("several disks hold its log")]
    ManyLogs,
    /// No disk is as the one that it is of was at the closing.
    #[error("no disk is as it was when its log was closed")]
    NoDisk,
    /// Several are.
    #[error("several disks are as it was")]
    ManyDisks,
    /// It could not be tracked.
    #[error("it can't be tracked")]
    Add(#[from] AddError),
    /// It was written in this boot already.
    #[error("it was written since this kernel has met it")]
    Written,
    /// Its fingerprint is another, now that it is tracked.
    #[error("it changed while it was attached")]
    Changed,
    /// The kernel does not keep statistics of it, or could not be asked.
    #[error("its statistics")]
    Statistics(#[source] io::Error),
    /// The record could not be overwritten.
    #[error("taking its log")]
    Take(#[source] io::Error),
}

/// What became of one disk.
#[derive(Debug)]
pub struct Outcome {
    /// The disk.
    pub disk: DiskId,
    /// Its name, if it is tracked and its log taken; otherwise why not.
    pub result: Result<String, Refusal>,
}

/// A closed record, and where it lies.
struct Found {
    holder: Device,
    at: u64,
    record: LastRecord,
    device: Device,
}

/// Attaches what the plan names, with pins in `directory`. Loads nothing if no log was closed.
///
/// # Errors
/// If nothing could be attached at all.
pub fn attach(plan: &Plan, directory: &Path) -> Result<Vec<Outcome>, AttachError> {
    let devices = devices().map_err(AttachError::Disks)?;
    let boot = boot_id().map_err(AttachError::Boot)?;
    let found: Vec<_> = plan.0.iter().map(|place| (place.disk, find(*place, &devices))).collect();
    if found.iter().all(|(_, found)| found.is_err()) {
        return Ok(outcomes(
            found.into_iter().map(|(disk, found)| (disk, found.map(|_| String::new()))),
        ));
    }
    let found_disks = found.iter().flat_map(|(_, found)| found);
    let classes: Vec<DiskClass> = found_disks.map(|found| found.device.class).collect();
    let mut loaded = Loaded::load(directory, &classes)?;
    // All are attached and looked at before a record is taken: that is a write, to one of them.
    let mut attached = Vec::new();
    for (disk, found) in found {
        let result = found.and_then(|found| {
            let added = add(&mut loaded, &found)?;
            Ok((found, added))
        });
        attached.push((disk, result));
    }
    let mut results = Vec::new();
    for (disk, result) in attached {
        let result = match result {
            Ok((found, added)) => take(&mut loaded, found, added, boot)?,
            Err(refusal) => Err(refusal),
        };
        results.push((disk, result));
    }
    if results.iter().all(|(_, result)| result.is_err()) {
        loaded.unload()?;
    }
    Ok(outcomes(results.into_iter()))
}

fn outcomes(results: impl Iterator<Item = (DiskId, Result<String, Refusal>)>) -> Vec<Outcome> {
    results.map(|(disk, result)| Outcome { disk, result }).collect()
}

fn devices() -> io::Result<Vec<Device>> {
    let probed = whole_disks()?.into_iter().map(|name| probe(&Path::new("/dev").join(name)));
    Ok(probed.flatten().collect())
}

fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    // The same digits and dashes as other identities have.
    let id: DiskId = text.trim().replace('-', "").parse().map_err(io::Error::other)?;
    Ok(id.0)
}

/// Finds the closed record of a place, and the disk that it is of.
fn find(place: PlannedRecord, devices: &[Device]) -> Result<Found, Refusal> {
    let closed = devices.iter().filter_map(|holder| {
        let record = read_record(holder, place.at).ok().flatten()?;
        let is_it = record.disk == place.disk && record.state == LastState::Closed;
        is_it.then_some((holder, record))
    });
    let (holder, record) = only(closed, Refusal::NotClosed, Refusal::ManyLogs)?;
    let same = devices.iter().filter(|device| is_as_it_was(device, &record));
    let device = only(same, Refusal::NoDisk, Refusal::ManyDisks)?;
    Ok(Found { holder: holder.clone(), at: place.at, record, device: device.clone() })
}

fn only<T>(mut all: impl Iterator<Item = T>, none: Refusal, many: Refusal) -> Result<T, Refusal> {
    let one = all.next().ok_or(none)?;
    if all.next().is_some() { Err(many) } else { Ok(one) }
}

fn read_record(holder: &Device, at: u64) -> io::Result<Option<LastRecord>> {
    Ok(LastRecord::decode(Direct::to_read(&holder.path)?.read(at, RECORD_LEN)?))
}

fn is_as_it_was(device: &Device, record: &LastRecord) -> bool {
    let geometry = device.geometry(record.geometry.chunk());
    device.class != DiskClass::BioBased
        && geometry.is_ok_and(|geometry| geometry == record.geometry)
        && device.hardware() == record.hardware
        && device.fingerprint().is_ok_and(|found| found == record.fingerprint)
}

/// Tracks a disk, and looks whether it was written before.
fn add(loaded: &mut Loaded, found: &Found) -> Result<Added, Refusal> {
    let device = &found.device;
    let spec = DiskSpec {
        id: found.record.disk,
        generation: found.record.generation,
        number: device.number,
        class: device.class,
        geometry: found.record.geometry,
        sequence: device.sequence,
    };
    let added = loaded.add(&spec)?;
    if let Err(refusal) = untouched(found) {
        // A disk that stays behind is of an unknown past, which its record says.
        let _ = loaded.remove(added);
        return Err(refusal);
    }
    Ok(added)
}

fn untouched(found: &Found) -> Result<(), Refusal> {
    let device = &found.device;
    let kept = device.keeps_statistics().map_err(Refusal::Statistics)?;
    let statistics = device.statistics().map_err(Refusal::Statistics)?;
    let at_work = writes_in_flight(device.number).is_none_or(|writes| writes > 0);
    let DiskStatistics { writes, sectors_written, discards, sectors_discarded, .. } = statistics;
    if !kept || at_work || [writes, sectors_written, discards, sectors_discarded] != [0; 4] {
        return Err(Refusal::Written);
    }
    match device.fingerprint() {
        Ok(now) if now == found.record.fingerprint => Ok(()),
        _ => Err(Refusal::Changed),
    }
}

/// Takes the record of a disk and keeps its number, or lets the disk go.
fn take(
    loaded: &mut Loaded,
    found: Found,
    added: Added,
    boot: [u8; 16],
) -> Result<Result<String, Refusal>, DirectoryError> {
    let Found { holder, at, record, device } = found;
    match overwrite(&holder, at, &record.in_state(LastState::Taken { boot })) {
        Ok(()) => {
            added.meta.arrive(Arrival::Proven(record.closing));
            Ok(Ok(device.name))
        }
        Err(error) => {
            loaded.remove(added)?;
            Ok(Err(Refusal::Take(error)))
        }
    }
}

fn overwrite(holder: &Device, at: u64, record: &LastRecord) -> io::Result<()> {
    let mut disk = Direct::to_write(&holder.path)?;
    disk.write(at, &record.encode())?;
    disk.sync()?;
    let written = LastRecord::decode(disk.read(at, RECORD_LEN)?);
    if written.as_ref() == Some(record) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
