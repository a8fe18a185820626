//! The engine: its set-up, its disks, its shipments, its end.

use std::{
    convert::Infallible,
    fs::{File, OpenOptions},
    num::NonZeroUsize,
    os::unix::fs::OpenOptionsExt,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use blocks::{ByteLen, EpochKind};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use hdrhistogram::Histogram;
use nix::libc;
use wire::EpochLink;

use crate::{
    compare::LeafSource,
    compress::{Effort, Packer},
    disk::{AddDiskError, DiskHandle, DiskSource},
    io::{
        collector::{Collector, CollectorParts},
        flow::{Flow, Window},
        hashes::{BATCHES_AHEAD, HashFetcher},
        leaves::{LeafComparison, Undecided},
        parcel::{Filled, Producer, Route},
        pool::{BUFFER_BYTES, Pool},
        reader::{Command, Governor, Line, Reader, ReaderChannels, ReaderConfig, Source},
        ring::Ring,
        sealing::Sealing,
        wake::{self, Sleeper},
        worker::Worker,
    },
    latency::Stage,
    level::{Bottleneck, LevelController, LevelRange},
    limit::{IoPriority, Limits},
    plan::{Plan, PlanLimits},
    progress::Progress,
    shared::Shared,
    shipment::{Job, ShipRefused, Shipment},
    start::StartError,
};

/// How an engine works. The default suits a server that does something else beside.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Memory for data under way: half of it in buffers that disks are read into, half in frames
    /// that wait for their receiver. Frames that were taken are the receiver's.
    pub pool: ByteLen,
    /// Threads that compress and seal.
    pub workers: NonZeroUsize,
    /// Reads under way at a time, over all disks.
    pub queue_depth: NonZeroUsize,
    /// Limits that protect the application.
    pub limits: Limits,
    /// The I/O priority of reads; none is that of the process.
    pub priority: Option<IoPriority>,
    /// How hard to compress.
    pub compression: Compression,
    /// How to trade reads for bytes.
    pub plan: PlanLimits,
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Off,
    /// As the bottleneck has it, with zstd levels from this range.
    Adaptive(LevelRange),
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            pool: ByteLen(128 << 20),
            workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            queue_depth: NonZeroUsize::new(32).unwrap_or(NonZeroUsize::MIN),
            limits: Limits::default(),
            priority: None,
            compression: Compression::Adaptive(LevelRange::default()),
            plan: PlanLimits::default(),
        }
    }
}

/// What an engine does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineStatus {
    /// What holds it back.
    pub bottleneck: Bottleneck,
    /// The zstd level in use; none if compression is off.
    pub level: Option<i32>,
    /// Shipments under way.
    pub shipments: usize,
    /// Batches under way: being read, waiting, or sealed and not yet taken.
    pub batches: usize,
    /// Buffers in use, of how many.
    pub buffers: (usize, usize),
}

/// Reads disks and makes frames. Shared by whoever ships.
///
/// Dropping it stops every shipment and waits for its threads: as long as it takes the kernel to
/// end the reads under way, and a [`HashSource`](crate::HashSource) to return.
pub struct Engine {
    shared: Arc<Shared>,
    plan_limits: PlanLimits,
    /// None only while being dropped.
    ends: Option<Ends>,
    /// The reader and the workers.
    threads: Vec<JoinHandle<()>>,
    /// Those of shipments.
    followers: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads watch for being dropped.
struct Ends {
    commands: Sender<Command>,
    /// Nothing is ever sent: collectors see when it goes.
    _stop: Sender<Infallible>,
    stopped: Receiver<Infallible>,
}

impl Engine {
    /// Starts the threads and sets io_uring up.
    pub fn start(config: EngineConfig) -> Result<Self, StartError> {
        let buffers = buffers_of(config.pool)?;
        let (waker, sleeper) = wake::pair().map_err(StartError::Resources)?;
        let pool = Pool::new(buffers, waker.clone()).map_err(StartError::Resources)?;
        let flow = Flow::new(usize::from(buffers), waker);
        let controller = match config.compression {
            Compression::Off => None,
            Compression::Adaptive(range) => Some(LevelController::new(range)),
        };
        let effort = controller.as_ref().map_or(Effort::Store, |c| Effort::Level(c.level()));
        let shared = Arc::new(Shared::new(Arc::new(pool), Arc::new(flow), effort));
        let (commands, taken) = unbounded();
        let (filled, waiting) = bounded(usize::from(buffers));
        let (stop, stopped) = bounded(0);
        let mut engine = Self {
            shared,
            plan_limits: config.plan,
            ends: Some(Ends { commands, _stop: stop, stopped }),
            threads: Vec::new(),
            followers: Mutex::default(),
        };
        // From here on, an error drops the engine, which ends the threads that were started.
        for _ in 0..config.workers.get() {
            engine.start_worker(&waiting)?;
        }
        let channels = ReaderChannels { commands: taken, filled };
        engine.start_reader(&config, channels, Governor::new(controller), sleeper)?;
        Ok(engine)
    }

    /// Opens a disk, to ship from it.
    pub fn add_disk(&self, source: DiskSource) -> Result<DiskHandle, AddDiskError> {
        let file = open_direct(&source)?;
        let (reply, answer) = bounded(1);
        let asked = self.command(Command::AddDisk { source, file, reply });
        asked.map_err(|Gone| AddDiskError::Stopped)?;
        answer.recv().unwrap_or(Err(AddDiskError::Stopped))
    }

    /// Closes a disk. Its shipments fail.
    pub fn remove_disk(&self, disk: DiskHandle) {
        // If the reader is gone, so is the disk.
        let _ = self.command(Command::RemoveDisk(disk));
    }

    /// Keeps these limits from now on.
    pub fn limit(&self, limits: Limits) {
        // If the reader is gone, nothing is read at all.
        let _ = self.command(Command::Limit(limits));
    }

    /// Begins to ship an epoch. All else comes through the job's sink.
    pub fn ship(&self, job: Job) -> Result<Shipment, ShipRefused> {
        let (epoch, disk) = (job.sealed.chunks().len(), job.disk.geometry.chunks());
        if epoch != disk {
            return Err(ShipRefused::Length { epoch, disk });
        }
        let begun = Instant::now();
        let sealed = Arc::new(job.sealed);
        let plan = Plan::new(Arc::clone(&sealed), job.disk.geometry, self.plan_limits);
        let (hashes, undecided) = match job.replica_hashes {
            Some(replica) if plan.kind() == EpochKind::Compare => {
                let leaves =
                    replica.leaves.map(|source| self.compare_leaves(source)).transpose()?;
                (Some(replica.blocks), leaves)
            }
            _ => (None, None),
        };
        let route = Arc::new(Route {
            geometry: job.disk.geometry,
            link: EpochLink { kind: plan.kind(), epoch: plan.epoch(), follows: job.follows },
            sealer: job.sealer,
            progress: Arc::new(Progress::new(plan.covered().0)),
            window: Arc::new(Window::new(&self.shared.flow)),
            undecided,
        });
        let shipment = Shipment { progress: Arc::clone(&route.progress) };
        let (events, told) = unbounded();
        let stop = self.ends.as_ref().ok_or(ShipRefused::Stopped)?.stopped.clone();
        let collector = Collector::new(CollectorParts {
            shared: Arc::clone(&self.shared),
            route: Arc::clone(&route),
            events: told,
            sink: job.sink,
            stop,
            completes: sealed.completes(),
            point: job.point,
            begun,
        });
        let source = match hashes {
            Some(hashes) => {
                let (steps, taken) = bounded(BATCHES_AHEAD);
                let waker = self.shared.flow.waker.clone();
                let fetcher = HashFetcher::new(plan, hashes, steps, waker);
                self.follow("pinnace-hashes", move || fetcher.run())?;
                Source::Hashes(taken)
            }
            None => Source::Plan(plan),
        };
        self.follow("pinnace-frames", move || collector.run())?;
        let line = Line::new(job.disk, Producer::new(route, events), source, job.content);
        self.command(Command::Ship(line)).map_err(|Gone| ShipRefused::Stopped)?;
        Ok(shipment)
    }

    /// What the engine does now.
    pub fn status(&self) -> EngineStatus {
        let Shared { pool, flow, .. } = &*self.shared;
        let buffers = usize::from(pool.count());
        EngineStatus {
            bottleneck: self.shared.bottleneck(),
            level: match self.shared.effort() {
                Effort::Store => None,
                Effort::Level(level) => Some(level),
            },
            shipments: flow.shipments(),
            batches: flow.under_way(),
            buffers: (buffers - pool.free_count(), buffers),
        }
    }

    /// Why the engine no longer reads, if io_uring failed it. Only a new engine helps.
    pub fn fault(&self) -> Option<&std::io::Error> {
        self.shared.fault.get()
    }

    /// How long a stage has taken, for each batch since the start, in nanoseconds.
    pub fn latencies(&self, stage: Stage) -> Histogram<u64> {
        self.shared.latencies.snapshot(stage)
    }

    fn command(&self, command: Command) -> Result<(), Gone> {
        let ends = self.ends.as_ref().ok_or(Gone)?;
        ends.commands.send(command).map_err(|_| Gone)?;
        self.shared.flow.waker.wake();
        Ok(())
    }

    fn start_worker(&mut self, filled: &Receiver<Filled>) -> Result<(), StartError> {
        let packer = Packer::new().map_err(StartError::Resources)?;
        let sealing = Sealing { shared: Arc::clone(&self.shared), packer };
        let worker = Worker { filled: filled.clone(), sealing };
        let thread = spawn("pinnace-worker", move || worker.run());
        self.threads.push(thread.map_err(StartError::Resources)?);
        Ok(())
    }

    /// Starts the reader and waits until its ring is set up, which it has to do itself.
    fn start_reader(
        &mut self,
        config: &EngineConfig,
        channels: ReaderChannels,
        governor: Governor,
        sleeper: Sleeper,
    ) -> Result<(), StartError> {
        let shared = Arc::clone(&self.shared);
        let depth = config.queue_depth.get().min(DEPTH_MAX);
        let reader_config = ReaderConfig {
            depth,
            backlog_max: 2 * config.workers.get(),
            limits: config.limits,
            priority: config.priority,
        };
        let (ready, started) = bounded(1);
        let thread = spawn("pinnace-reader", move || {
            let entries = u32::try_from(depth).expect("at most DEPTH_MAX");
            match Ring::new(entries, &shared.pool, sleeper) {
                Ok(ring) => {
                    // Whoever started us waits for this.
                    let _ = ready.send(Ok(()));
                    let mine = Arc::clone(&shared);
                    let reader = Reader::new(ring, reader_config, mine, channels, governor);
                    // A ring that fails ends every shipment as stopped; why is told on request.
                    if let Err(error) = reader.run() {
                        shared.fault.get_or_init(|| error);
                    }
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        });
        self.threads.push(thread.map_err(StartError::Resources)?);
        started.recv().unwrap_or(Err(StartError::KernelTooOld))
    }

    /// Starts the thread that tells which leaves of a block differ. It ends with the shipment, when
    /// nobody is left who could pass on a block.
    fn compare_leaves(&self, source: LeafSource) -> Result<Sender<Undecided>, ShipRefused> {
        let packer = Packer::new().map_err(ShipRefused::Thread)?;
        let sealing = Sealing { shared: Arc::clone(&self.shared), packer };
        let (undecided, batches) = unbounded();
        let comparison = LeafComparison { source, batches, sealing };
        self.follow("pinnace-leaves", move || comparison.run())?;
        Ok(undecided)
    }

    /// Starts a thread of a shipment, and forgets those that have ended.
    fn follow(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ShipRefused> {
        let thread = spawn(name, work).map_err(ShipRefused::Thread)?;
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|thread| !thread.is_finished());
        followers.push(thread);
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Collectors that wait for a receiver see this, and the reader, which ends the workers.
        self.ends = None;
        self.shared.flow.waker.wake();
        let followers = self.followers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in self.threads.drain(..).chain(followers.drain(..)) {
            // A thread that panicked has said so; there is nothing more to do about it.
            let _ = thread.join();
        }
    }
}

/// The reader is gone.
struct Gone;

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Engine>();
};

/// Reads in the ring at most.
const DEPTH_MAX: usize = 1024;

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// How many buffers half a pool of this size is.
fn buffers_of(pool: ByteLen) -> Result<u16, StartError> {
    // The kernel before 5.13 registers no more.
    const BUFFERS_MAX: u64 = 1024;
    let buffers = pool.0 / 2 / BUFFER_BYTES as u64;
    let fits = u16::try_from(buffers).ok().filter(|_| (1..=BUFFERS_MAX).contains(&buffers));
    fits.ok_or(StartError::PoolSize(pool))
}

fn open_direct(source: &DiskSource) -> Result<File, AddDiskError> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&source.path);
    opened.map_err(|error| AddDiskError::Open { path: source.path.clone(), source: error })
}
