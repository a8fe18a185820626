//! A machine that sends points of which every byte is known.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::{
    ChunkSize, Consistency, CutMethod, CutTime, DiskId, Epoch, EpochKind, Generation, Geometry,
    MachineId, MonotonicNs, PointId, PointRecord, RetractReason, Sector,
};
use wire::frame::EpochEnd;
use wire::message::{OpenDisk, Origin, RetractPoints};
use wire::session::SourceEvent;
use wire::{Codec, Content, DataKey, EpochSummary, FrameExtent, FrameSpec, Sealer, Sequence, Text};

use crate::site::Site;
use crate::stranger::{End, Stranger, credentials, machine};

/// Length of a disk: a few MiB, and not a multiple of one.
pub(crate) const LEN: usize = (6 << 20) + 64 * 1024;

const GENERATION: Generation = Generation([9; 16]);
/// What one frame carries.
const FRAME: usize = 512 << 10;

/// A connection of the machine, and its disks.
pub(crate) struct Source {
    stranger: Stranger,
    pub(crate) disks: Vec<Disk>,
    points: u8,
}

/// A disk and what is on it now.
pub(crate) struct Disk {
    id: DiskId,
    sealer: Sealer,
    epoch: u64,
    pub(crate) content: Vec<u8>,
    /// What was written since the last epoch.
    changed: Vec<Range<usize>>,
}

/// A point to be made.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    /// How long ago it was made.
    pub(crate) age: Duration,
    pub(crate) consistency: Consistency,
}

/// A crash-consistent point that was made just now.
pub(crate) const NOW: Cut = Cut { age: Duration::ZERO, consistency: Consistency::Crash };

impl Source {
    /// Connects, and sends the first copy of `disks` disks, called `vda` and so on.
    pub(crate) fn start(site: &Site, disks: u8) -> Result<Self> {
        let ca = site.store.join("pki/ca.pem");
        let mut stranger = Stranger::connect(site.address, &ca, credentials(&site.machine)?)?;
        let id: MachineId = machine(&site.machine)?;
        stranger.introduce(id)?;
        let mut source = Self { stranger, disks: Vec::new(), points: 0 };
        for number in 0..disks {
            source.open(number).with_context(|| site.log())?;
        }
        Ok(source)
    }

    fn open(&mut self, number: u8) -> Result<()> {
        let id = DiskId([0xd0 + number; 16]);
        let geometry = Geometry::new(LEN as u64 / 512, 512, ChunkSize::DEFAULT)?;
        let name = Text::lossy(&format!("vd{}", char::from(b'a' + number)));
        let key = DataKey::from_bytes([3; 32]);
        let sealer = Sealer::new(&key, id, GENERATION)?;
        match self.stranger.open_disk(OpenDisk {
            disk: id,
            generation: GENERATION,
            geometry,
            name,
            key,
            origin: Origin::default(),
        })? {
            SourceEvent::Opened(_) => {}
            other => anyhow::bail!("{other:?} instead of an open disk"),
        }
        let mut content = vec![0; LEN];
        fill(&mut content[..1 << 20], number);
        fill(&mut content[3 << 20..5 << 20], number + 100);
        let changed = std::iter::once(0..LEN).collect();
        self.disks.push(Disk { id, sealer, epoch: 0, content, changed });
        self.send(self.disks.len() - 1, EpochKind::Seed, None)
    }

    /// Writes to a disk, whole chunks.
    pub(crate) fn write(&mut self, disk: usize, at: usize, bytes: &[u8]) {
        let range = at..at + bytes.len();
        let disk = &mut self.disks[disk];
        disk.content[range.clone()].copy_from_slice(bytes);
        disk.changed.push(range);
    }

    /// Sends what has changed on all disks as a point; returns its identity.
    pub(crate) fn cut(&mut self, cut: Cut) -> Result<String> {
        let disks = self.disks.len();
        self.cut_of(cut, 0..disks)
    }

    /// The same, but only of some of the disks that it should have.
    pub(crate) fn cut_of(&mut self, cut: Cut, disks: Range<usize>) -> Result<String> {
        self.points += 1;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let unix_ns = u64::try_from((now - cut.age).as_nanos())?;
        let mut id = [0x11; 16];
        id[0] = self.points;
        let record = PointRecord {
            id: PointId(id),
            cut: CutTime { unix_ns, monotonic: MonotonicNs(unix_ns) },
            consistency: cut.consistency,
            method: CutMethod::Verified,
            disks: u16::try_from(self.disks.len())?,
            attempts: 2,
            window: Duration::from_micros(150),
            freeze: Duration::ZERO,
        };
        for disk in disks {
            self.send(disk, EpochKind::Delta, Some(record))?;
        }
        Ok(PointId(id).to_string())
    }

    /// Stands by the points of all disks so far.
    pub(crate) fn confirm(&mut self) -> Result<()> {
        for disk in &self.disks {
            self.stranger.session().confirm_points(disk.id, Epoch(disk.epoch))?;
        }
        self.stranger.transmit();
        Ok(())
    }

    /// Takes the newest point of a disk back.
    pub(crate) fn retract(&mut self, disk: usize, reason: RetractReason) -> Result<()> {
        let Disk { id: disk, epoch, .. } = self.disks[disk];
        let (after, through) = (Epoch(epoch - 1), Epoch(epoch));
        let retract = RetractPoints { disk, after, through, reason };
        self.stranger.session().retract_points(retract)?;
        self.stranger.transmit();
        Ok(())
    }

    /// Sends an epoch of what has changed, and waits until it is durable.
    fn send(&mut self, disk: usize, kind: EpochKind, point: Option<PointRecord>) -> Result<()> {
        let disk = &mut self.disks[disk];
        disk.epoch += 1;
        let link = self.stranger.session().begin_epoch(disk.id, Epoch(disk.epoch), kind)?;
        let (mut bytes, mut summary) =
            (Vec::new(), EpochSummary { completes: true, ..EpochSummary::default() });
        for range in std::mem::take(&mut disk.changed) {
            for piece in range.clone().step_by(FRAME).map(|at| at..range.end.min(at + FRAME)) {
                let data = &disk.content[piece.clone()];
                let zeroes = data.iter().all(|byte| *byte == 0);
                let extents = [FrameExtent {
                    start: Sector(piece.start as u64 / 512),
                    sectors: u32::try_from(piece.len() / 512)?,
                    content: if zeroes { Content::Zeroes } else { Content::Data },
                }];
                let sequence = Sequence(summary.frames);
                let spec = FrameSpec { link, sequence, codec: Codec::Raw, extents: &extents };
                bytes.extend(disk.sealer.seal(&spec, if zeroes { &[] } else { data })?);
                summary.frames += 1;
                *(if zeroes { &mut summary.zero_bytes } else { &mut summary.data_bytes }) +=
                    piece.len() as u64;
            }
        }
        let end = EpochEnd { summary, point };
        bytes.extend(disk.sealer.seal_end(link, Sequence(summary.frames), end)?);
        self.stranger.session().handle_ending(disk.id, Epoch(disk.epoch));
        self.stranger.send(&bytes, End::Finished)?;
        let event = self.stranger.next_event()?;
        ensure!(matches!(event, SourceEvent::Durable { .. }), "{event:?}");
        Ok(())
    }
}

/// Bytes that differ everywhere, and never are a block of zeroes.
pub(crate) fn fill(bytes: &mut [u8], seed: u8) {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[3];
    }
}

/// Some chunks of such bytes.
pub(crate) fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(&mut bytes, seed);
    bytes
}
