//! What must hold, checked whenever it could have broken. The promises are those of
//! `ARCHITECTURE.md`.
//!
//! - A pending bit dies only by the acknowledgement of a durable epoch that held its chunk.
//! - What was acknowledged is durable at every later opening of the store.
//! - The replica's content is exactly the epochs up to its newest durable one, as they were read;
//!   and at an epoch that completes, every sector is explained by the source's history: no write
//!   that was acknowledged before the seal is missing.
//! - A chunk of which the replica lacks something is dirty or pending.
//! - No two frames of a run have one key and one nonce.

use std::collections::{BTreeMap, HashSet};

use blocks::{Bitmap, ChunkIndex, Epoch, EpochKind, PointId, PointRecord, SealedEpoch};
use replica::{Completeness, DiskState};
use storage::StorePath;
use wire::{FrameHeader, SessionSalt};

use crate::{
    clock::Step,
    content::{Content, SECTOR},
    machine::Machine,
    scenario::Scenario,
    second_opinion,
    world::World,
};

/// What was promised, and what is known.
pub(crate) struct Checks {
    disks: Vec<OfDisk>,
    nonces: HashSet<(SessionSalt, u64)>,
    /// What the disks of points held, until all of a point's disks are durable.
    parts: BTreeMap<PointId, BTreeMap<usize, Vec<Content>>>,
    /// The first thing that was not as it must be.
    pub(crate) failure: Option<String>,
    /// The faults that happened.
    pub(crate) faults: Vec<&'static str>,
    /// How often a replica was checked whole.
    pub(crate) replicas_checked: u64,
    /// How many points of disks were checked against their instant.
    pub(crate) points_checked: u64,
    /// How many views of points were read whole.
    pub(crate) views_checked: u64,
}

struct OfDisk {
    sealed: BTreeMap<Epoch, Sealed>,
    /// What the replica must hold at `at`.
    expected: Vec<Content>,
    at: Epoch,
    /// The newest epoch that the target has acknowledged.
    acknowledged: Epoch,
}

/// An epoch as it was sealed and read.
struct Sealed {
    chunks: Bitmap,
    kind: EpochKind,
    completes: bool,
    at: Step,
    boot: usize,
    /// A write that the programs did not see was outstanding: nothing is promised of it.
    doubtful: bool,
    content: Vec<(usize, Content)>,
    /// The point that it makes: it holds the very instant `at`.
    point: Option<PointRecord>,
}

/// On what occasion a replica is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReplicaAs {
    /// It was opened, and whether everything pending is folded.
    Opened(DiskState, bool),
    /// An epoch was committed.
    Committed(DiskState),
    /// The last pending epoch was folded.
    Folded(DiskState),
}

impl Checks {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let of_disk = |plan: &crate::scenario::DiskPlan| OfDisk {
            sealed: BTreeMap::new(),
            expected: vec![
                Content::ZEROES;
                usize::try_from(plan.geometry.sectors()).expect("a small disk")
            ],
            at: Epoch::NONE,
            acknowledged: Epoch::NONE,
        };
        Self {
            disks: scenario.disks.iter().map(of_disk).collect(),
            nonces: HashSet::new(),
            parts: BTreeMap::new(),
            failure: None,
            faults: Vec::new(),
            replicas_checked: 0,
            points_checked: 0,
            views_checked: 0,
        }
    }

    /// An epoch was sealed at a step; one of that number that was given up before is forgotten.
    pub(crate) fn sealed(
        &mut self,
        disk: usize,
        sealed: &SealedEpoch,
        at: Step,
        boot: usize,
        doubtful: bool,
    ) {
        let of_epoch = Sealed {
            chunks: sealed.chunks().clone(),
            kind: sealed.kind(),
            completes: sealed.completes(),
            at,
            boot,
            doubtful,
            content: Vec::new(),
            point: None,
        };
        self.disks[disk].sealed.insert(sealed.epoch(), of_epoch);
    }

    /// An epoch makes a point.
    pub(crate) fn makes_point(&mut self, disk: usize, epoch: Epoch, record: PointRecord) {
        if let Some(sealed) = self.disks[disk].sealed.get_mut(&epoch) {
            sealed.point = Some(record);
        }
    }

    pub(crate) fn chunks_of(&self, disk: usize, epoch: Epoch) -> Option<&Bitmap> {
        self.disks[disk].sealed.get(&epoch).map(|sealed| &sealed.chunks)
    }

    /// What an epoch holds of some sectors.
    pub(crate) fn shipped(
        &mut self,
        disk: usize,
        epoch: Epoch,
        content: impl Iterator<Item = (usize, Content)>,
    ) {
        if let Some(sealed) = self.disks[disk].sealed.get_mut(&epoch) {
            sealed.content.extend(content);
        }
    }

    /// A frame was made.
    pub(crate) fn sent(&mut self, header: &FrameHeader) -> Result<(), String> {
        if self.nonces.insert((header.salt, header.counter)) {
            return Ok(());
        }
        Err(format!("epoch {}: nonce {} was used before", header.epoch, header.counter))
    }

    /// The target acknowledges an epoch.
    pub(crate) fn acknowledged(&mut self, disk: usize, epoch: Epoch) {
        let of_disk = &mut self.disks[disk];
        of_disk.acknowledged = of_disk.acknowledged.max(epoch);
    }

    /// The agent forgets chunks because everything up to `acked` is durable.
    pub(crate) fn releases(
        &self,
        disk: usize,
        released: &Bitmap,
        acked: Epoch,
    ) -> Result<(), String> {
        let of_disk = &self.disks[disk];
        let mut rest = released.clone();
        for (_, sealed) in of_disk.sealed.range(..=acked.min(of_disk.at)) {
            rest.subtract(&sealed.chunks);
        }
        match rest.first_from(ChunkIndex(0)) {
            None => Ok(()),
            Some(chunk) => Err(format!(
                "disk {disk}: chunk {} is forgotten, but no durable epoch up to {acked} held it",
                chunk.0
            )),
        }
    }

    /// How the replica differs from what the source holds, if it does.
    pub(crate) fn unequal(&self, disk: usize, source: &[Content]) -> Option<String> {
        let expected = &self.disks[disk].expected;
        let sector = (0..source.len()).find(|sector| expected[*sector] != source[*sector])?;
        Some(format!(
            "sector {sector} of the replica holds {:x}, the source {:x}",
            expected[sector].0, source[sector].0
        ))
    }
}

impl OfDisk {
    /// Moves on to what the replica must hold at `epoch`.
    fn advance(&mut self, epoch: Epoch) -> Result<bool, String> {
        let newer: Vec<Epoch> = match self.at < epoch {
            true => self.sealed.range(self.at.next()..=epoch).map(|(epoch, _)| *epoch).collect(),
            false => Vec::new(),
        };
        if self.at < epoch && newer.last() != Some(&epoch) {
            return Err(format!("epoch {epoch} is durable, but was never sealed"));
        }
        let Some(newest) = newer.last() else { return Ok(false) };
        for (sector, content) in &self.sealed[newest].content {
            self.expected[*sector] = *content;
        }
        self.at = *newest;
        Ok(true)
    }
}

impl World {
    /// Looks at a replica, after something happened to it.
    pub(crate) fn check_replica(&mut self, disk: usize, occasion: ReplicaAs) {
        if let Err(what) = self.try_check_replica(disk, occasion) {
            self.fail(format!("disk {disk}, {occasion:?}: {what}"));
        }
    }

    fn try_check_replica(&mut self, disk: usize, occasion: ReplicaAs) -> Result<(), String> {
        let of_disk = &mut self.checks.disks[disk];
        let (ReplicaAs::Opened(state, _) | ReplicaAs::Committed(state) | ReplicaAs::Folded(state)) =
            occasion;
        let durable = state.last_durable;
        if durable < of_disk.acknowledged {
            return Err(format!("epoch {} was acknowledged", of_disk.acknowledged));
        }
        if durable < of_disk.at && !matches!(occasion, ReplicaAs::Opened(..)) {
            return Err(format!("epoch {} was durable before", of_disk.at));
        }
        if of_disk.advance(durable)? {
            self.check_point(disk, durable)?;
        }
        if matches!(occasion, ReplicaAs::Committed(_) | ReplicaAs::Opened(_, false))
            || state.completeness != Completeness::Follows
        {
            return Ok(());
        }
        self.check_base(disk, durable)?;
        self.check_nothing_is_forgotten(disk)
    }

    /// A disk's part of a point that has become durable is the state of the disk at its instant.
    fn check_point(&mut self, disk: usize, epoch: Epoch) -> Result<(), String> {
        let of_disk = &self.checks.disks[disk];
        let Some(sealed) = of_disk.sealed.get(&epoch) else { return Ok(()) };
        let Some(point) = &sealed.point else { return Ok(()) };
        if sealed.doubtful {
            return Ok(());
        }
        let history = &self.machine.disks[disk].histories[sealed.boot];
        for (sector, held) in of_disk.expected.iter().enumerate() {
            if !history.explains_at(sector, *held, sealed.at) {
                return Err(format!(
                    "point {:?} of attempt {} is not its instant (step {}): sector {sector} holds \
                     {:x}; the newest write is {:?}",
                    point.id,
                    point.attempts,
                    sealed.at.0,
                    held.0,
                    history.newest(sector)
                ));
            }
        }
        self.checks.points_checked += 1;
        let (id, disks, boot, at) = (point.id, point.disks, sealed.boot, sealed.at);
        let held = of_disk.expected.clone();
        let parts = self.checks.parts.entry(id).or_default();
        parts.insert(disk, held);
        if parts.len() < usize::from(disks) {
            return Ok(());
        }
        let parts = self.checks.parts.remove(&id).unwrap_or_default();
        let held: Vec<Vec<Content>> = parts.into_values().collect();
        second_opinion::judge(&self.machine, id, boot, at, &held)
    }

    /// Whether an epoch makes a point.
    pub(crate) fn is_point(&self, disk: usize, epoch: Epoch) -> bool {
        let sealed = self.checks.disks[disk].sealed.get(&epoch);
        sealed.is_some_and(|sealed| sealed.point.is_some())
    }

    /// A view of the newest epoch, which makes a point, shows what the replica must hold then.
    pub(crate) fn check_view(&mut self, disk: usize, bytes: &[u8]) {
        let expected = self.checks.disks[disk].expected.iter().enumerate();
        let wrong = expected.zip(bytes.chunks(SECTOR)).find(|((sector, expected), bytes)| {
            Content::decode(*sector as u64, bytes) != Some(**expected)
        });
        self.checks.views_checked += 1;
        if let Some(((sector, expected), bytes)) = wrong {
            let found = Content::decode(sector as u64, bytes);
            self.fail(format!(
                "disk {disk}: a view shows {found:x?} in sector {sector} instead of {:x}",
                expected.0
            ));
        } else if let Err(what) = self.check_nothing_is_forgotten(disk) {
            self.fail(format!("disk {disk}, at a point: {what}"));
        }
    }

    /// The base holds exactly what the epochs up to `durable` held, and that is explained.
    fn check_base(&mut self, disk: usize, durable: Epoch) -> Result<(), String> {
        let path = StorePath::root().join("disks").join(&Machine::id_of(disk).to_string());
        let base = self.target.storage.content(&path.join("base")).ok_or("the base is gone")?;
        let of_disk = &self.checks.disks[disk];
        let sealed = of_disk.sealed.get(&durable);
        let history = sealed.map(|sealed| &self.machine.disks[disk].histories[sealed.boot]);
        for (sector, expected) in of_disk.expected.iter().enumerate() {
            let bytes =
                base.get(sector * SECTOR..(sector + 1) * SECTOR).ok_or("the base is short")?;
            let found = Content::decode(sector as u64, bytes)
                .ok_or_else(|| format!("sector {sector} holds no content of this disk"))?;
            if found != *expected {
                return Err(format!(
                    "sector {sector} holds {:x} instead of {:x}",
                    found.0, expected.0
                ));
            }
            let (Some(sealed), Some(history)) = (sealed, history) else { continue };
            if sealed.completes && !sealed.doubtful && !history.explains(sector, found, sealed.at) {
                let newest = history.newest(sector);
                return Err(format!(
                    "{:?} epoch {durable}: sector {sector} holds {:x}, which was overwritten before \
                     the seal (step {}); the newest write is {newest:?}; it held it once: {}",
                    sealed.kind,
                    found.0,
                    sealed.at.0,
                    history.ever(sector, found)
                ));
            }
        }
        self.checks.replicas_checked += 1;
        Ok(())
    }

    /// What the replica lacks somebody remembers.
    fn check_nothing_is_forgotten(&self, disk: usize) -> Result<(), String> {
        let source = &self.machine.disks[disk];
        let Some(kernel) = &source.kernel else { return Ok(()) };
        if source.unseen {
            return Ok(());
        }
        let per_chunk = usize::try_from(source.geometry().chunk().sectors()).expect("8 or more");
        let expected = &self.checks.disks[disk].expected;
        for (sector, (seen, held)) in source.disk.content().iter().zip(expected).enumerate() {
            let chunk = ChunkIndex((sector / per_chunk) as u64);
            if seen != held && !kernel.remembers(chunk) && !source.disk.is_changing(sector) {
                return Err(format!(
                    "sector {sector} holds {:x} at the source and {:x} here, and is neither dirty \
                     nor pending",
                    seen.0, held.0
                ));
            }
        }
        Ok(())
    }
}
