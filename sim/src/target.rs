//! The target: a store that outlives its processes, and what one process holds.
//!
//! The store is the product's own ([`replica::Store`]) on storage that loses power
//! ([`FaultyStorage`]); so are the sessions. How they are driven (in `world/target.rs`,
//! `world/peers.rs`, `world/writers.rs`) follows `pinnace/src/target`, a step of a writer standing
//! for a turn of its thread.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use blocks::{DiskId, Epoch};
use replica::{Disk, Incoming, OpenStoreError, Parallelism, Store};
use storage::FaultyStorage;
use wire::{CheckedFrame, EpochLink, FrameDecoder, TargetSession};

use crate::network::ConnectionId;

/// Never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WriterId(pub(crate) u64);

/// The target.
pub(crate) struct Target {
    pub(crate) storage: FaultyStorage,
    /// Counts its processes.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    pub(crate) end: Option<End>,
    pub(crate) next_writer: u64,
}

/// The end of a process that is due: at which operation of the store, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) operation: u64,
    pub(crate) down: u64,
    pub(crate) kind: EndKind,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndKind {
    /// Killed: what it wrote is in the page cache.
    Kill,
    /// With its machine: what was not synced may be lost.
    PowerCut,
}

/// A process.
pub(crate) struct Process {
    pub(crate) store: Store,
    pub(crate) peers: BTreeMap<ConnectionId, Peer>,
    pub(crate) writers: BTreeMap<WriterId, Writer>,
}

/// A connection as the target holds it.
pub(crate) struct Peer {
    pub(crate) session: TargetSession,
    pub(crate) disks: BTreeMap<DiskId, Disk>,
    pub(crate) epochs: BTreeMap<(DiskId, Epoch), WriterId>,
    pub(crate) decoders: BTreeMap<u64, FrameDecoder>,
    /// Data streams that are no longer read.
    pub(crate) stopped: BTreeSet<u64>,
}

/// An epoch being written.
pub(crate) struct Writer {
    /// Nothing once the connection is gone, or the epoch given up: nobody waits for an answer.
    pub(crate) peer: Option<ConnectionId>,
    pub(crate) disk: Disk,
    pub(crate) link: EpochLink,
    pub(crate) commands: VecDeque<Command>,
    pub(crate) stage: Stage,
}

/// How far a writer is.
pub(crate) enum Stage {
    /// A seed waits for the one it follows.
    Waiting,
    /// Its thread runs.
    Started,
    Receiving(Box<Incoming>),
    /// Durable; what is pending is folded.
    Folding,
}

/// What a writer is told.
pub(crate) enum Command {
    Append(Box<CheckedFrame>),
    Commit,
}

impl Target {
    pub(crate) fn new() -> Self {
        let storage = FaultyStorage::new();
        Store::init_on(&storage).expect("the storage is empty and has no faults");
        Self { storage, life: 0, process: None, end: None, next_writer: 0 }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn new_writer(&mut self) -> WriterId {
        let id = WriterId(self.next_writer);
        self.next_writer += 1;
        id
    }

    /// Starts a process: opens the store, which recovers every disk.
    pub(crate) fn start(&mut self) -> Result<(), OpenStoreError> {
        let storage = Arc::new(self.storage.clone());
        let store = Store::open_on(storage, Parallelism::Caller)?;
        let (peers, writers) = (BTreeMap::new(), BTreeMap::new());
        self.process = Some(Process { store, peers, writers });
        Ok(())
    }

    /// Whether the end that is due has come.
    pub(crate) fn due_end(&mut self) -> Option<End> {
        let operations = self.storage.operations();
        self.end.take_if(|end| operations >= end.operation)
    }

    /// The end that is due comes whatever the store does.
    pub(crate) fn end_now(&mut self) {
        if let Some(end) = &mut self.end {
            end.operation = 0;
        }
    }

    /// Ends the process, at any point of what it was doing.
    pub(crate) fn stop(&mut self) {
        // What is dropped now cleans nothing up, as nothing would after a kill.
        self.storage.power_off_after(0);
        self.process = None;
        self.life += 1;
        self.storage.power_off_after(u64::MAX / 2);
    }
}
