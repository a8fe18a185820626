//! A collector: hands a shipment's frames to its receiver, in order.
//!
//! One thread for each shipment, so that a slow receiver holds up nobody else. It merges batches
//! of nothing but zeroes, counts, and closes the epoch with its end frame. The end frame is made
//! only after every batch of the plan has come through here.

use std::{
    convert::Infallible,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use blocks::PointRecord;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError, select};
use wire::{Codec, EpochEnd, EpochSummary, FrameSpec, Sequence};

use super::parcel::{Contents, Event, Route, Sealed};
use crate::{
    latency::Stage,
    order::InOrder,
    shared::Shared,
    shipment::{ShipError, ShipOutput, ShipReport},
    zero_run::{ZeroFrame, ZeroRun},
};

/// Batches that may wait for their turn without a permit, since there is nothing in them: some
/// gigabytes of a disk, and some hundred kilobytes of memory.
const EMPTY_MAX: usize = 4096;

/// How long the next batch may lie after one that holds nothing.
const NAP: Duration = Duration::from_millis(1);

/// What a collector is made from.
pub(crate) struct CollectorParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) route: Arc<Route>,
    pub(crate) events: Receiver<Event>,
    pub(crate) sink: Sender<ShipOutput>,
    /// Disconnected when the engine is dropped.
    pub(crate) stop: Receiver<Infallible>,
    /// Whether the replica is whole once the epoch is applied.
    pub(crate) completes: bool,
    /// The point that the epoch makes, if any.
    pub(crate) point: Option<PointRecord>,
    pub(crate) begun: Instant,
}

/// The thread's own things.
pub(crate) struct Collector {
    parts: CollectorParts,
    order: InOrder<Sealed>,
    zeroes: ZeroRun,
    batches: Option<u64>,
    report: ShipReport,
}

/// Why a collector ends before the epoch does.
enum Halt {
    Failed(ShipError),
    /// The receiver is gone, or the engine.
    Cancelled,
}

impl Collector {
    pub(crate) fn new(parts: CollectorParts) -> Self {
        let report = ShipReport::begin(parts.route.link.epoch, parts.route.link.kind);
        Self { parts, order: InOrder::new(), zeroes: ZeroRun::default(), batches: None, report }
    }

    /// Runs until the epoch is out, or can't be.
    pub(crate) fn run(mut self) {
        let output = match self.collect() {
            Ok(()) => {
                self.report.elapsed = self.parts.begun.elapsed();
                ShipOutput::Done(self.report)
            }
            Err(Halt::Failed(error)) => ShipOutput::Failed(error),
            Err(Halt::Cancelled) => ShipOutput::Failed(ShipError::Stopped),
        };
        self.parts.route.window.cancel();
        // If nobody listens, nobody needs to know.
        let _ = self.put(output);
    }

    fn collect(&mut self) -> Result<(), Halt> {
        while self.batches != Some(self.order.next_number()) {
            match self.parts.events.recv() {
                Ok(Event::Sealed(sealed)) => self.take_in(sealed),
                Ok(Event::PlanEnds { batches }) => self.batches = Some(batches),
                Ok(Event::Failed(error)) => return Err(Halt::Failed(error)),
                // All who could tell are gone, and not all was told.
                Err(_) => return Err(Halt::Failed(ShipError::Stopped)),
            }
            while let Some(sealed) = self.order.pop() {
                self.deliver(sealed)?;
            }
        }
        self.flush_zeroes()?;
        let ShipReport { covered_bytes, data_bytes, zero_bytes, .. } = self.report;
        // Only over all batches: what a frame holds may come from those after its own.
        self.report.unchanged_bytes = covered_bytes - data_bytes - zero_bytes;
        self.send_end()
    }

    /// Takes a batch in, in whatever order they come. One that holds nothing lets others be read in
    /// its place at once, unless very many wait for their turn.
    fn take_in(&mut self, mut sealed: Sealed) {
        let is_empty = matches!(sealed.contents, Contents::Unchanged);
        if is_empty && self.order.waiting() < EMPTY_MAX {
            sealed.permit = None;
        }
        self.order.insert(sealed.sequence, sealed);
        if is_empty && self.parts.events.is_empty() {
            // Nobody waits for it: rather than to be woken for each.
            thread::sleep(NAP);
        }
    }

    /// Passes on a batch whose turn it is. Its permit goes back when this returns.
    fn deliver(&mut self, sealed: Sealed) -> Result<(), Halt> {
        match sealed.contents {
            Contents::Unchanged => {}
            Contents::Zeroes(extents) => {
                if let Some(full) = self.zeroes.add(sealed.sequence, &extents) {
                    self.send_zeroes(&full)?;
                }
            }
            Contents::Frame { frame, data_bytes, zero_bytes, packed_bytes } => {
                self.flush_zeroes()?;
                self.report.data_bytes += data_bytes;
                self.report.zero_bytes += zero_bytes;
                self.report.packed_bytes += packed_bytes;
                self.report.frames += 1;
                self.send(frame)?;
            }
        }
        self.report.covered_bytes += sealed.covered_bytes;
        self.report.read_bytes += sealed.read_bytes;
        self.parts.route.progress.add_sent(sealed.covered_bytes);
        self.parts.shared.latencies.record(Stage::Deliver, sealed.since.elapsed());
        drop(sealed.permit);
        Ok(())
    }

    fn flush_zeroes(&mut self) -> Result<(), Halt> {
        match self.zeroes.take() {
            Some(frame) => self.send_zeroes(&frame),
            None => Ok(()),
        }
    }

    fn send_zeroes(&mut self, zeroes: &ZeroFrame) -> Result<(), Halt> {
        let route = &self.parts.route;
        let spec = FrameSpec {
            link: route.link,
            sequence: Sequence(zeroes.sequence),
            codec: Codec::Raw,
            extents: &zeroes.extents,
        };
        let frame = route.sealer.seal(&spec, &[]).map_err(|error| Halt::Failed(error.into()))?;
        self.report.zero_bytes += zeroes.bytes;
        self.report.frames += 1;
        self.send(frame)
    }

    fn send_end(&mut self) -> Result<(), Halt> {
        let summary = EpochSummary {
            frames: self.report.frames,
            data_bytes: self.report.data_bytes,
            zero_bytes: self.report.zero_bytes,
            completes: self.parts.completes,
        };
        let (route, point) = (&self.parts.route, self.parts.point);
        let sequence = Sequence(self.order.next_number());
        let frame = route.sealer.seal_end(route.link, sequence, EpochEnd { summary, point });
        self.send(frame.map_err(|error| Halt::Failed(error.into()))?)
    }

    fn send(&mut self, frame: Bytes) -> Result<(), Halt> {
        let len = frame.len() as u64;
        self.put(ShipOutput::Frame(frame))?;
        self.report.wire_bytes += len;
        self.parts.route.progress.add_wire(len);
        Ok(())
    }

    /// Waits until the receiver takes it, is gone, or the engine is dropped.
    fn put(&self, output: ShipOutput) -> Result<(), Halt> {
        let output = match self.parts.sink.try_send(output) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(Halt::Cancelled),
            Err(TrySendError::Full(output)) => output,
        };
        select! {
            send(self.parts.sink, output) -> sent => sent.map_err(|_| Halt::Cancelled),
            recv(self.parts.stop) -> _ => Err(Halt::Cancelled),
        }
    }
}
