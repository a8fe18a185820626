//! A shipment as the reader sees it: where its batches come from.

use crossbeam_channel::{Receiver, TryRecvError};

use crate::{
    disk::DiskHandle,
    io::{
        flow::Permit,
        hashes,
        parcel::{Event, Planned, Producer},
    },
    plan::Plan,
    shipment::{Content, ShipError},
};

/// Where a shipment's batches come from.
pub(crate) enum Source {
    /// Straight from the plan.
    Plan(Plan),
    /// From the thread that looks hashes up.
    Hashes(Receiver<hashes::Step>),
}

/// A shipment whose plan is not at its end.
pub(crate) struct Line {
    pub(crate) disk: DiskHandle,
    pub(crate) producer: Producer,
    source: Source,
    pub(super) content: Content,
    /// Came from the source and waits for a permit.
    waiting: Option<Planned>,
    /// How many came from the source.
    batches: u64,
}

/// What a shipment has for the reader.
pub(super) enum Next {
    /// A batch that may be started.
    Batch(Planned, Permit),
    /// Nothing now. The reader is woken when that changes, if it wants to be.
    Waits,
    /// Nothing, ever again.
    Ended,
}

/// What a source has.
enum Sourced {
    Batch(Planned),
    Waits,
    End,
    Failed(ShipError),
}

impl Line {
    pub(crate) fn new(
        disk: DiskHandle,
        producer: Producer,
        source: Source,
        content: Content,
    ) -> Self {
        Self { disk, producer, source, content, waiting: None, batches: 0 }
    }

    /// The next batch, if there is one and it may be started.
    pub(super) fn next(&mut self) -> Next {
        if self.producer.route.window.is_cancelled() {
            return Next::Ended;
        }
        if self.waiting.is_none() {
            match self.source.next() {
                Sourced::Waits => return Next::Waits,
                Sourced::Batch(planned) => {
                    self.batches += 1;
                    self.waiting = Some(planned);
                }
                Sourced::End => {
                    self.producer.tell(Event::PlanEnds { batches: self.batches });
                    return Next::Ended;
                }
                Sourced::Failed(error) => {
                    self.producer.fail(error);
                    return Next::Ended;
                }
            }
        }
        let Some(permit) = self.producer.route.window.admit() else { return Next::Waits };
        // It was just put there, if it was not there before.
        self.waiting.take().map_or(Next::Waits, |planned| Next::Batch(planned, permit))
    }
}

impl Source {
    fn next(&mut self) -> Sourced {
        match self {
            Self::Plan(plan) => match plan.next() {
                Some(batch) => Sourced::Batch(Planned { batch, hashes: None }),
                None => Sourced::End,
            },
            Self::Hashes(steps) => match steps.try_recv() {
                Ok(hashes::Step::Batch(planned)) => Sourced::Batch(planned),
                Ok(hashes::Step::End) => Sourced::End,
                Ok(hashes::Step::Failed(error)) => Sourced::Failed(error),
                Err(TryRecvError::Empty) => Sourced::Waits,
                // The thread died before it came to the end.
                Err(TryRecvError::Disconnected) => Sourced::Failed(ShipError::Stopped),
            },
        }
    }
}
