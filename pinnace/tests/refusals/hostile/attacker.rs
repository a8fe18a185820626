//! The machine that was taken over: its certificate, its keys, and frames as it likes them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use blocks::{ChunkSize, DiskId, Epoch, EpochKind, Generation, Geometry, MachineId, Sector};
use vm_tests::{Rig, Site};
use wire::message::{OpenDisk, Origin};
use wire::session::SourceEvent;
use wire::{
    CloseCode, Codec, Content, DataKey, EpochLink, EpochSummary, FrameExtent, FrameSpec, Reason,
    Sealer, Sequence, Text,
};

use crate::bystander::PATIENCE;
use crate::enrolment::{Machine, token};
use crate::stranger::{End, Stranger, credentials, machine};

/// 4 MiB.
pub(super) const SECTORS: u64 = 8192;
pub(super) const GENERATION: Generation = Generation([9; 16]);
const KEPT: DiskId = DiskId([0xee; 16]);

/// The machine that was taken over, and the target it knows.
pub(super) struct Attacker<'a> {
    rig: &'a Rig,
    pub(super) site: &'a Site,
    machine: Machine,
    pub(super) id: MachineId,
    disks: u16,
}

/// A connection of its own with a disk of its own.
pub(super) struct Foothold {
    pub(super) stranger: Stranger,
    pub(super) disk: DiskId,
    pub(super) sealer: Sealer,
}

impl<'a> Attacker<'a> {
    pub(super) fn enrolled(rig: &'a Rig, site: &'a Site) -> Result<Self> {
        let machine = Machine::new(rig)?;
        let enrolled = machine.enroll(site, &token(site, &[])?)?;
        ensure!(enrolled.status.success(), "{enrolled:?}");
        let id = crate::stranger::machine(&machine.state)?;
        Ok(Self { rig, site, machine, id, disks: 0 })
    }

    /// Another machine that was taken over, of whose disks this one knows nothing.
    pub(super) fn accomplice(&self) -> Result<Self> {
        Ok(Self { disks: 1 << 15, ..Self::enrolled(self.rig, self.site)? })
    }

    /// Makes a replica that holds something, and returns where it is.
    pub(super) fn keep_a_disk(&mut self) -> Result<PathBuf> {
        let mut stranger = self.introduced()?;
        let request = OpenDisk { name: Text::lossy("kept"), ..open(KEPT, SECTORS)? };
        opens(&mut stranger, request)?;
        let mut hold =
            Foothold { stranger, disk: KEPT, sealer: Sealer::new(&key(), KEPT, GENERATION)? };
        hold.begin(1)?;
        let bytes = epoch(&hold.sealer, 1)?;
        hold.succeeds(&bytes)?;
        self.site.replica("kept")
    }

    pub(super) fn connect(&self) -> Result<Stranger> {
        let ca = self.site.store().join("pki/ca.pem");
        let credentials = credentials(&self.machine.state)?;
        // Not through the relay, whose clients are few.
        Stranger::connect(self.site.listen, &ca, credentials)
    }

    pub(super) fn introduced(&self) -> Result<Stranger> {
        let mut stranger = self.connect()?;
        stranger.introduce(self.id)?;
        Ok(stranger)
    }

    /// An identity that no disk has had.
    pub(super) fn fresh_disk(&mut self) -> DiskId {
        self.disks += 1;
        let mut id = [0x11; 16];
        id[..2].copy_from_slice(&self.disks.to_le_bytes());
        DiskId(id)
    }

    /// A new disk, open on a new connection.
    pub(super) fn foothold(&mut self) -> Result<Foothold> {
        let disk = self.fresh_disk();
        let mut stranger = self.introduced()?;
        opens(&mut stranger, open(disk, SECTORS)?)?;
        Ok(Foothold { stranger, disk, sealer: Sealer::new(&key(), disk, GENERATION)? })
    }

    /// Fails unless the target goes on serving the machine that the site is about.
    pub(super) fn is_not_alone(&self) -> Result<()> {
        let status = self.site.status()?;
        let name = status["disks"][0]["name"].as_str().context("a protected disk")?;
        self.site.wait_for_epochs(name, 2, PATIENCE)?;
        Ok(())
    }

    /// Whether the machine is still who it was, and welcome.
    pub(super) fn is_welcome(&self) -> Result<()> {
        self.introduced()?;
        ensure!(machine(&self.machine.state)? == self.id, "it is another machine");
        Ok(())
    }
}

fn opens(stranger: &mut Stranger, request: OpenDisk) -> Result<()> {
    match stranger.open_disk(request)? {
        SourceEvent::Opened(_) => Ok(()),
        other => bail!("{other:?} instead of an open disk"),
    }
}

pub(super) fn key() -> DataKey {
    DataKey::from_bytes([3; 32])
}

pub(super) fn open(disk: DiskId, sectors: u64) -> Result<OpenDisk> {
    let geometry = Geometry::new(sectors, 512, ChunkSize::DEFAULT)?;
    let name = Text::lossy("stolen");
    let origin = Origin::default();
    Ok(OpenDisk { disk, generation: GENERATION, geometry, name, key: key(), origin })
}

pub(super) fn link(epoch: u64) -> EpochLink {
    EpochLink { kind: EpochKind::Seed, epoch: Epoch(epoch), follows: Epoch(epoch - 1) }
}

/// A content frame of `sectors` sectors from `start`.
pub(super) fn frame(
    sealer: &Sealer,
    link: EpochLink,
    sequence: u64,
    (start, sectors): (u64, u32),
) -> Result<Vec<u8>> {
    coded(
        sealer,
        link,
        (Codec::Raw, &vec![0x66; sectors as usize * 512]),
        (sequence, start, sectors),
    )
}

/// A content frame with this payload.
pub(super) fn coded(
    sealer: &Sealer,
    link: EpochLink,
    (codec, payload): (Codec, &[u8]),
    (sequence, start, sectors): (u64, u64, u32),
) -> Result<Vec<u8>> {
    let extents = [FrameExtent { start: Sector(start), sectors, content: Content::Data }];
    let spec = FrameSpec { link, sequence: Sequence(sequence), codec, extents: &extents };
    Ok(sealer.seal(&spec, payload)?.to_vec())
}

/// What counts so many frames and bytes, and leaves nothing outstanding.
pub(super) fn summary(frames: u64, data_bytes: u64) -> EpochSummary {
    EpochSummary { frames, data_bytes, zero_bytes: 0, completes: true }
}

/// The end frame of an epoch of so many frames and bytes.
pub(super) fn end(
    sealer: &Sealer,
    link: EpochLink,
    (frames, data_bytes): (u64, u64),
) -> Result<Vec<u8>> {
    Ok(sealer.seal_end(link, Sequence(frames), &summary(frames, data_bytes))?.to_vec())
}

/// A whole epoch of one frame.
pub(super) fn epoch(sealer: &Sealer, number: u64) -> Result<Vec<u8>> {
    let link = link(number);
    Ok([frame(sealer, link, 0, (0, 8))?, end(sealer, link, (1, 4096))?].concat())
}

impl Foothold {
    /// Begins an epoch after the newest durable one.
    pub(super) fn begin(&mut self, number: u64) -> Result<EpochLink> {
        self.begin_as(number, EpochKind::Seed)
    }

    /// Begins an epoch of this kind.
    pub(super) fn begin_as(&mut self, number: u64, kind: EpochKind) -> Result<EpochLink> {
        let (disk, epoch) = (self.disk, Epoch(number));
        let link = self.stranger.session().begin_epoch(disk, epoch, kind)?;
        // What follows may be anything; the session must not be in its way.
        self.stranger.session().handle_ending(disk, epoch);
        Ok(link)
    }

    /// Sends an epoch that was begun; the target must fail it and keep the connection. Returns
    /// the reason.
    pub(super) fn fails(&mut self, bytes: &[u8]) -> Result<CloseCode> {
        self.stranger.send(bytes, End::Finished)?;
        match self.stranger.next_event()? {
            SourceEvent::Failed(failed) => Ok(failed.code),
            other => bail!("{other:?} instead of a failed epoch"),
        }
    }

    /// Sends an epoch that was begun; it must become durable.
    pub(super) fn succeeds(&mut self, bytes: &[u8]) -> Result<()> {
        self.stranger.send(bytes, End::Finished)?;
        let event = self.stranger.next_event()?;
        ensure!(matches!(event, SourceEvent::Durable { .. }), "{event:?}");
        Ok(())
    }
}

/// Fails unless the target closes the connection for this reason.
pub(super) fn closes(stranger: Stranger, reason: Reason) -> Result<()> {
    let code = stranger.closed().context("it should have been closed")?;
    ensure!(code == reason, "closed with {code} instead of {reason:?}");
    Ok(())
}

/// Leaves and looks whether the target still takes this machine.
pub(super) fn outlives(attacker: &Attacker<'_>, stranger: Stranger) -> Result<()> {
    drop(stranger);
    attacker.is_welcome()
}
