//! A simulated disk of the source: writes in flight, and a volatile cache if it has one.
//!
//! A write reaches the medium sector by sector between its issue and its completion, so a read in
//! between sees parts of it. Completion comes in any order. After a loss of power, of what was not
//! flushed any sectors are there and any are not; without a cache that is only what was in flight.

use std::collections::BTreeMap;

use blocks::Extent;

use crate::{
    content::{Content, SECTOR, sectors},
    history::WriteId,
    rng::Rng,
};

/// A write on its way to the medium.
#[derive(Clone, Debug)]
struct InFlight {
    extent: Extent,
    content: Content,
    /// Sectors that a read sees already.
    applied: usize,
}

/// One disk.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    /// What a read sees.
    seen: Vec<Content>,
    /// What survives a loss of power for certain.
    durable: Vec<Content>,
    /// What lies between, in order.
    unflushed: Vec<(WriteId, usize, Content)>,
    has_cache: bool,
    in_flight: BTreeMap<WriteId, InFlight>,
    /// Done, and the application not told yet.
    untold: BTreeMap<WriteId, Extent>,
}

impl SimDisk {
    pub(crate) fn new(content: Vec<Content>, has_cache: bool) -> Self {
        let durable = content.clone();
        let (in_flight, untold) = (BTreeMap::new(), BTreeMap::new());
        Self { seen: content, durable, unflushed: Vec::new(), has_cache, in_flight, untold }
    }

    /// What a read sees of every sector.
    pub(crate) fn content(&self) -> &[Content] {
        &self.seen
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether a write that was not acknowledged touches a sector.
    pub(crate) fn is_changing(&self, sector: usize) -> bool {
        let in_flight = self.in_flight.values().map(|write| write.extent);
        in_flight.chain(self.untold.values().copied()).any(|it| sectors(it).contains(&sector))
    }

    /// Fills `buffer` with what the extent holds now.
    pub(crate) fn read(&self, extent: Extent, buffer: &mut [u8]) {
        for (sector, bytes) in sectors(extent).zip(buffer.chunks_mut(SECTOR)) {
            self.seen[sector].expand(sector as u64, bytes);
        }
    }

    pub(crate) fn issue(&mut self, id: WriteId, extent: Extent, content: Content) {
        self.in_flight.insert(id, InFlight { extent, content, applied: 0 });
    }

    /// Lets the medium take up to `count` more sectors of a write.
    pub(crate) fn apply(&mut self, id: WriteId, count: usize) {
        let Some(write) = self.in_flight.get_mut(&id) else { return };
        let rest = sectors(write.extent).skip(write.applied).take(count);
        for sector in rest {
            self.seen[sector] = write.content;
            self.unflushed.push((id, sector, write.content));
            write.applied += 1;
        }
    }

    /// The disk says that a write is done.
    pub(crate) fn complete(&mut self, id: WriteId) {
        self.apply(id, usize::MAX);
        if let Some(write) = self.in_flight.remove(&id) {
            self.untold.insert(id, write.extent);
        }
        if !self.has_cache {
            self.settle(|write, _| write == id);
        }
    }

    /// The application is told.
    pub(crate) fn acknowledge(&mut self, id: WriteId) {
        self.untold.remove(&id);
    }

    /// A flush: everything completed so far survives from now on.
    pub(crate) fn flush(&mut self) {
        let in_flight: Vec<WriteId> = self.in_flight.keys().copied().collect();
        self.settle(|write, _| !in_flight.contains(&write));
    }

    /// A loss of power: the disk as it comes back.
    pub(crate) fn after_power_loss(&self, rng: &mut Rng) -> Self {
        let mut disk = self.clone();
        // Either most of the cache was on its way, or hardly any of it.
        let kept = *rng.pick(&[0, 50, 500, 950]);
        disk.settle(|_, _| rng.chance(kept));
        Self::new(disk.durable, self.has_cache)
    }

    /// Makes durable what `keeps` says, in order.
    fn settle(&mut self, mut keeps: impl FnMut(WriteId, usize) -> bool) {
        let durable = &mut self.durable;
        self.unflushed.retain(|(write, sector, content)| {
            let kept = keeps(*write, *sector);
            if kept {
                durable[*sector] = *content;
            }
            !kept
        });
    }
}
