//! `pinnace agent close`: the last thing before the machine stops.
//!
//! It runs when no service does any more and no file system of a protected disk is mounted for
//! writing, after the agent has ended: the programs in the kernel have marked what was written since,
//! to the last journal block of the root. It writes every disk's last log where it lies, past the
//! file system. That is a write too, and marks itself: so it writes again until the log has held all
//! that there was to mark, and only then closes it. Whatever is not as it should be leaves the log
//! open, and the disk is compared after the next start.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use blocks::{Bitmap, DiskId};
use ebpf::device::{Device, DeviceNumber, Direct, DiskClass, probe};
use ebpf::{Arrival, TrackedDisk, Tracking};
use tracker::hrl::{Log, LogHeader, LogState, encode};
use tracker::last::{LastRecord, LastState, RECORD_LEN};

use super::disk::kept_offset;
use super::freeze::mounts_on;
use super::last::{Place, file_len};
use super::own_store::layers_above;
use super::state::{AgentState, DiskRecord};
use crate::config::AgentConfig;
use crate::exit::{Exit, Failure};
use crate::identity;

/// A log is written, then written with what the first writing marked; more means that others write.
const ROUNDS: usize = 4;

/// What became of one disk.
pub(crate) struct Closed {
    /// As it was protected.
    pub(crate) path: String,
    /// How many chunks its log holds, or why it stays open.
    pub(crate) result: Result<u64>,
}

/// A disk whose log can be closed.
struct Closing {
    id: DiskId,
    device: Device,
    tracked: TrackedDisk,
    place: Place,
    record: LastRecord,
    header: LogHeader,
    dirty: Bitmap,
}

/// Closes the last logs of all protected disks that allow it.
///
/// # Errors
/// If nothing is tracked, or somebody still writes; then all logs are open.
pub(crate) fn close(config: &AgentConfig) -> Result<Vec<Closed>> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(Exit::Refused, "closing needs root").into());
    }
    let state = AgentState::open(&config.state_dir)?;
    let boot = identity::boot_id()?;
    let tracking = Tracking::take_up(&config.pin_dir).context("taking up the programs")?;
    let mut tracking = tracking.context("no disk is tracked")?;
    if tracking.restore_programs()? {
        bail!("somebody has detached the tracking programs: nothing that they missed is known");
    }
    let mut closing = Vec::new();
    let mut closed = Vec::new();
    for record in state.disks()? {
        let path = record.path.display().to_string();
        match Closing::prepare(&state, &tracking, &record, boot) {
            Ok(disk) => closing.push((path, disk)),
            Err(error) => closed.push(Closed { path, result: Err(error) }),
        }
    }
    let (paths, mut closing): (Vec<String>, Vec<Closing>) = closing.into_iter().unzip();
    close_all(&mut closing)?;
    let counts = closing.iter().map(|disk| Ok(disk.dirty.count()));
    closed.extend(paths.into_iter().zip(counts).map(|(path, result)| Closed { path, result }));
    Ok(closed)
}

/// Writes all logs until they hold what writing them marks, then closes them.
fn close_all(disks: &mut [Closing]) -> Result<()> {
    let mut rounds = 0;
    loop {
        disks.iter_mut().for_each(Closing::harvest);
        disks.iter().try_for_each(|disk| disk.write(LastState::Open))?;
        if !any_changed(disks) {
            break;
        }
        rounds += 1;
        ensure!(rounds < ROUNDS, "the disks are still written to");
    }
    for disk in &*disks {
        disk.check_counters()?;
    }
    let written = disks.iter().try_for_each(|disk| disk.write_record(LastState::Closed));
    if written.is_err() || any_changed(disks) {
        disks.iter().try_for_each(|disk| disk.write_record(LastState::Open))?;
        written?;
        bail!("the disks are still written to");
    }
    Ok(())
}

/// Whether more is marked than the logs hold.
fn any_changed(disks: &mut [Closing]) -> bool {
    let mut changed = false;
    for disk in disks {
        let before = disk.dirty.count();
        disk.harvest();
        changed |= disk.dirty.count() != before || !disk.tracked.taints().is_empty();
    }
    changed
}

impl Closing {
    fn prepare(
        state: &AgentState,
        tracking: &Tracking,
        record: &DiskRecord,
        boot: [u8; 16],
    ) -> Result<Self> {
        let (id, geometry) = (record.disk_id()?, record.geometry()?);
        let tracked = tracking.disks().find(|disk| disk.spec().id == id);
        let tracked = tracked.context("it is not tracked")?.clone();
        let device = probe(&record.path)?;
        let spec = tracked.spec();
        let same = (spec.number, spec.sequence) == (device.number, device.sequence);
        ensure!(same && spec.geometry == geometry, "another disk has its name");
        ensure!(tracked.arrival() == Arrival::Established, "no agent has taken it up");
        let log = state.log(id, geometry).context("it has no log of dirty chunks")?;
        ensure!(log.header.boot_id == boot, "its log is of another boot");
        let place = Place::of(&state.last_log(id))?;
        check_alone(&device)?;
        check_alone(&place.disk)?;
        ensure!(tracked.taints().is_empty(), "it is tainted: {}", tracked.taints());
        let header = LogHeader {
            boot_id: boot,
            acked: tracked.acked(),
            state: LogState::Closed,
            ..log.header
        };
        let record = record_of(&device, &header)?;
        let dirty = Bitmap::new(geometry.chunks());
        Ok(Self { id, device, tracked, place, record, header, dirty })
    }

    /// Takes in all that is dirty.
    fn harvest(&mut self) {
        self.tracked.harvest(&mut |_, _| {});
        for (index, bits) in self.tracked.pending() {
            self.dirty.insert_word(index, bits);
        }
    }

    /// Writes record and log where they lie.
    fn write(&self, state: LastState) -> Result<()> {
        let log = encode(&Log { header: self.header, dirty: self.dirty.clone() });
        let mut bytes = self.record.of_log(&log).in_state(state).encode().to_vec();
        bytes.extend_from_slice(&log);
        let room = file_len(self.header.geometry);
        ensure!(
            bytes.len() <= room,
            "the log of {} has no room: too much is dirty",
            self.device.name
        );
        bytes.resize(bytes.len().next_multiple_of(RECORD_LEN), 0);
        self.write_in_place(&bytes)
    }

    /// Writes the record alone, for the log that lies there.
    fn write_record(&self, state: LastState) -> Result<()> {
        let log = encode(&Log { header: self.header, dirty: self.dirty.clone() });
        self.write_in_place(&self.record.of_log(&log).in_state(state).encode())
    }

    fn write_in_place(&self, bytes: &[u8]) -> Result<()> {
        let what = || format!("writing the log of {} to {}", self.id, self.place.device.display());
        let mut device = Direct::to_write(&self.place.device).with_context(what)?;
        for piece in &self.place.pieces {
            let from = usize::try_from(piece.in_file)?.min(bytes.len());
            let to = usize::try_from(piece.in_file + piece.len)?.min(bytes.len());
            device.write(piece.on_device, &bytes[from..to]).with_context(what)?;
        }
        device.sync().with_context(what)
    }

    /// Nothing moves any more: so both counters must agree to the sector.
    fn check_counters(&self) -> Result<()> {
        let offset = kept_offset(&self.tracked).context("its counters were never compared")?;
        for _ in 0..10 {
            let kept = self.device.accounting.kept(&self.device.statistics()?);
            let counted = self.device.accounting.counted(&self.tracked.counters()?);
            if counted.wrapping_sub(kept).cast_signed() == offset {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("{}: the kernel has counted other writes than were tracked", self.device.name)
    }
}

fn record_of(device: &Device, header: &LogHeader) -> Result<LastRecord> {
    Ok(LastRecord {
        disk: header.disk,
        generation: header.generation,
        geometry: header.geometry,
        closing: identity::random_bytes()?,
        closed_in: header.boot_id,
        hardware: device.hardware(),
        fingerprint: device.fingerprint().context("reading its superblocks")?,
        log_len: 0,
        log_crc: 0,
        state: LastState::Open,
    })
}

/// Nothing of this system may write to a disk any more.
fn check_alone(device: &Device) -> Result<()> {
    ensure!(device.class != DiskClass::BioBased, "{} takes bios: not carried over", device.name);
    ensure!(
        !device.has_holders()?,
        "{} has a device over it (LVM, encryption, RAID), which may write by itself",
        device.name
    );
    let mounted = mounts_on(&[device.number])?;
    if let Some(place) = mounted.first().and_then(|places| places.first()) {
        bail!("{} is mounted for writing on {}", device.name, place.display());
    }
    ensure!(!swaps_on(device.number)?, "{} is swapped to", device.name);
    Ok(())
}

/// Whether a swap area or a swap file lies on a disk.
fn swaps_on(disk: DeviceNumber) -> Result<bool> {
    let text = fs::read_to_string("/proc/swaps").context("reading the swap areas")?;
    let on_disk = |line: &str| {
        let name = line.split_whitespace().next().unwrap_or_default();
        fs::metadata(Path::new(name)).map_or(true, |found| {
            let device = if found.rdev() == 0 { found.dev() } else { found.rdev() };
            layers_above(device, disk).is_some()
        })
    };
    Ok(text.lines().skip(1).any(on_disk))
}
