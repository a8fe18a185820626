//! Cuts: the product's own core ([`tracker::cut`]) over simulated disks that are written to.
//!
//! Every step is an event of its own, and so is each part of a read: between a flip, each word of a
//! harvest, each half of a read and each look, writes start, are submitted, reach the medium and
//! complete. What was verified is sealed on all disks, and shipped from memory.

use std::{collections::BTreeMap, time::Duration};

use blocks::{Consistency, CutMethod, CutTime, MonotonicNs, Mutant, PointId, PointRecord};
use tracker::{
    Harvest,
    cut::{Cut, CutDisk, CutLimits, Finished, Freeze, Look, Outcome, Read, Step as CutStep},
};

use crate::{
    agent::{AgentDisk, Image, Standing},
    clock::{MS, Step, US},
    content::sectors,
    world::{Event, World, note},
};

/// A cut under way.
pub(crate) struct Cutting {
    cut: Cut,
    /// What was read of each disk; the newest read wins.
    images: Vec<Image>,
    reads: BTreeMap<u64, Read>,
    flipped: Step,
}

/// How far a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadPart {
    First,
    Second,
    Look,
}

impl World {
    /// Begins a cut over all disks, if a point is due and all of them can be cut.
    pub(super) fn begin_cut_if_due(&mut self) {
        if !self.point_is_due() {
            return;
        }
        let now = self.clock.now();
        let Some(agent) = &mut self.agent else { return };
        if !agent.disks.iter().all(|disk| disk.tracker.can_cut()) {
            return;
        }
        let disks = agent.disks.iter_mut().map(|disk| CutDisk {
            geometry: disk.tracker.geometry(),
            dirty: disk.tracker.begin_cut(),
            heat: std::mem::take(&mut disk.heat),
        });
        let (seed, began) = (self.rng.next(), MonotonicNs(now));
        let cut = Cut::new(CutLimits::default(), Freeze::Never, disks.collect(), seed, began);
        let images = vec![Image::new(); agent.disks.len()];
        agent.next_point = now + self.scenario.point_every;
        agent.cutting = Some(Cutting { cut, images, reads: BTreeMap::new(), flipped: Step(0) });
        note!(self, "a cut begins");
        self.step_cut_after(0);
    }

    /// Whether ordinary epochs wait for a point.
    pub(super) fn point_is_due(&self) -> bool {
        let (now, Some(agent)) = (self.clock.now(), &self.agent) else { return false };
        let follows = |disk: &AgentDisk| {
            let open = matches!(disk.standing, Standing::Open(_));
            open && now >= disk.held_until && disk.gap().is_none()
        };
        self.scenario.point_every > 0
            && agent.cutting.is_none()
            && now >= agent.next_point
            && agent.disks.iter().all(follows)
    }

    fn step_cut_after(&mut self, delay: u64) {
        let life = self.agent_life;
        self.clock.after(delay, Event::Cut { life });
    }

    pub(super) fn cut(&mut self) {
        let now = MonotonicNs(self.clock.now());
        let Some(cutting) = self.agent.as_mut().and_then(|agent| agent.cutting.as_mut()) else {
            return;
        };
        match cutting.cut.poll(now) {
            CutStep::Flip(_) => self.flip(),
            CutStep::Harvest => self.harvest_for_cut(),
            CutStep::Read(read) => {
                cutting.reads.insert(read.id, read);
                let latency = self.rng.spread(US, 200 * US);
                let life = self.agent_life;
                let part = ReadPart::First;
                self.clock.after(latency, Event::CutRead { life, id: read.id, part });
                self.step_cut_after(US);
            }
            // The look of a read goes on.
            CutStep::Wait => {}
            CutStep::Check => {
                let misses = self.machine.conflicts.misses;
                cutting.cut.handle_check(misses, false, now);
                self.machine.conflicts.clear_other();
                self.step_cut_after(US);
            }
            CutStep::Pause(pause) => {
                self.step_cut_after(u64::try_from(pause.as_nanos()).unwrap_or(MS));
            }
            CutStep::Done => self.finish_cut(),
        }
    }

    /// The instant T.
    fn flip(&mut self) {
        let step = self.step();
        let now = self.clock.now();
        let misses = self.machine.conflicts.misses;
        self.machine.conflicts.flip();
        let Some(cutting) = self.agent.as_mut().and_then(|agent| agent.cutting.as_mut()) else {
            return;
        };
        cutting.flipped = step;
        let at = CutTime { unix_ns: now, monotonic: MonotonicNs(now) };
        cutting.cut.handle_flip(misses, at);
        let delay = self.rng.spread(US, 20 * US);
        self.step_cut_after(delay);
    }

    fn harvest_for_cut(&mut self) {
        for disk in 0..self.machine.disks.len() {
            let words = self.machine.disks[disk].kernel.as_ref().map_or(0, |kernel| kernel.words());
            for word in 0..words {
                self.let_a_write_finish(disk);
                let Some(kernel) = &mut self.machine.disks[disk].kernel else { return };
                let bits = kernel.harvest_word(word);
                let Some(cutting) = self.agent.as_mut().and_then(|it| it.cutting.as_mut()) else {
                    return;
                };
                cutting.cut.handle_dirty(disk, word as u64, bits);
            }
            if let Some(cutting) = self.agent.as_mut().and_then(|agent| agent.cutting.as_mut()) {
                cutting.cut.handle_harvested(disk);
            }
        }
        self.step_cut_after(US);
    }

    pub(super) fn cut_read(&mut self, id: u64, part: ReadPart) {
        let now = MonotonicNs(self.clock.now());
        let Some(cutting) = self.agent.as_mut().and_then(|agent| agent.cutting.as_mut()) else {
            return;
        };
        let Some(read) = cutting.reads.get(&id).copied() else { return };
        let source = &self.machine.disks[read.disk];
        if part == ReadPart::Look {
            cutting.reads.remove(&id);
            let conflicted = self.machine.conflicts.conflicted(read.disk, read.chunks);
            let look = if conflicted { Look::Conflict } else { Look::Clear };
            cutting.cut.handle_read(id, look, now);
            return self.step_cut_after(US);
        }
        let all = sectors(source.geometry().extent_of(read.chunks));
        let middle = all.start + all.len() / 2;
        let (these, next) = match part {
            ReadPart::First => (all.start..middle, ReadPart::Second),
            ReadPart::Second | ReadPart::Look => (middle..all.end, ReadPart::Look),
        };
        for sector in these {
            cutting.images[read.disk].insert(sector, source.disk.content()[sector]);
        }
        let latency = self.rng.spread(US, 40 * US);
        let life = self.agent_life;
        self.clock.after(latency, Event::CutRead { life, id, part: next });
    }

    fn finish_cut(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let Some(Cutting { cut, images, flipped, .. }) = agent.cutting.take() else { return };
        let Finished { outcome, disks, .. } = cut.finish();
        note!(self, "the cut: {outcome}");
        let (mut chunks, mut heats) = (Vec::new(), Vec::new());
        for disk in disks {
            chunks.push(disk.chunks);
            heats.push(disk.heat);
        }
        for (disk, heat) in heats.into_iter().enumerate() {
            self.agent_disk(disk).heat = heat;
        }
        let follows = self.agent.as_ref().is_some_and(|agent| {
            agent
                .disks
                .iter()
                .all(|disk| disk.tracker.can_cut() && matches!(disk.standing, Standing::Open(_)))
        });
        match outcome {
            Outcome::Verified(verified) if follows => {
                let record = self.record(verified.at, verified.attempts, verified.window);
                for (disk, (chunks, mut image)) in chunks.into_iter().zip(images).enumerate() {
                    if Mutant::PointOfTwoInstants.is_on() && disk > 0 {
                        let now = self.machine.disks[disk].disk.content();
                        image.iter_mut().for_each(|(sector, held)| *held = now[*sector]);
                    }
                    let before = self.tracker(disk).newest();
                    let at = verified.at.monotonic;
                    let Some(sealed) = self.tracker(disk).seal_cut(at, chunks) else { continue };
                    note!(self, "disk {disk}: point {} is epoch {}", self.points, sealed.epoch());
                    let (boot, unseen) = (self.machine.boot, self.machine.disks[disk].unseen);
                    self.checks.sealed(disk, &sealed, flipped, boot, unseen);
                    self.checks.makes_point(disk, sealed.epoch(), record);
                    self.begin_shipment(disk, sealed, before, Some((image, record)));
                }
            }
            _ => {
                let started = MonotonicNs(self.clock.now());
                for (disk, chunks) in chunks.into_iter().enumerate() {
                    self.tracker(disk).handle_harvest(&Harvest { started, chunks });
                }
            }
        }
    }

    fn record(&mut self, cut: CutTime, attempts: u32, window: Duration) -> PointRecord {
        self.points += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.points.to_le_bytes());
        PointRecord {
            id: PointId(id),
            cut,
            consistency: Consistency::Crash,
            method: CutMethod::Verified,
            disks: u16::try_from(self.machine.disks.len()).expect("few disks"),
            attempts,
            window,
            freeze: Duration::ZERO,
        }
    }
}
