//! Threads that open and decode frames, shared by all disks of a store.
//!
//! Decryption and decompression are what bounds an initial synchronisation, so frames of one epoch
//! are taken in side by side. Their order within an epoch does not matter: the extents of an epoch
//! are disjoint. The queue is bounded, so a peer that is faster than this machine waits.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use wire::CheckedFrame;

use crate::content::{ContentError, FrameTaker, Scratch, Treatment};

/// Frames that wait for a worker, for each worker.
const QUEUED_PER_WORKER: usize = 4;

/// Who takes frames in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parallelism {
    /// This many threads of the store's own.
    Threads(NonZeroUsize),
    /// The caller, in order: for tests that need every run to be the same.
    Caller,
}

impl Parallelism {
    /// A thread for each processor.
    pub fn all_processors() -> Self {
        Self::Threads(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Nothing if the caller does the work.
    queue: Option<Sender<Task>>,
    threads: Vec<JoinHandle<()>>,
}

/// A frame and what became of it, which its batch is told when the task is dropped; so a batch
/// hears of every task, whatever happens to the worker.
struct Task {
    frame: CheckedFrame,
    /// Let go before the batch is told, so that nobody has it once the batch is done.
    taker: Option<Arc<FrameTaker>>,
    batch: Arc<Batch>,
    result: Result<(), ContentError>,
}

/// The frames of one epoch that are taken in together.
#[derive(Debug)]
pub(crate) struct Batch {
    treatment: Treatment,
    progress: Mutex<Progress>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    outstanding: usize,
    error: Option<ContentError>,
    /// Set by the first error and by cancelling: what is queued is not worth doing.
    cancelled: bool,
}

impl Workers {
    /// Starts the pool.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub(crate) fn start(parallelism: Parallelism) -> std::io::Result<Self> {
        let Parallelism::Threads(count) = parallelism else {
            return Ok(Self { queue: None, threads: Vec::new() });
        };
        let (queue, tasks) = bounded(count.get() * QUEUED_PER_WORKER);
        let start = |n| {
            let tasks = tasks.clone();
            thread::Builder::new().name(format!("replica-{n}")).spawn(move || work(&tasks))
        };
        let threads = (0..count.get()).map(start).collect::<Result<_, _>>()?;
        Ok(Self { queue: Some(queue), threads })
    }

    /// How many threads it has; none if the caller does the work.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Hands a content frame over; waits while the queue is full. What becomes of it the batch
    /// tells.
    pub(crate) fn submit(&self, frame: CheckedFrame, taker: &Arc<FrameTaker>, batch: &Arc<Batch>) {
        batch.lock().outstanding += 1;
        let (batch, taker) = (Arc::clone(batch), Some(Arc::clone(taker)));
        let mut task = Task { frame, taker, batch, result: Err(ContentError::WorkerFailed) };
        match &self.queue {
            None => task.run(&mut Scratch::new()),
            // If no worker is left, the task comes back and is dropped as failed.
            Some(queue) => drop(queue.send(task)),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so, and its batch was told.
            let _ = thread.join();
        }
    }
}

fn work(tasks: &Receiver<Task>) {
    let mut scratch = Scratch::new();
    for mut task in tasks {
        task.run(&mut scratch);
    }
}

impl Task {
    fn run(&mut self, scratch: &mut Scratch) {
        let cancelled = self.batch.lock().cancelled;
        self.result = match &self.taker {
            Some(taker) if !cancelled => taker.take(&self.frame, self.batch.treatment, scratch),
            _ => Ok(()),
        };
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.taker = None;
        self.batch.done(std::mem::replace(&mut self.result, Ok(())));
    }
}

impl Batch {
    pub(crate) fn new(treatment: Treatment) -> Arc<Self> {
        Arc::new(Self { treatment, progress: Mutex::default(), idle: Condvar::new() })
    }

    /// Waits until every frame that was submitted is taken in; the first error, if there was one.
    /// Called once, at the end of the batch.
    pub(crate) fn wait(&self) -> Result<(), ContentError> {
        self.wait_idle().error.take().map_or(Ok(()), Err)
    }

    /// Whether a frame failed, so that the rest is not worth submitting.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().cancelled
    }

    /// Gives up what was not begun, and waits for the rest.
    pub(crate) fn cancel(&self) {
        self.lock().cancelled = true;
        drop(self.wait_idle());
    }

    fn wait_idle(&self) -> MutexGuard<'_, Progress> {
        self.idle
            .wait_while(self.lock(), |progress| progress.outstanding > 0)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self, result: Result<(), ContentError>) {
        let mut progress = self.lock();
        progress.outstanding -= 1;
        if let Err(error) = result {
            progress.cancelled = true;
            progress.error.get_or_insert(error);
        }
        if progress.outstanding == 0 {
            self.idle.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Nothing panics while it holds the lock, so the progress is whole.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
