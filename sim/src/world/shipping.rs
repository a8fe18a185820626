//! An epoch's way from the disk to the connection: hashes, reads one at a time, frames, credit.

use blocks::{ByteLen, Epoch, EpochKind, PointRecord, SealedEpoch};
use bytes::Bytes;
use shipper::Packing;
use std::{collections::VecDeque, sync::Arc};
use wire::{CheckedFrame, EpochLink, FrameHeader, Reason, message::Hashes as HashesMessage};

use blocks::Mutant;

use crate::{
    agent::{Hashes, Image, OpenBatch, Shipment, Standing},
    clock::{MS, US},
    content::{Content, SECTOR, sectors},
    machine::Machine,
    network::{Arrival, Lane},
    world::{Event, World, note},
};

impl World {
    pub(super) fn begin_shipment(
        &mut self,
        disk: usize,
        sealed: SealedEpoch,
        follows: Epoch,
        image: Option<(Image, PointRecord)>,
    ) {
        let geometry = self.machine.disks[disk].geometry();
        let (epoch, kind) = (sealed.epoch(), sealed.kind());
        let Some(agent) = &mut self.agent else { return };
        let (Some(link), Standing::Open(sealer)) = (&mut agent.link, &agent.disks[disk].standing)
        else {
            return;
        };
        let sealer = Arc::clone(sealer);
        let epoch_link = EpochLink { kind, epoch, follows };
        match link.session.begin_sealed(Machine::id_of(disk), epoch_link) {
            Ok(()) => {}
            Err(error) => {
                return self.epoch_failed(
                    disk,
                    epoch,
                    Reason::EpochAborted.into(),
                    &error.to_string(),
                );
            }
        }
        let stream = link.next_stream;
        link.next_stream += 1;
        let packing =
            Packing::new(sealed, geometry, follows, sealer).expect("zstd gives a context");
        let shipment = Shipment {
            packing: Some(packing),
            stream,
            batch: None,
            frames: VecDeque::new(),
            compares: kind == EpochKind::Compare,
            image,
        };
        let life = agent.life;
        agent.disks[disk].shipments.insert(epoch, shipment);
        self.clock.after(0, Event::Ship { life, disk, epoch });
    }

    /// One step: the next batch is begun, one read is done, or a batch that was read is packed.
    pub(super) fn ship(&mut self, disk: usize, epoch: Epoch) {
        let Some(agent) = &mut self.agent else { return };
        let life = agent.life;
        let Some(shipment) = agent.disks[disk].shipments.get_mut(&epoch) else { return };
        let Some(packing) = &mut shipment.packing else { return };
        let Some(batch) = &mut shipment.batch else {
            match packing.next_batch() {
                Some(batch) => {
                    let batch = batch.clone();
                    let len = batch.reads.last().map_or(0, |read| read.range().end);
                    let hashes =
                        if shipment.compares { Hashes::Awaited } else { Hashes::NotNeeded };
                    let buffer = vec![0; len];
                    shipment.batch = Some(OpenBatch { batch, buffer, reads_done: 0, hashes });
                    if shipment.compares {
                        self.ask_for_hashes(disk, epoch);
                    } else {
                        self.clock.after(0, Event::Ship { life, disk, epoch });
                    }
                }
                None => self.finish_packing(disk, epoch),
            }
            return;
        };
        if let Some(read) = batch.batch.reads.get(batch.reads_done) {
            let source = &mut self.machine.disks[disk];
            if shipment.image.is_none() && source.fails_this_read() {
                note!(self, "disk {disk}: a read fails");
                return self.break_off(disk, epoch, Reason::SourceFailed);
            }
            let buffer = &mut batch.buffer[read.range()];
            match &shipment.image {
                None => source.disk.read(read.extent, buffer),
                // What lies between chunks of the image is read and not sent.
                Some((image, _)) => {
                    for (sector, bytes) in sectors(read.extent).zip(buffer.chunks_mut(SECTOR)) {
                        let held = image.get(&sector).copied().unwrap_or(Content::ZEROES);
                        held.expand(sector as u64, bytes);
                    }
                }
            }
            batch.reads_done += 1;
        } else {
            self.pack(disk, epoch);
        }
        let latency = self.rng.spread(10 * US, 2 * MS);
        self.clock.after(latency, Event::Ship { life, disk, epoch });
    }

    fn ask_for_hashes(&mut self, disk: usize, epoch: Epoch) {
        let Some(agent) = &mut self.agent else { return };
        let Some(link) = &mut agent.link else { return };
        let of_agent = &mut agent.disks[disk];
        let Some(shipment) = of_agent.shipments.get(&epoch) else { return };
        let range = shipment.packing.as_ref().and_then(Packing::blocks);
        let range = range.expect("a batch of a comparison reads compare blocks");
        match link.session.request_hashes(Machine::id_of(disk), range.first, range.count) {
            Ok(request) => drop(of_agent.requests.insert(request, epoch)),
            Err(error) => {
                note!(self, "disk {disk}: no hashes: {error}");
                self.break_off(disk, epoch, Reason::EpochAborted);
            }
        }
    }

    pub(super) fn hashes_arrived(&mut self, hashes: HashesMessage) {
        let disk = Machine::index_of(hashes.disk);
        let Some(agent) = &mut self.agent else { return };
        let life = agent.life;
        let of_agent = &mut agent.disks[disk];
        let Some(epoch) = of_agent.requests.remove(&hashes.request) else { return };
        let Some(shipment) = of_agent.shipments.get_mut(&epoch) else { return };
        if let Some(batch) = &mut shipment.batch {
            batch.hashes = Hashes::Known(hashes.hashes);
            self.clock.after(0, Event::Ship { life, disk, epoch });
        }
    }

    fn pack(&mut self, disk: usize, epoch: Epoch) {
        let Some(agent) = &mut self.agent else { return };
        let Some(shipment) = agent.disks[disk].shipments.get_mut(&epoch) else { return };
        let (Some(packing), Some(mut open)) = (&mut shipment.packing, shipment.batch.take()) else {
            return;
        };
        for piece in &open.batch.pieces {
            let held = sectors(piece.extent).zip(open.buffer[piece.range()].chunks(SECTOR));
            let held = held.map(|(sector, bytes)| {
                let content = Content::decode(sector as u64, bytes);
                (sector, content.expect("the simulated disk holds contents only"))
            });
            self.checks.shipped(disk, epoch, held);
        }
        let hashes = match &open.hashes {
            Hashes::Known(hashes) => Some(&hashes[..]),
            Hashes::NotNeeded | Hashes::Awaited => None,
        };
        let frames = packing.pack(&mut open.buffer, hashes).expect("a batch makes frames");
        self.queue(disk, epoch, frames);
    }

    fn finish_packing(&mut self, disk: usize, epoch: Epoch) {
        let Some(agent) = &mut self.agent else { return };
        let Some(shipment) = agent.disks[disk].shipments.get_mut(&epoch) else { return };
        let Some(packing) = shipment.packing.take() else { return };
        let point = shipment.image.as_ref().map(|(_, point)| *point);
        let frames = packing.finish(point).expect("an epoch has an end");
        if Mutant::ClearedAfterRead.is_on()
            && let Some(kernel) = &mut self.machine.disks[disk].kernel
            && let Some(chunks) = self.checks.chunks_of(disk, epoch)
        {
            kernel.clear(chunks);
        }
        self.queue(disk, epoch, frames);
    }

    fn queue(&mut self, disk: usize, epoch: Epoch, frames: Vec<Bytes>) {
        for frame in &frames {
            let header = CheckedFrame::parse(frame.clone()).map(|frame| *frame.header());
            let header = header.expect("what was sealed is a frame");
            if let Err(what) = self.checks.sent(&header) {
                self.fail(what);
            }
        }
        let Some(agent) = &mut self.agent else { return };
        if let Some(shipment) = agent.disks[disk].shipments.get_mut(&epoch) {
            shipment.frames.extend(frames);
        }
    }

    /// Lets frames go while there is room for them; only a disk's oldest epoch gets room.
    pub(super) fn grant(&mut self) {
        for disk in 0..self.machine.disks.len() {
            while self.let_one_frame_go(disk) {}
        }
    }

    fn let_one_frame_go(&mut self, disk: usize) -> bool {
        let Some(agent) = &mut self.agent else { return false };
        let Some(link) = &mut agent.link else { return false };
        let shipments = &mut agent.disks[disk].shipments;
        let Some((epoch, shipment)) = shipments.iter_mut().next() else { return false };
        let (epoch, id, lane) = (*epoch, Machine::id_of(disk), Lane::Data(shipment.stream));
        let connection = link.id;
        let Some(frame) = shipment.frames.front() else {
            if shipment.packing.is_none() {
                shipments.remove(&epoch);
                self.send(connection, lane, [Arrival::End]);
                return true;
            }
            return false;
        };
        let len = ByteLen(frame.len() as u64);
        if len > link.session.room(id) {
            return false;
        }
        link.session.handle_sending(id, epoch, len);
        let header = frame.first_chunk().map(FrameHeader::parse);
        if matches!(header, Some(Ok(header)) if header.is_end()) {
            link.session.handle_ending(id, epoch);
        }
        let frame = shipment.frames.pop_front().expect("it was seen in front");
        self.send(connection, lane, [Arrival::Bytes(frame)]);
        true
    }

    /// An epoch can't be finished: its stream is cut off, and the target asked to forget it.
    pub(super) fn break_off(&mut self, disk: usize, epoch: Epoch, why: Reason) {
        note!(self, "disk {disk}: epoch {epoch} breaks off: {why:?}");
        let Some(agent) = &mut self.agent else { return };
        let Some(link) = &mut agent.link else { return };
        let Some(shipment) = agent.disks[disk].shipments.remove(&epoch) else { return };
        let connection = link.id;
        if let Err(error) = link.session.abort_epoch(Machine::id_of(disk), epoch) {
            note!(self, "disk {disk}: an abort that came too late: {error}");
        }
        self.send(connection, Lane::Data(shipment.stream), [Arrival::Reset]);
    }
}
