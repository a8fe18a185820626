//! Writes on their way: issued, on the medium, done, and the application told.
//!
//! The order of the last steps is the kernel's: on a request-based disk the programs mark and count
//! before the statistics do, on a bio-based one after; the application is always told last.

use crate::{
    clock::US,
    conflicts::Half,
    history::WriteId,
    kernel::Class,
    world::{Event, World, note},
};

impl World {
    pub(super) fn start_streams(&mut self) {
        for stream in 0..self.machine.streams.len() {
            let first = self.rng.below(self.scenario.pause_max);
            let boot = self.machine.boot;
            self.clock.after(first, Event::Issue { boot, stream });
        }
    }

    pub(super) fn issue(&mut self, stream: usize) {
        if self.is_healed() {
            return;
        }
        let step = self.step();
        let geometries: Vec<_> = self.machine.disks.iter().map(|disk| disk.geometry()).collect();
        let (disk, request) = self.machine.streams[stream].request(&geometries, &mut self.rng);
        let write = self.machine.disks[disk].history_mut().issue(request, step);
        let (start, len) = (request.extent.start.0, request.extent.sectors);
        note!(self, "disk {disk}: write {} of {len} sectors at {start}", write.0);
        // The issue program has started, and knows which half it marks; it may take its time.
        let half = self.machine.conflicts.in_use();
        if self.rng.chance(200) {
            let boot = self.machine.boot;
            let delay = self.rng.spread(US, 300 * US);
            self.clock.after(delay, Event::Submit { boot, disk, write, stream, half });
        } else {
            self.submit(disk, write, stream, half);
        }
    }

    /// The issue program marks, and only then the disk gets the write.
    pub(super) fn submit(&mut self, disk: usize, write: WriteId, stream: usize, half: Half) {
        let source = &mut self.machine.disks[disk];
        let request = source.history().write(write).request;
        let chunks = source.geometry().chunks_of(request.extent);
        source.disk.issue(write, request.extent, request.content);
        if self.machine.skips_issue > 0 {
            self.machine.skips_issue -= 1;
            self.machine.conflicts.misses += 1;
        } else {
            self.machine.conflicts.mark(half, disk, chunks);
        }
        let boot = self.machine.boot;
        let latency = self.rng.spread(10 * US, self.scenario.latency_max);
        for _ in 0..self.rng.below(3) {
            let at = self.rng.below(latency);
            self.clock.after(at, Event::Medium { boot, disk, write });
        }
        self.clock.after(latency, Event::Finish { boot, disk, write, stream });
    }

    pub(super) fn medium(&mut self, disk: usize, write: WriteId) {
        let count = 1 + self.rng.index(12);
        self.machine.disks[disk].disk.apply(write, count);
    }

    pub(super) fn finish(&mut self, disk: usize, write: WriteId, stream: usize) {
        let now = self.clock.now();
        let source = &mut self.machine.disks[disk];
        source.disk.complete(write);
        let request = source.history().write(write).request;
        if let Some(kernel) = &mut source.kernel {
            match kernel.class {
                Class::Bio => kernel.count(&request),
                Class::Request if std::mem::take(&mut source.misses_next) => source.unseen = true,
                Class::Request => kernel.see_completion(&request, now),
            }
        }
        let boot = self.machine.boot;
        let later = self.rng.between(1, 3 * US);
        self.clock.after(later, Event::Told { boot, disk, write, stream });
    }

    pub(super) fn tell(&mut self, disk: usize, write: WriteId, stream: usize) {
        let (now, step) = (self.clock.now(), self.step());
        let source = &mut self.machine.disks[disk];
        let request = source.history().write(write).request;
        if let Some(kernel) = &mut source.kernel {
            match kernel.class {
                Class::Request => kernel.count(&request),
                Class::Bio if std::mem::take(&mut source.misses_next) => source.unseen = true,
                Class::Bio => kernel.see_completion(&request, now),
            }
        }
        source.disk.acknowledge(write);
        source.history_mut().complete(write, step);
        if self.rng.chance(100) {
            source.disk.flush();
        }
        note!(self, "disk {disk}: write {} acknowledged", write.0);
        let boot = self.machine.boot;
        let (pause_max, (quiet_from, quiet_until)) = (self.scenario.pause_max, self.scenario.quiet);
        let pause = match self.rng.chance(100) {
            true => self.rng.below(20 * US),
            false => self.rng.between(pause_max / 8, pause_max),
        };
        let mut next = now + pause;
        if (self.began + quiet_from..self.began + quiet_until).contains(&next) {
            next = self.began + quiet_until + pause;
        }
        self.clock.at(next, Event::Issue { boot, stream });
    }

    /// While somebody sweeps the bitmap, writes may complete.
    pub(super) fn let_a_write_finish(&mut self, disk: usize) {
        if !self.rng.chance(200) {
            return;
        }
        let boot = self.machine.boot;
        let due = self.clock.take_first(|event| {
            matches!(event, Event::Finish { boot: of, disk: on, .. }
                | Event::Told { boot: of, disk: on, .. } if *of == boot && *on == disk)
        });
        match due {
            Some(Event::Finish { write, stream, .. }) => self.finish(disk, write, stream),
            Some(Event::Told { write, stream, .. }) => self.tell(disk, write, stream),
            _ => {}
        }
    }
}
