//! Protecting a disk, taking it up again after a restart, and letting it go.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blocks::{Bitmap, Coverage, DiskId, GapReason, Generation, Geometry};
use control::EpochRetry;
use crossbeam_channel::Sender;
use ebpf::device::Device;
use ebpf::{Arrival, DiskSpec, Programs, TrackedDisk, Tracking};
use shipper::DiskSource;
use tracker::DiskTracker;
use tracker::cut::Heat;
use tracker::hrl::{LogHeader, LogState};
use tracker::last::Boot;
use tracker::start::{Pins, Record, Start, decide};
use wire::DataKey;

use super::clock::now;
use super::core::Core;
use super::disk::{
    Pass, ProtectedDisk, Retry, Sent, Session, begin_at_zero, follow_upgrade, resumed_check,
    resumed_confirmation, resumed_debt,
};
use super::points::DiskPoints;
use super::state::{DiskRecord, Refusal, Standing};
use super::{content, last, own_store, recorded};
use crate::admin::agent::{LinkStatus, Response};
use crate::exit::{Exit, Failure};
use crate::identity::{hex, random_bytes};

/// How long `pinnace protect` waits for the target's verdict before it answers without.
const VERDICT: Duration = Duration::from_secs(20);

/// Whether a protection still waits for the target.
pub(super) enum Started {
    Waiting,
    Done(String),
}

/// A disk that can be protected, in words.
pub(super) fn words(device: &Device) -> String {
    let len = blocks::ByteLen(device.sectors * blocks::SECTOR_SIZE);
    format!("{}: {len}, {}, can be protected", device.name, device.class)
}

/// Finds out whether a disk can be protected. Changes nothing.
pub(super) fn check(core: &Core, path: &Path) -> Result<Device> {
    if core.machine.is_none() {
        let message = "this machine is not enrolled: run `pinnace token create` on the target, \
                       then `pinnace agent enroll` here";
        return Err(Failure::new(Exit::WrongState, message).into());
    }
    if !path.exists() {
        let message = format!("{}: there is no such device", path.display());
        return Err(Failure::new(Exit::NotFound, message).into());
    }
    let device = ebpf::device::probe(path)
        .map_err(|refusal| Failure::new(Exit::Refused, refusal.to_string()))?;
    refuse_partition(path, &device)?;
    if core.disks.values().any(|disk| disk.device.number == device.number) {
        let message = format!("{} is protected already", device.name);
        return Err(Failure::new(Exit::WrongState, message).into());
    }
    if let Some(store) = own_store::on_disk(&device)? {
        let message = format!(
            "{} holds the store of a target or is one of its replica disks ({}): it can't be \
             replicated into itself",
            device.name,
            store.display()
        );
        return Err(Failure::new(Exit::Refused, message).into());
    }
    refuse_shared(&device)?;
    refuse_double(&device)?;
    Ok(device)
}

/// A partition is tracked with its disk, never alone.
fn refuse_partition(path: &Path, disk: &Device) -> Result<()> {
    let found =
        std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    if found.rdev() == disk.number.dev_t() {
        return Ok(());
    }
    let message = format!(
        "{} is a partition; whole disks are protected, here {}",
        path.display(),
        disk.path.display()
    );
    Err(Failure::new(Exit::Refused, message).into())
}

/// A disk that several hosts write to can't be tracked from one of them.
fn refuse_shared(device: &Device) -> Result<()> {
    let Some(kind) = super::content::used_by_several_hosts(&device.path)? else { return Ok(()) };
    let message = format!(
        "{} holds {kind}, which several hosts may write at once: tracking from one of them would \
         miss the others' writes",
        device.name
    );
    Err(Failure::new(Exit::Refused, message).into())
}

/// A disk that can't be told from another can't be found again.
fn refuse_double(device: &Device) -> Result<()> {
    let Some(other) = recorded::double_of(device)? else { return Ok(()) };
    let message = format!(
        "{} and {other} say that they are the same disk: after a restart nobody could tell which of \
         them the replica is of",
        device.name
    );
    Err(Failure::new(Exit::Refused, message).into())
}

/// Begins to protect a disk. The answer goes to `answer` once the target has taken it.
pub(super) fn protect(
    core: &mut Core,
    path: &Path,
    answer: &Sender<Result<Response>>,
) -> Result<Started> {
    let device = check(core, path)?;
    device
        .enable_statistics()
        .map_err(|refusal| Failure::new(Exit::Refused, refusal.to_string()))?;
    let (id, key) = (DiskId(random_bytes()?), DataKey::generate()?);
    let geometry = device.geometry(core.config.chunk)?;
    let generation = Generation(random_bytes()?);
    let record = DiskRecord {
        id: id.to_string(),
        generation: generation.to_string(),
        path: device.path.clone(),
        sectors: geometry.sectors(),
        logical_block: geometry.logical_block(),
        chunk_bytes: geometry.chunk().bytes(),
        disk_sequence: device.sequence,
        boot_id: hex(&core.boot_id),
        serial: device.identity.serial.clone(),
        wwn: device.identity.wwn.clone(),
        content: content::identifier(&device.path),
        paused: false,
        standing: Some(Standing::begin()),
        ticket: None,
        resync: None,
        last_compared: None,
        difference: None,
    };
    // Key, log, record: a record on disk always has the other two.
    core.state.write_key(id, &key)?;
    core.state.write_log(&tracker::hrl::Log {
        header: LogHeader {
            disk: id,
            generation,
            geometry,
            boot_id: core.boot_id,
            disk_sequence: device.sequence,
            acked: blocks::Epoch::NONE,
            coverage: Coverage::Gap(GapReason::NeverReplicated),
            state: LogState::Open,
        },
        dirty: Bitmap::full(geometry.chunks()),
    })?;
    core.state.write_disk(&record)?;
    let name = device.name.clone();
    if let Err(error) = take_up(core, &record, device) {
        core.state.forget(id)?;
        return Err(error);
    }
    if !matches!(core.link_status, LinkStatus::Connected { .. }) {
        let words = format!("{name} is tracked; it is sent once the target can be reached");
        return Ok(Started::Done(words));
    }
    if let Some(disk) = core.disks.get_mut(&id) {
        disk.waiting = Some((answer.clone(), Instant::now() + VERDICT));
    }
    core.open_session(id);
    Ok(Started::Waiting)
}

/// Takes a recorded disk into the core: tracked by the kernel, known to the pipeline.
pub(super) fn take_up(core: &mut Core, record: &DiskRecord, device: Device) -> Result<()> {
    let spec = spec_of(record, &device)?;
    let (id, geometry) = (spec.id, spec.geometry);
    let (tracked, pins) = track(core, &spec)?;
    let start = decide(pins, Some(remembered(core, record, geometry)?));
    keep_start(&tracked, &start);
    let source = DiskSource { id, path: device.path.clone(), geometry };
    let handle = core.engine.add_disk(source).context("opening the disk for reading")?;
    if let Some(behind) = core.behind.remove(&tracked.slot()) {
        follow_upgrade(&tracked, &device, &behind);
    }
    let check = resumed_check(&tracked);
    let points = DiskPoints::new(resumed_confirmation(&tracked));
    let owes_comparison = resumed_debt(&tracked);
    let tracker = DiskTracker::new(geometry, start, now());
    let begins = tracker.outstanding().count() == geometry.chunks();
    tracing::info!(DISK = device.name, coverage = ?tracker.coverage(), "tracked");
    let refreshed = refreshed(record, &device, &core.boot_id);
    if refreshed != *record {
        core.state.write_disk(&refreshed)?;
    }
    let session = refused_before(&refreshed).unwrap_or(Session::Closed);
    let mut disk = ProtectedDisk {
        id,
        generation: spec.generation,
        geometry,
        name: device.name.clone(),
        key: core.state.key(id)?,
        record: refreshed,
        device,
        tracked,
        handle,
        comparing: None,
        verifying: None,
        next_sample: Instant::now() + core.config.verify.sample_interval.unwrap_or_default(),
        is_sampling: false,
        sampled_blocks: 0,
        looking: None,
        pass: tracker.in_pass().then(|| Pass::begin(&tracker)),
        tracker,
        proves: check.settled_offset().is_some(),
        owes_comparison,
        check,
        session,
        next_cycle: Instant::now(),
        next_log: Instant::now(),
        waiting: None,
        held: None,
        retry: EpochRetry::new(core.config.retry_longest),
        ticket: record.ticket()?,
        has_been_open: false,
        discard: None,
        ring_lost: 0,
        sent: Sent::new(),
        heat: Heat::default(),
        points,
    };
    if disk.pass.is_some() {
        disk.settle();
        // What an agent before this one has read of it, it may have read before that was settled.
        disk.proves |= begins && disk.check.settled_offset().is_some();
        disk.owes_comparison &= !disk.proves;
    }
    disk.keep_baseline();
    own_store::announce_source(id, disk.device.sequence)?;
    prepare_last_log(core, id, geometry, &disk.name);
    core.disks.insert(id, disk);
    Ok(())
}

/// Has the kernel hold what tracking begins with, whatever becomes of this agent. What was attached
/// early is one like any other from then on.
fn keep_start(tracked: &TrackedDisk, start: &Start) {
    match start {
        Start::Gap(_) => tracked.fill_pending(),
        Start::Continue { pending, acked, .. } if tracked.arrival() != Arrival::Established => {
            pending.words().for_each(|(index, bits)| tracked.add_pending(index, bits));
            tracked.acknowledge(*acked);
            begin_at_zero(tracked);
        }
        Start::Continue { .. } => {}
    }
    tracked.establish();
}

/// Makes room for the log that is written when the machine stops, and notes where it is.
fn prepare_last_log(core: &Core, id: DiskId, geometry: Geometry, name: &str) {
    let prepared = last::prepare(&core.state, id, geometry);
    if let Err(error) = &prepared {
        tracing::info!(DISK = name, "compared after each start of the machine: {error:#}");
    }
    match last::write_plan(&core.state) {
        Ok(true) => tracing::info!("the initramfs has to be made anew, if it attaches early"),
        Ok(false) => {}
        Err(error) => tracing::warn!("the plan for the initramfs: {error:#}"),
    }
}

/// What is to be tracked, if the disk is as long as it was.
fn spec_of(record: &DiskRecord, device: &Device) -> Result<DiskSpec> {
    let geometry = record.geometry()?;
    let found = device.geometry(geometry.chunk())?;
    anyhow::ensure!(
        found == geometry,
        "{} is not as it was when it was protected: {} instead of {}",
        device.name,
        found.len(),
        geometry.len()
    );
    Ok(DiskSpec {
        id: record.disk_id()?,
        generation: record.generation.parse()?,
        number: device.number,
        class: device.class,
        geometry,
        sequence: device.sequence,
    })
}

/// The record of a disk as it was found again.
fn refreshed(record: &DiskRecord, device: &Device, boot_id: &[u8; 16]) -> DiskRecord {
    DiskRecord {
        path: device.path.clone(),
        disk_sequence: device.sequence,
        boot_id: hex(boot_id),
        content: content::identifier(&device.path),
        standing: record.standing.clone().or_else(|| Some(Standing::begin())),
        ..record.clone()
    }
}

/// What waited for a person when the agent stopped waits still.
fn refused_before(record: &DiskRecord) -> Option<Session> {
    let Refusal { reason, replica } = record.standing.as_ref()?.refusal.clone()?;
    let replica = replica.and_then(|line| line.parse().ok());
    Some(Session::Refused { reason, next: Retry::AskAgain, replica })
}

/// Has the kernel track a disk, or finds that it has done so all the while.
fn track(core: &mut Core, spec: &DiskSpec) -> Result<(TrackedDisk, Pins)> {
    let tracking = match &mut core.tracking {
        Some(tracking) => tracking,
        none => {
            let config = &core.config;
            let programs = core.programs.take();
            let load = || programs.map_or_else(|| Programs::load(config.tracking), Ok);
            let loaded = Tracking::open_or_start(&config.pin_dir, load);
            none.insert(loaded.context("loading the tracking programs")?.0)
        }
    };
    let kept = tracking.disks().find(|disk| disk.spec().id == spec.id).cloned();
    if let Some(kept) = kept {
        if kept.spec() == spec {
            let pins = pins_of(&kept, core);
            return Ok((kept, pins));
        }
        // Another disk has come under the name, or this one under another.
        tracking.remove_disk(kept.slot())?;
    }
    let slot = tracking.add_disk(spec).context("tracking the disk")?;
    let tracked = tracking.disk(slot).context("a disk that was just added")?.clone();
    Ok((tracked, Pins::Absent))
}

/// What the kernel holds of a disk that it tracks.
fn pins_of(kept: &TrackedDisk, core: &Core) -> Pins {
    let DiskSpec { id, generation, geometry, .. } = *kept.spec();
    let believed = |taken| {
        let boot = Boot { boot: core.boot_id, taken };
        last::believed(&core.state, boot, (id, generation, geometry))
    };
    match kept.arrival() {
        Arrival::Established => {
            Pins::Present { pending: pending(kept, geometry.chunks()), acked: kept.acked() }
        }
        Arrival::Early => Pins::Early(None),
        Arrival::Proven(_) if core.config.compare_after_boot => Pins::Early(None),
        Arrival::Proven(taken) => Pins::Early(believed(taken).map(Box::new)),
    }
}

/// What the log says of a disk; without one, nobody knows which gap was open.
fn remembered(core: &Core, record: &DiskRecord, geometry: Geometry) -> Result<Record> {
    let same_boot = record.boot_id == hex(&core.boot_id);
    Ok(match core.state.log(record.disk_id()?, geometry) {
        Some(log) => Record {
            coverage: log.header.coverage,
            same_boot: log.header.boot_id == core.boot_id,
            closed: log.header.state == LogState::Closed,
        },
        None => {
            let coverage = Coverage::Gap(GapReason::TrackerLost);
            Record { coverage, same_boot, closed: false }
        }
    })
}

/// Stops protecting a disk, in words.
pub(super) fn unprotect(core: &mut Core, wanted: &str) -> Result<String> {
    let found = core.disks.values().find(|disk| disk.is(wanted));
    let Some((id, name)) = found.map(|disk| (disk.id, disk.name.clone())) else {
        return forget_absent(core, wanted);
    };
    withdraw(core, id)?;
    Ok(format!("{name} is no longer protected; its replica stays on the target"))
}

/// Stops waiting for a recorded disk that could not be taken up.
fn forget_absent(core: &mut Core, wanted: &str) -> Result<String> {
    let Some(at) = core.absent.iter().position(|absent| absent.record.is(wanted)) else {
        return Err(Failure::new(Exit::NotFound, format!("{wanted} is not protected")).into());
    };
    let id = core.absent[at].record.disk_id()?;
    own_store::withdraw_source(id);
    core.state.forget(id)?;
    let path = core.absent.remove(at).record.path;
    Ok(format!("{} is no longer waited for; its replica stays on the target", path.display()))
}

/// Undoes a protection. With the last disk the programs leave the kernel.
pub(super) fn withdraw(core: &mut Core, id: DiskId) -> Result<()> {
    let Some(disk) = core.disks.remove(&id) else { return Ok(()) };
    core.link.send(super::link::LinkCommand::Close { disk: id });
    core.engine.remove_disk(disk.handle);
    own_store::withdraw_source(id);
    core.state.forget(id)?;
    if let Some(tracking) = &mut core.tracking {
        tracking.remove_disk(disk.tracked.slot())?;
    }
    if core.disks.is_empty()
        && let Some(tracking) = core.tracking.take()
    {
        tracking.unload()?;
    }
    Ok(())
}

/// The chunks of a disk's pending bits.
fn pending(tracked: &ebpf::TrackedDisk, chunks: u64) -> Bitmap {
    let mut bitmap = Bitmap::new(chunks);
    tracked.pending().for_each(|(index, bits)| bitmap.insert_word(index, bits));
    bitmap
}
