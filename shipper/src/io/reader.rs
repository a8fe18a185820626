//! The reader: one thread that owns the ring, the disks and every shipment's plan.
//!
//! Its loop: take commands, start batches, issue reads, sleep in the ring, take completions. It
//! never waits for anything else: not for a worker, a receiver or a replica's hashes.
//!
//! Invariants:
//! - `reads in the ring <= depth`, which is what the ring was made for;
//! - a buffer that the kernel may write into belongs to a [`Loading`], which is let go only after
//!   all of its reads have completed;
//! - batches of a shipment are numbered 0, 1, 2, ... without a gap, and `PlanEnds` says how many.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TryRecvError};

use super::{
    parcel::Filled,
    ring::{Completion, ReadOp, Ring},
};
use crate::{
    ahead::ReadAhead,
    disk::{AddDiskError, DiskHandle, DiskSource},
    latency::Stage,
    limit::{IoPriority, Limits, Throttle},
    shared::Shared,
    shipment::{Content, ShipError},
};

mod disks;
mod governor;
mod line;
mod loading;
mod patience;

use disks::Disks;
pub(crate) use governor::Governor;
use line::Next;
pub(crate) use line::{Line, Source};
use loading::{Loading, Loadings, ReadKey, Step};
use patience::Patience;

/// What the reader is asked to do. When nobody is left who could ask, it ends.
pub(crate) enum Command {
    /// Read from one more disk.
    AddDisk { source: DiskSource, file: File, reply: Sender<Result<DiskHandle, AddDiskError>> },
    /// Read from a disk no more, and fail its shipments.
    RemoveDisk(DiskHandle),
    /// Ship.
    Ship(Line),
    /// Keep other limits from now on.
    Limit(Limits),
}

/// How the reader goes about it.
pub(crate) struct ReaderConfig {
    /// Reads in the ring at a time.
    pub(crate) depth: usize,
    /// Batches that may wait for a worker.
    pub(crate) backlog_max: usize,
    pub(crate) limits: Limits,
    pub(crate) priority: Option<IoPriority>,
}

/// The thread's own things.
pub(crate) struct Reader {
    ring: Ring,
    config: ReaderConfig,
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    filled: Sender<Filled>,
    origin: Instant,
    disks: Disks,
    /// The shipments, the one whose turn it is first.
    lines: VecDeque<Line>,
    loadings: Loadings,
    /// Reads that were not issued yet.
    queue: VecDeque<ReadKey>,
    in_ring: usize,
    ahead: ReadAhead,
    throttle: Throttle,
    governor: Governor,
    patience: Patience,
    stopping: bool,
}

/// What a reader talks to.
pub(crate) struct ReaderChannels {
    pub(crate) commands: Receiver<Command>,
    /// Has room for every buffer of the pool.
    pub(crate) filled: Sender<Filled>,
}

impl Reader {
    pub(crate) fn new(
        ring: Ring,
        config: ReaderConfig,
        shared: Arc<Shared>,
        channels: ReaderChannels,
        governor: Governor,
    ) -> Self {
        let throttle = Throttle::new(config.limits, Duration::ZERO);
        let ahead = ReadAhead::new(config.depth, config.backlog_max);
        Self {
            ring,
            config,
            shared,
            commands: channels.commands,
            filled: channels.filled,
            origin: Instant::now(),
            disks: Disks::default(),
            lines: VecDeque::new(),
            loadings: Loadings::default(),
            queue: VecDeque::new(),
            in_ring: 0,
            ahead,
            throttle,
            governor,
            patience: Patience::new(),
            stopping: false,
        }
    }

    /// Runs until the engine is dropped and the kernel has let go of every buffer.
    ///
    /// # Errors
    /// If the ring fails. All shipments then end as stopped.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut completions = Vec::new();
        loop {
            self.ring.begin_round();
            self.take_commands();
            if self.stopping && self.loadings.count() == 0 {
                return Ok(());
            }
            self.start_batches();
            let pause = self.issue_reads();
            self.govern();
            let wish = self.patience.wish(self.in_ring);
            let limit = [self.sleep_limit(pause), wish.limit].into_iter().flatten().min();
            self.ring.wait(wish.reads, limit)?;
            self.ring.completions(&mut completions);
            self.patience.handle_wait(wish, completions.len());
            for completion in completions.drain(..) {
                self.handle_completion(completion);
            }
        }
    }

    fn take_commands(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.apply(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.stop(),
            }
        }
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::AddDisk { source, file, reply } => {
                let added = self.disks.add(&self.ring, &source, file);
                // Whoever asked may have given up; the disk then stays, unused.
                let _ = reply.send(added);
            }
            Command::RemoveDisk(disk) => {
                self.disks.remove(&self.ring, disk);
                let lines = self.lines.iter().map(|line| (line.disk, &line.producer));
                let loadings = self.loadings.iter().map(|load| (load.disk, &load.producer));
                // Also what is queued: another disk may get this one's place.
                for (_, producer) in lines.chain(loadings).filter(|(of, _)| *of == disk) {
                    producer.fail(ShipError::DiskRemoved);
                }
            }
            Command::Ship(line) if self.disks.holds(line.disk) => self.lines.push_back(line),
            Command::Ship(line) => line.producer.fail(ShipError::DiskRemoved),
            Command::Limit(limits) => self.throttle = Throttle::new(limits, self.origin.elapsed()),
        }
    }

    /// Fails every shipment; what was not issued is given up in its turn.
    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.lines.drain(..).for_each(|line| line.producer.fail(ShipError::Stopped));
            self.loadings.iter().for_each(|loading| loading.producer.fail(ShipError::Stopped));
        }
    }

    /// Starts batches, while there are buffers and somebody will need them soon.
    fn start_batches(&mut self) {
        if self.start_batches_in_turn() {
            self.ring.want();
            // What came before that was told to nobody.
            self.start_batches_in_turn();
        }
    }

    /// The same, of all shipments in turn; says whether more could be started if somebody gave a
    /// batch, a permit or a buffer. Otherwise reads are under way, whose end is told anyway.
    fn start_batches_in_turn(&mut self) -> bool {
        let mut waiting = 0;
        while waiting < self.lines.len()
            && self.queue.len() < self.config.depth
            && self.filled.len() < self.config.backlog_max
            && self.loadings.count() < self.ahead.batches()
            && self.shared.pool.free_count() > 0
            && let Some(mut line) = self.lines.pop_front()
        {
            match line.next() {
                Next::Ended => waiting = 0,
                Next::Waits => {
                    waiting += 1;
                    self.lines.push_back(line);
                }
                Next::Batch(planned, permit) => {
                    waiting = 0;
                    // Only the reader takes buffers, and there was a free one.
                    if let Some(buffer) = self.shared.pool.take() {
                        let mut loading = Loading::new(&line, planned, permit, buffer);
                        match &line.content {
                            Content::Disk => self.queue.extend(self.loadings.insert(loading)),
                            Content::Image(image) => {
                                loading.fill_from(image);
                                self.pass_on(Box::new(loading));
                            }
                        }
                    }
                    self.lines.push_back(line);
                }
            }
        }
        waiting > 0
            || self.filled.len() >= self.config.backlog_max
            || self.shared.pool.free_count() == 0
    }

    /// Issues reads as far as depth and limits allow; returns how long to wait for the limits.
    fn issue_reads(&mut self) -> Option<Duration> {
        while self.in_ring < self.config.depth
            && let Some(key) = self.queue.front().copied()
        {
            let loading = self.loadings.get(key);
            if loading.is_given_up() {
                self.queue.pop_front();
                self.loadings.give_up(key);
                continue;
            }
            let rest = loading.rest_of(key);
            let admitted = self.throttle.admit(rest.len().0, self.origin.elapsed());
            if let Err(pause) = admitted {
                return Some(pause);
            }
            self.queue.pop_front();
            let read = ReadOp {
                number: key.number(),
                slot: loading.disk.slot,
                offset: rest.offset,
                at: rest.at,
                len: rest.len,
                priority: self.config.priority,
            };
            // SAFETY: the buffer stays with the loading, which touches its bytes no more and is
            // let go only when none of its reads is outstanding.
            unsafe { self.ring.push(read, &loading.buffer) };
            self.in_ring += 1;
        }
        None
    }

    fn handle_completion(&mut self, completion: Completion) {
        self.in_ring -= 1;
        let key = ReadKey::from_number(completion.number);
        match self.loadings.handle_completion(key, completion.result) {
            Step::Again => self.queue.push_front(key),
            Step::Outstanding => {}
            Step::Complete(loading) => self.pass_on(loading),
        }
    }

    /// Passes a batch on to the workers, unless it failed or nobody wants it any more.
    fn pass_on(&mut self, loading: Box<Loading>) {
        if loading.is_given_up() {
            return;
        }
        self.shared.latencies.record(Stage::Read, loading.begun.elapsed());
        loading.producer.route.progress.add_read(loading.planned.batch.shipped_bytes().0);
        self.ahead.handle_read(self.filled.len());
        // It has room for every buffer there is. If the workers are gone, so is the engine.
        let _ = self.filled.send(loading.into_filled());
    }

    fn govern(&mut self) {
        let backlog = self.filled.len() as f32 / self.config.backlog_max as f32;
        self.governor.handle_round(&self.shared, backlog, self.origin.elapsed());
    }

    /// How long to sleep at most: until the limits allow the next read, or the governor looks
    /// again.
    fn sleep_limit(&self, pause: Option<Duration>) -> Option<Duration> {
        let look = self.governor.next_look(self.origin.elapsed());
        [pause, look].into_iter().flatten().min()
    }
}
