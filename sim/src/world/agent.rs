//! The agent's core, as `pinnace/src/agent/core` drives it: taking disks up, looking around,
//! sealing what is due, keeping gaps on record.

use blocks::{
    Bitmap, Coverage, Epoch, GapReason, Generation, MachineId, MonotonicNs, Mutant, Slot,
};
use storage::StorePath;
use tracker::{
    CrossCheck, DiskTracker, Harvest, Reading, SealPolicy, Verdict,
    cut::Heat,
    hrl::{self, Log, LogHeader, LogState},
    start::{Pins, Record, Start, decide},
};

use crate::{
    agent::{Agent, AgentDisk, CHECK_EVERY, FIRST_PAUSE, LOG_EVERY, Standing, TICK},
    kernel::Class,
    machine::{Attached, Machine},
    world::{Event, World, note},
};

pub(crate) const GENERATION: Generation = Generation([7; 16]);
pub(crate) const SOURCE: MachineId = MachineId([3; 16]);

/// Epochs of a pass that may be under way at once.
const PASS_IN_FLIGHT: usize = 3;

impl World {
    pub(super) fn happen_at_agent(&mut self, event: &Event) {
        let life = self.agent.as_ref().map(|agent| agent.life);
        match *event {
            Event::Tick { life: of } if life == Some(of) => {
                self.clock.after(TICK, Event::Tick { life: of });
            }
            Event::Dial { life: of } if life == Some(of) => self.dial(),
            Event::Ship { life: of, disk, epoch } if life == Some(of) => self.ship(disk, epoch),
            Event::Cut { life: of } if life == Some(of) => self.cut(),
            Event::CutRead { life: of, id, part } if life == Some(of) => self.cut_read(id, part),
            Event::Stopped { life: of, connection, stream } if life == Some(of) => {
                self.stream_stopped(connection, stream);
            }
            Event::AgentHears { life: of, connection } if life == Some(of) => {
                self.agent_hears(connection);
            }
            _ => return,
        }
        self.restore();
    }

    /// An administrator protects the disks: their logs say that nothing was replicated yet.
    pub(super) fn protect(&mut self) {
        for disk in 0..self.machine.disks.len() {
            let geometry = self.machine.disks[disk].geometry();
            let header = self.log_header(
                disk,
                Epoch::NONE,
                Coverage::Gap(GapReason::NeverReplicated),
                LogState::Open,
            );
            let log = Log { header, dirty: Bitmap::full(geometry.chunks()) };
            hrl::write(&self.machine.state, &log_path(disk), &log)
                .expect("no fault was planned yet");
        }
    }

    pub(super) fn start_agent(&mut self) {
        if !self.machine.is_up || self.agent.is_some() {
            return;
        }
        self.agent_life += 1;
        note!(self, "the agent starts");
        let disks = (0..self.machine.disks.len()).map(|disk| self.take_up(disk)).collect();
        let life = self.agent_life;
        let next_check = self.clock.now();
        self.agent = Some(Agent {
            life,
            disks,
            link: None,
            pause: FIRST_PAUSE,
            next_check,
            cutting: None,
            next_point: 0,
        });
        self.clock.after(TICK, Event::Tick { life });
        self.clock.after(0, Event::Dial { life });
        self.restore();
    }

    /// Takes a recorded disk up: tracked by the kernel, known to the pipeline.
    fn take_up(&mut self, disk: usize) -> AgentDisk {
        let now = self.clock.now();
        let remembered = self.remembered(disk);
        let source = &mut self.machine.disks[disk];
        let geometry = source.geometry();
        let slot = Slot(u32::try_from(disk).expect("few disks"));
        let attached = source.attach(slot);
        let acked = source.acked();
        let kernel = source.kernel.as_mut().expect("programs were just attached");
        let pins = match attached {
            Attached::Before => Pins::Present { pending: kernel.pending(), acked },
            Attached::Now => Pins::Absent,
        };
        let start = decide(pins, Some(remembered));
        if matches!(start, Start::Gap(_)) {
            kernel.fill_pending();
            source.unseen = false;
        }
        let check = kernel.baseline.map_or_else(CrossCheck::default, CrossCheck::resume);
        let tracker = DiskTracker::new(geometry, start, MonotonicNs(now));
        note!(self, "disk {disk}: {:?}, {:?} acknowledged", tracker.coverage(), tracker.acked());
        AgentDisk {
            tracker,
            heat: Heat::default(),
            check,
            standing: Standing::Closed,
            next_cycle: now,
            next_log: now,
            held_until: 0,
            failures: 0,
            ring_lost: 0,
            shipments: std::collections::BTreeMap::new(),
            requests: std::collections::BTreeMap::new(),
        }
    }

    /// What the log says of a disk; without one, nobody knows which gap was open.
    fn remembered(&self, disk: usize) -> Record {
        let geometry = self.machine.disks[disk].geometry();
        match hrl::read(&self.machine.state, &log_path(disk), geometry) {
            Ok(log) => Record {
                coverage: log.header.coverage,
                same_boot: log.header.boot_id == self.boot_id(),
                closed: log.header.state == LogState::Closed,
            },
            Err(_) => Record {
                coverage: Coverage::Gap(GapReason::TrackerLost),
                same_boot: false,
                closed: false,
            },
        }
    }

    /// What must hold after every event: rings drained, taints and statistics looked at, due epochs
    /// on their way.
    pub(super) fn restore(&mut self) {
        let now = self.clock.now();
        let Some(agent) = &mut self.agent else { return };
        for (source, disk) in self.machine.disks.iter_mut().zip(&mut agent.disks) {
            if let Some(kernel) = &mut source.kernel {
                disk.tracker.handle_events(&kernel.drain_ring());
            }
        }
        let checks = now >= agent.next_check;
        if checks {
            agent.next_check = now + CHECK_EVERY;
        }
        for disk in 0..self.machine.disks.len() {
            if checks {
                self.check_tracking(disk);
            }
            self.cycle(disk);
        }
        self.begin_cut_if_due();
        self.pump_agent();
    }

    fn cycle(&mut self, disk: usize) {
        let now = self.clock.now();
        let Some(agent) = &mut self.agent else { return };
        let of_agent = &mut agent.disks[disk];
        if let Standing::Failed { until, reconnects } = of_agent.standing
            && now >= until
        {
            if reconnects {
                of_agent.standing = Standing::Closed;
                self.drop_link("a new session");
            } else {
                self.open_session(disk);
            }
            return;
        }
        if now >= of_agent.next_log {
            of_agent.next_log = now + LOG_EVERY;
            self.write_log(disk, LogState::Open);
        }
        if self.agent.as_ref().is_none_or(|agent| agent.cutting.is_some()) {
            // Nobody else harvests or seals.
        } else if self.is_due(disk) && !self.point_is_due() {
            self.seal_and_ship(disk);
        } else if self.agent.as_ref().is_some_and(|agent| agent.disks[disk].tracker.sweep_due()) {
            let harvest = self.harvest(disk);
            self.tracker(disk).handle_harvest(&harvest);
        }
    }

    fn is_due(&self, disk: usize) -> bool {
        let now = self.clock.now();
        let Some(agent) = &self.agent else { return false };
        let disk = &agent.disks[disk];
        let in_flight = disk.tracker.in_flight();
        let due = if disk.tracker.in_pass() {
            in_flight == 0 || (in_flight < PASS_IN_FLIGHT && disk.tracker.may_overlap())
        } else {
            in_flight == 0 && now >= disk.next_cycle
        };
        matches!(disk.standing, Standing::Open(_)) && now >= disk.held_until && due
    }

    fn seal_and_ship(&mut self, disk: usize) {
        let policy = SealPolicy {
            segment: self.scenario.segment,
            dirty_threshold_permille: self.scenario.dirty_threshold_permille,
        };
        let before = self.gap(disk);
        let follows = self.tracker(disk).newest();
        let sealed_at = self.step();
        let harvest = self.harvest(disk);
        let Some(sealed) = self.tracker(disk).seal_epoch(&harvest, policy) else {
            let next = self.clock.now() + self.scenario.interval;
            self.agent_disk(disk).next_cycle = next;
            return;
        };
        note!(
            self,
            "disk {disk}: {:?} epoch {} on {follows} of {} chunks, completes: {}",
            sealed.kind(),
            sealed.epoch(),
            sealed.chunks().count(),
            sealed.completes()
        );
        let (boot, unseen) = (self.machine.boot, self.machine.disks[disk].unseen);
        self.checks.sealed(disk, &sealed, sealed_at, boot, unseen);
        if Mutant::PendingDroppedAtSeal.is_on()
            && let Some(kernel) = &mut self.machine.disks[disk].kernel
        {
            kernel.drop_pending(sealed.chunks());
        }
        self.begin_shipment(disk, sealed, follows, None);
        self.note_gap(disk, before);
    }

    /// Sweeps the bitmap of the kernel, word by word, while writes complete.
    fn harvest(&mut self, disk: usize) -> Harvest {
        let started = MonotonicNs(self.clock.now());
        let mut chunks = Bitmap::new(self.machine.disks[disk].geometry().chunks());
        let words = self.machine.disks[disk].kernel.as_ref().map_or(0, |kernel| kernel.words());
        for word in 0..words {
            self.let_a_write_finish(disk);
            let Some(kernel) = &mut self.machine.disks[disk].kernel else { break };
            let late = Mutant::ClearedAfterRead.is_on();
            let bits = if late { kernel.copy_word(word) } else { kernel.harvest_word(word) };
            chunks.insert_word(word as u64, bits);
        }
        self.let_a_write_finish(disk);
        Harvest { started, chunks }
    }

    /// Looks for what tracking could not follow, and for writes it did not see.
    fn check_tracking(&mut self, disk: usize) {
        let source = &mut self.machine.disks[disk];
        let quiet = source.disk.is_quiet();
        let Some(kernel) = &mut source.kernel else { return };
        let Some(agent) = &mut self.agent else { return };
        let of_agent = &mut agent.disks[disk];
        if kernel.ring_lost > of_agent.ring_lost {
            of_agent.ring_lost = kernel.ring_lost;
            of_agent.tracker.handle_loss();
        }
        let taints = kernel.taints;
        let reading = Reading { statistics: kernel.statistics, counted: kernel.counted };
        let verdict = match kernel.class == Class::Bio && !quiet {
            true => Verdict::Plausible,
            false => of_agent.check.handle_reading(reading),
        };
        if let Some(offset) = of_agent.check.settled_offset() {
            kernel.baseline = Some(offset);
        }
        let reason = match verdict {
            _ if !taints.is_empty() => GapReason::Tainted(taints),
            Verdict::Missing { sectors } => GapReason::CrossCheck { missing_sectors: sectors },
            // The statistics of these disks are never off.
            Verdict::Unkept { sectors } => unreachable!("{sectors} sectors not kept"),
            Verdict::Confirmed | Verdict::Plausible => return,
        };
        self.open_gap(disk, reason);
        if let (GapReason::Tainted(taints), Some(kernel)) =
            (reason, &mut self.machine.disks[disk].kernel)
        {
            kernel.clear_taints(taints);
        }
    }

    /// A gap was found: every chunk is suspect.
    pub(super) fn open_gap(&mut self, disk: usize, reason: GapReason) {
        note!(self, "disk {disk}: a gap: {reason}");
        let now = MonotonicNs(self.clock.now());
        let before = self.gap(disk);
        let source = &mut self.machine.disks[disk];
        if let Some(kernel) = &mut source.kernel {
            kernel.fill_pending();
        }
        source.unseen = false;
        self.tracker(disk).handle_gap(reason, now);
        if before.is_some() {
            // A pass goes on; a comparison follows it, whatever becomes of this agent.
            self.write_log(disk, LogState::Open);
        }
        self.note_gap(disk, before);
    }

    /// Makes a gap that has opened survive the agent, and one that has closed forgotten.
    pub(super) fn note_gap(&mut self, disk: usize, before: Option<GapReason>) {
        let after = self.gap(disk);
        if after == before {
            return;
        }
        note!(self, "disk {disk}: coverage is {after:?}");
        if after.is_some() {
            let outstanding = self.tracker(disk).outstanding();
            if let Some(kernel) = &mut self.machine.disks[disk].kernel {
                kernel.keep_pending(&outstanding);
            }
        }
        self.write_log(disk, LogState::Open);
    }

    pub(super) fn write_log(&mut self, disk: usize, state: LogState) {
        let Some(agent) = &self.agent else { return };
        let tracker = &agent.disks[disk].tracker;
        let coverage = tracker.coverage_to_log();
        let header = self.log_header(disk, tracker.acked(), coverage, state);
        let log = Log { header, dirty: tracker.outstanding() };
        if let Err(error) = hrl::write(&self.machine.state, &log_path(disk), &log) {
            note!(self, "disk {disk}: the log: {error}");
        }
    }

    fn log_header(
        &self,
        disk: usize,
        acked: Epoch,
        coverage: Coverage,
        state: LogState,
    ) -> LogHeader {
        LogHeader {
            disk: Machine::id_of(disk),
            generation: GENERATION,
            geometry: self.machine.disks[disk].geometry(),
            boot_id: self.boot_id(),
            disk_sequence: disk as u64,
            acked,
            coverage,
            state,
        }
    }

    fn boot_id(&self) -> [u8; 16] {
        (self.machine.boot as u128).to_le_bytes()
    }

    /// Drops the pending bits of what is durable, then notes the epoch beside them.
    pub(super) fn release(&mut self, disk: usize, released: &Bitmap) {
        let acked = self.tracker(disk).acked();
        if let Err(what) = self.checks.releases(disk, released, acked) {
            self.fail(what);
        }
        if let Some(kernel) = &mut self.machine.disks[disk].kernel {
            kernel.drop_pending(released);
            kernel.acked = acked;
        }
    }

    pub(super) fn gap(&self, disk: usize) -> Option<GapReason> {
        self.agent.as_ref()?.disks[disk].gap()
    }

    pub(super) fn agent_disk(&mut self, disk: usize) -> &mut AgentDisk {
        &mut self.agent.as_mut().expect("asked only of an agent that runs").disks[disk]
    }

    pub(super) fn tracker(&mut self, disk: usize) -> &mut DiskTracker {
        &mut self.agent_disk(disk).tracker
    }
}

fn log_path(disk: usize) -> StorePath {
    StorePath::root().join(&format!("{disk}.hrl"))
}
