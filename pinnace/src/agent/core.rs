//! The core: one thread that owns every protected disk and decides what happens next.
//!
//! It waits for an event, applies it, and then restores what must always hold: rings drained,
//! taints and statistics looked at, due epochs sealed and on their way, due logs written. Nothing
//! else changes a disk's state, so there is no lock around it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blocks::{Bitmap, ByteLen, DiskId, Epoch, GapReason, MachineId, Mark, MonotonicNs, Slot};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ebpf::Tracking;
use shipper::{Engine, Job, ShipReport};
use tracker::hrl::{Log, LogHeader, LogState};
use tracker::{Replica, SealPolicy};
use wire::{CloseCode, Sealer};

use super::disk::{ProtectedDisk, Session};
use super::link::{LinkCommand, LinkEvent, LinkSender};
use super::state::AgentState;
use super::{protect, status};
use crate::admin::agent::{LinkStatus, Request, Response, Status};
use crate::config::AgentConfig;
use crate::exit::{Exit, Failure};

/// How often the rings are drained when nothing else happens.
const TICK: Duration = Duration::from_millis(20);
/// How often taints and statistics are looked at.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// Epochs of a pass that may be under way at once: one is made durable while the next is sent.
const PASS_IN_FLIGHT: usize = 3;
/// Frames between the pipeline and the connection: each is at most a little over 1 MiB.
const FRAMES_QUEUED: usize = 8;

/// What the core waits for.
pub(super) enum Event {
    /// A request on the admin socket, and where its answer goes.
    Admin(Request, Sender<Result<Response>>),
    /// Something happened on the connection to the target.
    Link(LinkEvent),
    /// Stop in order: tracking goes on in the kernel.
    Stop,
}

/// Everything the agent owns.
pub(super) struct Core {
    pub(super) config: AgentConfig,
    pub(super) state: AgentState,
    pub(super) machine: Option<MachineId>,
    pub(super) target: Option<String>,
    pub(super) boot_id: [u8; 16],
    pub(super) tracking: Option<Tracking>,
    pub(super) engine: Engine,
    pub(super) disks: BTreeMap<DiskId, ProtectedDisk>,
    /// Recorded disks that could not be taken up, in words.
    pub(super) problems: Vec<String>,
    pub(super) link: LinkSender,
    pub(super) link_status: LinkStatus,
    pub(super) next_check: Instant,
}

impl Core {
    /// Runs until told to stop.
    pub(super) fn run(&mut self, events: &Receiver<Event>) -> Result<()> {
        loop {
            match events.recv_timeout(TICK) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return self.close(),
                Ok(event) => self.apply(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // What has queued up meanwhile, before the next look at the disks.
            for event in events.try_iter().take(64) {
                if matches!(event, Event::Stop) {
                    return self.close();
                }
                self.apply(event);
            }
            self.restore();
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Admin(request, answer) => self.apply_request(request, &answer),
            Event::Link(event) => self.apply_link(event),
            Event::Stop => {}
        }
    }

    fn apply_request(&mut self, request: Request, answer: &Sender<Result<Response>>) {
        let response = match request {
            Request::Status => self.status().map(Response::Status),
            Request::Protect { path, only_check } if only_check => {
                protect::check(self, &path).map(|found| Response::Done(protect::words(&found)))
            }
            Request::Protect { path, .. } => {
                match protect::protect(self, &path, answer) {
                    // The target has the last word; it comes with the session's events.
                    Ok(protect::Started::Waiting) => return,
                    Ok(protect::Started::Done(words)) => Ok(Response::Done(words)),
                    Err(error) => Err(error),
                }
            }
            Request::Unprotect { disk } => protect::unprotect(self, &disk).map(Response::Done),
            Request::Pause { disk } => self.set_paused(disk.as_deref(), Shipping::Paused),
            Request::Resume { disk } => self.set_paused(disk.as_deref(), Shipping::On),
        };
        // A client that went away does not want the answer.
        drop(answer.send(response));
    }

    fn apply_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up => {
                self.link_status = LinkStatus::Connected { since: jiff::Timestamp::now() };
                let ids: Vec<DiskId> = self.disks.keys().copied().collect();
                ids.into_iter().for_each(|id| self.open_session(id));
            }
            LinkEvent::Down { reason } => {
                tracing::warn!(reason, "the target is out of reach");
                self.link_status = LinkStatus::Connecting { last_error: Some(reason) };
                self.close_sessions();
            }
            LinkEvent::Denied { reason } => {
                tracing::error!(reason, "the target refuses this machine");
                self.link_status = LinkStatus::Refused { reason };
                self.close_sessions();
            }
            LinkEvent::Opened { disk, durable, replica } => self.opened(disk, durable, replica),
            LinkEvent::Refused { disk, code, detail } => self.refused(disk, code, &detail),
            LinkEvent::Shipped { disk, report } => self.shipped(disk, &report),
            LinkEvent::Durable { disk, epoch } => self.durable(disk, epoch),
            LinkEvent::Failed { disk, epoch, code, detail } => {
                self.failed(disk, epoch, code, &detail);
            }
        }
    }

    /// Asks the target to take a disk's epochs.
    pub(super) fn open_session(&mut self, id: DiskId) {
        let connected = matches!(self.link_status, LinkStatus::Connected { .. });
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let refused = matches!(disk.session, Session::Refused { .. });
        if connected && !refused {
            disk.session = Session::Opening;
            self.link.send(LinkCommand::open(disk));
        }
    }

    fn close_sessions(&mut self) {
        for disk in self.disks.values_mut() {
            if !matches!(disk.session, Session::Refused { .. }) {
                disk.session = Session::Closed;
            }
        }
    }

    fn opened(&mut self, id: DiskId, durable: Epoch, replica: Replica) {
        let now = now();
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let before = disk.gap();
        let released = disk.tracker.handle_resume(durable, replica, now);
        disk.release(&released);
        disk.sent.note_aborted();
        // A key of its own for each session: no nonce is used twice, whatever was lost.
        match Sealer::new(&disk.key, disk.id, disk.generation) {
            Ok(sealer) => disk.session = Session::Open { sealer: Arc::new(sealer) },
            Err(error) => tracing::error!(DISK = disk.name, %error, "no session key"),
        }
        disk.next_cycle = Instant::now();
        let epoch = status::epoch(durable);
        tracing::info!(DISK = disk.name, durable = epoch, ?replica, "the target takes epochs");
        if let Some((waiting, _)) = disk.waiting.take() {
            let words = format!("{} is protected; initial replication has begun", disk.name);
            drop(waiting.send(Ok(Response::Done(words))));
        }
        self.note_gap(id, before);
    }

    fn refused(&mut self, id: DiskId, code: CloseCode, detail: &str) {
        let reason = format!("{code} {detail}").trim_end().to_owned();
        let Some(disk) = self.disks.get_mut(&id) else { return };
        tracing::error!(DISK = disk.name, reason, "the target refuses the disk");
        if let Some((waiting, _)) = disk.waiting.take() {
            // It was never taken, so it is not protected.
            let words = format!("{}: {reason}", disk.name);
            if let Err(error) = protect::withdraw(self, id) {
                tracing::error!(DISK = %id, "{error:#}");
            }
            drop(waiting.send(Err(Failure::new(Exit::Refused, words).into())));
            return;
        }
        disk.session = match code.class() {
            wire::Class::Permanent => Session::Refused { reason },
            wire::Class::Recoverable => {
                let retry = Instant::now() + disk.retry_delay();
                disk.sent.failures += 1;
                Session::Failed { reason, retry }
            }
        };
    }

    fn shipped(&mut self, id: DiskId, report: &ShipReport) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        disk.sent.note_shipped(report);
        tracing::debug!(
            DISK = disk.name, EPOCH = report.epoch.0, kind = ?report.kind,
            read = report.read_bytes, wire = report.wire_bytes, "shipped"
        );
    }

    fn durable(&mut self, id: DiskId, epoch: Epoch) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let before = disk.gap();
        let released = disk.tracker.handle_ack(epoch);
        disk.release(&released);
        disk.sent.note_durable(epoch, Instant::now());
        if disk.gap().is_none() && before.is_none() {
            disk.next_cycle = Instant::now() + self.config.interval;
        }
        self.note_gap(id, before);
    }

    /// An epoch was lost: what it held is dirty again, with all that was built on it.
    fn failed(&mut self, id: DiskId, epoch: Epoch, code: CloseCode, detail: &str) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let reason = format!("{code} {detail}").trim_end().to_owned();
        tracing::warn!(DISK = disk.name, EPOCH = epoch.0, reason, "an epoch failed");
        let before = disk.gap();
        disk.tracker.handle_abort();
        disk.sent.note_aborted();
        if code.class() == wire::Class::Permanent {
            disk.session = Session::Refused { reason };
        } else {
            let until = Instant::now() + disk.retry_delay();
            disk.sent.failures += 1;
            disk.held = Some((reason, until));
        }
        self.note_gap(id, before);
    }

    /// Makes a gap that has opened survive the agent, and one that has closed forgotten.
    pub(super) fn note_gap(&mut self, id: DiskId, before: Option<GapReason>) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let after = disk.gap();
        if after == before {
            return;
        }
        let name = disk.name.clone();
        match after {
            Some(reason) => {
                disk.sent.gaps += 1;
                tracing::warn!(DISK = name, REASON = %reason, "tracking has a gap: the disk is compared");
                disk.tracked.fill_pending();
            }
            None => tracing::info!(DISK = name, "the replica follows"),
        }
        if let Err(error) = self.write_log(id, LogState::Open) {
            tracing::error!(DISK = name, "{error:#}");
        }
    }

    /// A gap was found: every chunk is suspect.
    fn open_gap(&mut self, id: DiskId, reason: GapReason) {
        let Some(disk) = self.disks.get_mut(&id) else { return };
        let before = disk.gap();
        // Before the tracker knows, so that no crash in between forgets the gap.
        disk.tracked.fill_pending();
        disk.tracker.handle_gap(reason, now());
        self.note_gap(id, before);
    }

    /// What must hold after every event.
    fn restore(&mut self) {
        self.drain_rings();
        let now = Instant::now();
        if now >= self.next_check {
            self.next_check = now + CHECK_EVERY;
            self.check_tracking();
        }
        let ids: Vec<DiskId> = self.disks.keys().copied().collect();
        for id in ids {
            if let Err(error) = self.cycle(id, now) {
                tracing::error!(DISK = %id, "{error:#}");
                if let Some(disk) = self.disks.get_mut(&id) {
                    disk.next_cycle = now + Duration::from_secs(1);
                }
            }
        }
    }

    fn drain_rings(&mut self) {
        let Some(tracking) = self.tracking.as_mut() else { return };
        let mut marks: BTreeMap<Slot, Vec<Mark>> = BTreeMap::new();
        tracking.poll_ring(&mut |mark| marks.entry(mark.slot).or_default().push(mark));
        for disk in self.disks.values_mut() {
            if let Some(marks) = marks.get(&disk.tracked.slot()) {
                disk.tracker.handle_events(marks);
            }
        }
    }

    /// Looks for what tracking could not follow, and for writes it did not see.
    fn check_tracking(&mut self) {
        let mut gaps = Vec::new();
        for disk in self.disks.values_mut() {
            match disk.look() {
                Ok(Some(reason)) => gaps.push((disk.id, reason)),
                Ok(None) => {}
                Err(error) => tracing::warn!(DISK = disk.name, "the cross-check: {error:#}"),
            }
        }
        for (id, reason) in gaps {
            self.open_gap(id, reason);
            // After the gap is on record: a crash in between finds the taints again.
            if let (GapReason::Tainted(taints), Some(disk)) = (reason, self.disks.get(&id)) {
                disk.tracked.clear_taints(taints);
            }
        }
    }

    /// Seals and ships what is due of one disk, and writes its log when that is due.
    fn cycle(&mut self, id: DiskId, now: Instant) -> Result<()> {
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(()) };
        if disk.waiting.as_ref().is_some_and(|(_, deadline)| now >= *deadline)
            && let Some((waiting, _)) = disk.waiting.take()
        {
            let words = format!("{} is tracked; it is sent once the target answers", disk.name);
            drop(waiting.send(Ok(Response::Done(words))));
        }
        if matches!(disk.session, Session::Failed { retry, .. } if now >= retry) {
            self.open_session(id);
            return Ok(());
        }
        if now >= disk.next_log {
            disk.next_log = now + self.config.log_interval;
            self.write_log(id, LogState::Open)?;
        }
        if self.is_due(id, now) {
            self.seal_and_ship(id)?;
        } else if let Some(disk) = self.disks.get_mut(&id)
            && disk.tracker.sweep_due()
        {
            let harvest = disk.harvest();
            disk.tracker.handle_harvest(&harvest);
        }
        Ok(())
    }

    fn is_due(&self, id: DiskId, now: Instant) -> bool {
        let Some(disk) = self.disks.get(&id) else { return false };
        let open = matches!(disk.session, Session::Open { .. });
        let held = disk.held.as_ref().is_some_and(|(_, until)| now < *until);
        let in_flight = disk.tracker.in_flight();
        // A comparison's hashes must be of the replica as the epoch before has left it.
        let seeding = disk.gap() == Some(GapReason::NeverReplicated);
        let due = if disk.tracker.in_pass() {
            in_flight == 0 || (in_flight < PASS_IN_FLIGHT && seeding && disk.tracker.may_overlap())
        } else {
            in_flight == 0 && now >= disk.next_cycle
        };
        open && !held && !disk.record.paused && due
    }

    fn seal_and_ship(&mut self, id: DiskId) -> Result<()> {
        let policy = SealPolicy {
            segment: self.config.segment,
            dirty_threshold_permille: self.config.dirty_threshold_percent * 10,
        };
        let Some(disk) = self.disks.get_mut(&id) else { return Ok(()) };
        let Session::Open { sealer } = &disk.session else { return Ok(()) };
        let sealer = Arc::clone(sealer);
        let before = disk.gap();
        let follows = disk.tracker.newest();
        let harvest = disk.harvest();
        let Some(sealed) = disk.tracker.seal_epoch(&harvest, policy) else {
            disk.next_cycle = Instant::now() + self.config.interval;
            return Ok(());
        };
        disk.sent.note_sealed(sealed.epoch(), Instant::now());
        let (sink, frames) = bounded(FRAMES_QUEUED);
        let (epoch, kind) = (sealed.epoch(), sealed.kind());
        let replica_hashes = (kind == blocks::EpochKind::Compare).then(|| self.link.hashes(id));
        let handle = disk.handle;
        self.link.send(LinkCommand::Ship { disk: id, epoch, kind, frames });
        let job = Job { disk: handle, sealed, follows, sealer, replica_hashes, sink };
        self.engine.ship(job).context("starting a shipment")?;
        self.note_gap(id, before);
        Ok(())
    }

    pub(super) fn write_log(&self, id: DiskId, state: LogState) -> Result<()> {
        let Some(disk) = self.disks.get(&id) else { return Ok(()) };
        let header = LogHeader {
            disk: disk.id,
            generation: disk.generation,
            geometry: disk.geometry,
            boot_id: self.boot_id,
            disk_sequence: disk.record.disk_sequence,
            acked: disk.tracker.acked(),
            coverage: disk.tracker.coverage(),
            state,
        };
        self.state.write_log(&Log { header, dirty: disk.tracker.outstanding() })
    }

    fn set_paused(&mut self, wanted: Option<&str>, shipping: Shipping) -> Result<Response> {
        let mut names = Vec::new();
        for disk in self.disks.values_mut().filter(|disk| wanted.is_none_or(|w| disk.is(w))) {
            disk.record.paused = shipping == Shipping::Paused;
            self.state.write_disk(&disk.record)?;
            names.push(disk.name.clone());
        }
        if names.is_empty() {
            let what = wanted.unwrap_or("no disk");
            return Err(Failure::new(Exit::NotFound, format!("{what} is not protected")).into());
        }
        let names = names.join(", ");
        Ok(Response::Done(match shipping {
            Shipping::Paused => format!("{names}: paused; tracking goes on"),
            Shipping::On => format!("{names}: shipping again"),
        }))
    }

    fn status(&self) -> Result<Status> {
        let mut disks = Vec::new();
        for disk in self.disks.values() {
            let counters = disk.tracked.counters()?;
            let view = status::View { now: now(), interval: self.config.interval, counters };
            disks.push(status::of_disk(disk, &view));
        }
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Status {
            machine: self.machine.map_or_else(|| "not enrolled".into(), |id| id.to_string()),
            target: self.target.clone(),
            link: self.link_status.clone(),
            disks,
            problems: self.problems.clone(),
            memory_bytes: memory().0,
        })
    }

    /// An orderly stop: the dirty sets are logged and closed, tracking goes on in the kernel.
    fn close(&mut self) -> Result<()> {
        let ids: Vec<DiskId> = self.disks.keys().copied().collect();
        for id in ids {
            if let Some(disk) = self.disks.get_mut(&id) {
                let harvest = disk.harvest();
                disk.tracker.handle_harvest(&harvest);
            }
            self.write_log(id, LogState::Closed)?;
        }
        tracing::info!("stopped; tracking goes on in the kernel");
        Ok(())
    }
}

/// Whether a disk's epochs are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shipping {
    On,
    Paused,
}

/// The kernel's monotonic clock, as the programs read it.
pub(super) fn now() -> MonotonicNs {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let time = nix::time::clock_gettime(clock).expect("the monotonic clock is always there");
    let time = Duration::from(time);
    MonotonicNs(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// This process's resident memory.
fn memory() -> ByteLen {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    ByteLen(kib.unwrap_or(0) * 1024)
}

/// The chunks of a disk's pending bits.
pub(super) fn pending(tracked: &ebpf::TrackedDisk, chunks: u64) -> Bitmap {
    let mut bitmap = Bitmap::new(chunks);
    tracked.pending().for_each(|(index, bits)| bitmap.insert_word(index, bits));
    bitmap
}
