//! Faults as they happen, and what comes back afterwards.

use blocks::{MarkKind, Taint};

use crate::{
    clock::{MS, S},
    faults::Fault,
    history::Request,
    target::{End, EndKind},
    world::{Event, World, link::IDLE, note},
};

impl World {
    pub(super) fn go_wrong(&mut self, index: usize) {
        let (_, fault) = self.scenario.faults[index];
        note!(self, "FAULT: {fault:?}");
        self.checks.faults.push(fault.name());
        match fault {
            Fault::AgentKill { down } => self.kill_agent(down),
            Fault::MachineCrash { down } => self.crash_machine(down),
            Fault::TargetKill { operations, down } => {
                self.end_target(EndKind::Kill, operations, down);
            }
            Fault::TargetPowerCut { operations, down } => {
                self.end_target(EndKind::PowerCut, operations, down);
            }
            Fault::ConnectionCut { agent_hears, target_hears } => {
                self.cut_connection(agent_hears, target_hears);
            }
            Fault::TargetStall { still } => self.target_still_until = self.clock.now() + still,
            Fault::AgentStall { still } => self.agent_still_until = self.clock.now() + still,
            Fault::StoreError { operations, error } => {
                let storage = &self.target.storage;
                storage.fail_at(storage.operations() + operations, error);
            }
            Fault::LogError { operations, error } => {
                let state = &self.machine.state;
                state.fail_at(state.operations() + operations, error);
            }
            Fault::MissedCompletion => self.miss_next(),
            Fault::SkippedProgram { writes } => self.machine.skips_issue += writes,
            Fault::Passthrough => self.pass_through(),
            Fault::Leap { by } => self.clock.leap(by),
            Fault::ReadError { reads } => {
                let disk = self.rng.index(self.machine.disks.len());
                self.machine.disks[disk].read_fails_after = Some(reads);
            }
        }
    }

    fn kill_agent(&mut self, down: u64) {
        let Some(agent) = self.agent.take() else { return };
        // Nothing says goodbye; the target waits.
        if let Some(link) = agent.link {
            self.network.cut(link.id);
            let hears = self.rng.spread(MS, IDLE);
            self.clock.after(hears, Event::TargetHears { connection: link.id });
        }
        self.clock.after(down, Event::StartAgent);
    }

    fn crash_machine(&mut self, down: u64) {
        if !self.machine.is_up {
            return;
        }
        self.kill_agent(down);
        let step = self.step();
        self.machine.is_up = false;
        self.machine.boot += 1;
        for disk in &mut self.machine.disks {
            disk.lose_power(&mut self.rng, step);
        }
        let rng = &mut self.rng;
        let kept = *rng.pick(&[0, 500, 1000]);
        self.machine.state = self.machine.state.after_crash(|_| match rng.chance(kept) {
            true => storage::faulty::Fate::Kept,
            false => storage::faulty::Fate::Dropped,
        });
        self.clock.after(down, Event::StartMachine);
    }

    /// The machine comes back: applications write at once, the agent starts some time later.
    pub(super) fn start_machine(&mut self) {
        note!(self, "the machine starts");
        self.machine.is_up = true;
        self.start_streams();
        let later = self.rng.spread(MS, S);
        self.clock.after(later, Event::StartAgent);
    }

    fn end_target(&mut self, kind: EndKind, operations: u64, down: u64) {
        if self.target.is_up() && self.target.end.is_none() {
            let operation = self.target.storage.operations() + operations;
            self.target.end = Some(End { operation, down, kind });
            self.target.storage.power_off_after(operations);
        }
    }

    fn cut_connection(&mut self, agent_hears: u64, target_hears: u64) {
        let Some(connection) = self.connection() else { return };
        self.network.cut(connection);
        let life = self.agent_life;
        self.clock.after(agent_hears, Event::AgentHears { life, connection });
        self.clock.after(target_hears, Event::TargetHears { connection });
    }

    /// The programs don't see the next completion. Before the cross-check has settled, this would
    /// be found by nothing (`docs/simulator.md`).
    fn miss_next(&mut self) {
        let disk = self.rng.index(self.machine.disks.len());
        let source = &mut self.machine.disks[disk];
        source.misses_next = source.kernel.as_ref().is_some_and(|kernel| kernel.baseline.is_some());
    }

    /// A command that no accounting covers writes a block; the programs see that it ran.
    fn pass_through(&mut self) {
        if !self.machine.is_up || self.is_healed() {
            return;
        }
        let disk = self.rng.index(self.machine.disks.len());
        let (issued, done) = (self.step(), self.step());
        let start = self.rng.below(self.machine.disks[disk].geometry().sectors());
        let extent = blocks::Extent { start: blocks::Sector(start), sectors: 1 };
        let content = crate::content::Content(u64::MAX - issued.0);
        let kind = MarkKind::Write;
        let (number, repeats) = (issued.0, issued.0);
        let request = Request { stream: u32::MAX, number, repeats, extent, content, kind };
        let source = &mut self.machine.disks[disk];
        let write = source.history_mut().issue(request, issued);
        source.disk.issue(write, extent, content);
        source.disk.complete(write);
        source.disk.acknowledge(write);
        source.history_mut().complete(write, done);
        if let Some(kernel) = &mut source.kernel {
            kernel.taint(Taint::Passthrough);
            source.unseen = true;
        }
    }

    /// Why not everything is equal yet.
    pub(super) fn unsettled(&self) -> Option<String> {
        let Some(agent) = &self.agent else { return Some("the agent is down".into()) };
        for (index, (source, disk)) in self.machine.disks.iter().zip(&agent.disks).enumerate() {
            let why = |what: &str| Some(format!("disk {index}: {what}"));
            if !source.disk.is_quiet() {
                return why("writes are under way");
            }
            if source.unseen {
                return why("a write that was not seen has opened no gap");
            }
            if disk.tracker.in_pass() || disk.gap().is_some() {
                return why("a gap is open");
            }
            if source.kernel.as_ref().is_none_or(|kernel| !kernel.is_clean()) {
                return why("something is dirty or pending");
            }
            if let Some(what) = self.checks.unequal(index, source.disk.content()) {
                return why(&what);
            }
        }
        None
    }
}
