//! What travels between the threads of a shipment.

use std::{sync::Arc, time::Instant};

use blocks::Geometry;
use bytes::Bytes;
use crossbeam_channel::Sender;
use wire::{EpochLink, FrameExtent, Sealer};

use super::{
    flow::{Permit, Window},
    leaves::Undecided,
    pool::PoolBuffer,
};
use crate::{compare::BlockHash, plan::Batch, progress::Progress, shipment::ShipError};

/// What does not change about a shipment.
pub(crate) struct Route {
    pub(crate) geometry: Geometry,
    pub(crate) link: EpochLink,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) window: Arc<Window>,
    /// Where blocks go that differ, if the replica can tell which of their leaves do.
    pub(crate) undecided: Option<Sender<Undecided>>,
}

/// The way to a shipment's collector. When the last is dropped, nothing more comes.
#[derive(Clone)]
pub(crate) struct Producer {
    pub(crate) route: Arc<Route>,
    events: Sender<Event>,
}

impl Producer {
    pub(crate) fn new(route: Arc<Route>, events: Sender<Event>) -> Self {
        Self { route, events }
    }

    /// Tells the collector, if it is still there. It is not after a cancellation, and then nobody
    /// wants to know.
    pub(crate) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Ends the shipment with an error.
    pub(crate) fn fail(&self, error: ShipError) {
        self.route.window.cancel();
        self.tell(Event::Failed(error));
    }
}

/// A batch, read and waiting for a worker.
pub(crate) struct Filled {
    pub(crate) producer: Producer,
    pub(crate) permit: Permit,
    pub(crate) planned: Planned,
    pub(crate) buffer: PoolBuffer,
    /// When its last read completed.
    pub(crate) since: Instant,
}

/// A batch, planned and waiting to be read.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) batch: Batch,
    /// The replica's hashes of the compare blocks it reads; none unless blocks are compared.
    pub(crate) hashes: Option<Vec<BlockHash>>,
}

/// What a collector is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A batch is sealed.
    Sealed(Sealed),
    /// There are so many batches, and no more.
    PlanEnds {
        /// How many.
        batches: u64,
    },
    /// The shipment failed.
    Failed(ShipError),
}

/// A batch, sealed and waiting for its turn.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) sequence: u64,
    /// Given back when the receiver has taken the frame, or there is none.
    pub(crate) permit: Option<Permit>,
    pub(crate) contents: Contents,
    /// Bytes of the epoch's chunks in the batch.
    pub(crate) covered_bytes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) since: Instant,
}

/// What a batch turned out to hold.
#[derive(Debug)]
pub(crate) enum Contents {
    /// Nothing that the replica does not have.
    Unchanged,
    /// Nothing but zeroes.
    Zeroes(Vec<FrameExtent>),
    /// Data, and maybe zeroes.
    Frame { frame: Bytes, data_bytes: u64, zero_bytes: u64, packed_bytes: u64 },
}
