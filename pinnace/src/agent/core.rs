//! The core: one thread that owns every protected disk and decides what happens next.
//!
//! It waits for an event, applies it, and then restores what must always hold: rings drained,
//! taints and statistics looked at, due epochs sealed and on their way, due logs written. Nothing
//! else changes a disk's state, so there is no lock around it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use blocks::{ByteLen, DiskId, MachineId, Slot};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use ebpf::{Counters, Programs, Tracking};
use shipper::Engine;
use tracker::hrl::LogState;
use wire::message::Features;

use self::points::Points;
use super::cutter::CutDone;
use super::disk::ProtectedDisk;
use super::link::{LinkEvent, LinkSender};
use super::recorded::AbsentDisk;
use super::state::AgentState;
use super::verify::{Question, Told};
use crate::admin::agent::{LinkStatus, Request, Response};
use crate::config::AgentConfig;
use crate::metrics::Page;

mod confirm;
mod cycle;
mod gaps;
mod metrics;
pub(super) mod points;
mod requests;
pub(super) mod resync;
mod sessions;
mod standing;
pub(super) mod verify;

/// How often the rings are drained when nothing else happens.
const TICK: Duration = Duration::from_millis(20);
/// How often taints and statistics are looked at.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// How long a stop waits for a cut.
const CUT_AT_MOST: Duration = Duration::from_secs(10);

/// What the core waits for.
pub(super) enum Event {
    /// A request on the admin socket, and where its answer goes.
    Admin(Request, Sender<Result<Response>>),
    /// Metrics are scraped, and where the page goes.
    Scrape(Sender<Result<Page>>),
    /// Something happened on the connection to the target.
    Link(LinkEvent),
    /// A cut has ended.
    Cut(Box<CutDone>),
    /// Somebody verifies a disk, and asks what is dirty.
    Verify(Question),
    /// How a verification goes.
    Verified(DiskId, Told),
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
    /// Programs for the first disk, so that protecting it need not wait for the kernel's verifier.
    pub(super) programs: Option<Programs>,
    /// Of disks that are yet to be taken up: what the programs of another build had counted.
    pub(super) behind: BTreeMap<Slot, Counters>,
    pub(super) engine: Engine,
    pub(super) disks: BTreeMap<DiskId, ProtectedDisk>,
    /// Recorded disks that could not be taken up.
    pub(super) absent: Vec<AbsentDisk>,
    pub(super) link: LinkSender,
    pub(super) link_status: LinkStatus,
    /// What both ends of the connection are able to do.
    pub(super) features: Features,
    pub(super) next_check: Instant,
    pub(super) points: Points,
    /// Where events come from, for threads that the core starts.
    pub(super) events: Sender<Event>,
}

impl Core {
    /// Runs until told to stop.
    pub(in crate::agent) fn run(&mut self, events: &Receiver<Event>) -> Result<()> {
        loop {
            match events.recv_timeout(TICK) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return self.close(events),
                Ok(event) => self.apply(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            // What has queued up meanwhile, before the next look at the disks.
            for event in events.try_iter().take(64) {
                if matches!(event, Event::Stop) {
                    return self.close(events);
                }
                self.apply(event);
            }
            self.restore();
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Admin(request, answer) => self.apply_request(request, &answer),
            // Who has hung up does not want the page.
            Event::Scrape(answer) => drop(answer.send(self.metrics())),
            Event::Link(event) => self.apply_link(event),
            Event::Cut(done) => self.apply_cut(*done),
            Event::Verify(question) => self.apply_question(&question),
            Event::Verified(disk, told) => self.apply_verified(disk, told),
            Event::Stop => {}
        }
    }

    /// What must hold after every event.
    fn restore(&mut self) {
        self.drain_rings();
        let now = Instant::now();
        if now >= self.next_check {
            self.next_check = now + CHECK_EVERY;
            self.check_tracking();
        }
        self.confirm_points();
        self.drive_points(now);
        let ids: Vec<DiskId> = self.disks.keys().copied().collect();
        for id in ids {
            if let Err(error) = self.cycle(id, now) {
                tracing::error!(DISK = %id, "{error:#}");
                if let Some(disk) = self.disks.get_mut(&id) {
                    disk.next_cycle = now + Duration::from_secs(1);
                }
            }
            self.settle(id);
        }
    }

    /// Waits for the cut under way: only it knows what it has harvested, and the log must too.
    fn await_cut(&mut self, events: &Receiver<Event>) {
        let deadline = Instant::now() + CUT_AT_MOST;
        while self.points.is_cutting()
            && let Ok(event) = events.recv_deadline(deadline)
        {
            if let Event::Cut(done) = event {
                self.apply_cut(*done);
            }
        }
    }

    /// An orderly stop: the dirty sets are logged and closed, tracking goes on in the kernel.
    fn close(&mut self, events: &Receiver<Event>) -> Result<()> {
        self.await_cut(events);
        // What a cut has harvested and not given back is pending in the kernel, and in no log.
        let state = if self.points.is_cutting() { LogState::Open } else { LogState::Closed };
        let ids: Vec<DiskId> = self.disks.keys().copied().collect();
        for id in ids {
            if let Some(disk) = self.disks.get_mut(&id) {
                let harvest = disk.harvest();
                disk.tracker.handle_harvest(&harvest);
            }
            self.write_log(id, state)?;
        }
        tracing::info!("stopped; tracking goes on in the kernel");
        Ok(())
    }
}

/// This process's resident memory.
fn memory() -> ByteLen {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    ByteLen(kib.unwrap_or(0) * 1024)
}
