//! An enrolled machine that has been taken over: what it says is garbage, cut off, repeated, too
//! large, not its own. The target closes the connection, or fails the epoch, and goes on.

use std::fs;

use anyhow::{Context, Result, ensure};
use blocks::{ChunkSize, DiskId, Epoch, EpochKind, Generation, Geometry, MachineId, Sector};
use vm_tests::{Rig, Site};
use wire::message::{OpenDisk, Origin, VersionRange};
use wire::session::SourceEvent;
use wire::{
    CloseCode, Codec, Content, DataKey, EpochLink, EpochSummary, FrameExtent, FrameSpec, Reason,
    Sealer, Sequence, Text,
};

use crate::bystander::{Bystander, site};
use crate::enrolment::{Machine, token};
use crate::stranger::{End, Stranger, credentials, machine};

const SECTORS: u64 = 8192;
const GENERATION: Generation = Generation([9; 16]);
/// What the target may need at most: windows, pipelines and the runtime, ten times over what it
/// needs for the disk of the bystander.
const MEMORY_MAX_KIB: u64 = 512 << 10;

/// The machine that was taken over, and the target it knows.
struct Attacker<'a> {
    site: &'a Site,
    machine: Machine,
    id: MachineId,
    disks: u8,
}

/// A connection of its own with a disk of its own.
struct Foothold {
    stranger: Stranger,
    disk: DiskId,
    sealer: Sealer,
}

impl<'a> Attacker<'a> {
    fn enrolled(rig: &Rig, site: &'a Site) -> Result<Self> {
        let machine = Machine::new(rig)?;
        let enrolled = machine.enroll(site, &token(site, &[])?)?;
        ensure!(enrolled.status.success(), "{enrolled:?}");
        let id = crate::stranger::machine(&machine.state)?;
        Ok(Self { site, machine, id, disks: 0 })
    }

    fn connect(&self) -> Result<Stranger> {
        let ca = self.site.store().join("pki/ca.pem");
        let credentials = credentials(&self.machine.state)?;
        Stranger::connect(self.site.relay.address(), &ca, credentials)
    }

    fn introduced(&self) -> Result<Stranger> {
        let mut stranger = self.connect()?;
        stranger.introduce(self.id)?;
        Ok(stranger)
    }

    /// A new disk, open on a new connection.
    fn foothold(&mut self) -> Result<Foothold> {
        self.disks += 1;
        let disk = DiskId([self.disks; 16]);
        let mut stranger = self.introduced()?;
        match stranger.open_disk(open(disk, SECTORS)?)? {
            SourceEvent::Opened(_) => {}
            other => anyhow::bail!("{other:?} instead of an open disk"),
        }
        Ok(Foothold { stranger, disk, sealer: Sealer::new(&key(), disk, GENERATION)? })
    }
}

fn key() -> DataKey {
    DataKey::from_bytes([3; 32])
}

fn open(disk: DiskId, sectors: u64) -> Result<OpenDisk> {
    let geometry = Geometry::new(sectors, 512, ChunkSize::DEFAULT)?;
    let name = Text::lossy("stolen");
    let origin = Origin::default();
    Ok(OpenDisk { disk, generation: GENERATION, geometry, name, key: key(), origin })
}

fn link(epoch: u64) -> EpochLink {
    EpochLink { kind: EpochKind::Seed, epoch: Epoch(epoch), follows: Epoch(epoch - 1) }
}

/// A content frame of `sectors` sectors from `start`.
fn frame(sealer: &Sealer, link: EpochLink, sequence: u64, at: (u64, u32)) -> Result<Vec<u8>> {
    let (start, sectors) = at;
    let extents = [FrameExtent { start: Sector(start), sectors, content: Content::Data }];
    let sequence = Sequence(sequence);
    let spec = FrameSpec { link, sequence, codec: Codec::Raw, extents: &extents };
    Ok(sealer.seal(&spec, &vec![0x66; sectors as usize * 512])?.to_vec())
}

/// The end frame of an epoch of so many frames and bytes.
fn end(sealer: &Sealer, link: EpochLink, (frames, data_bytes): (u64, u64)) -> Result<Vec<u8>> {
    let summary = EpochSummary { frames, data_bytes, zero_bytes: 0, completes: false };
    Ok(sealer.seal_end(link, Sequence(frames), &summary)?.to_vec())
}

/// A whole epoch of one frame.
fn epoch(sealer: &Sealer, number: u64) -> Result<Vec<u8>> {
    let link = link(number);
    Ok([frame(sealer, link, 0, (0, 8))?, end(sealer, link, (1, 4096))?].concat())
}

impl Foothold {
    /// Sends bytes on a stream; the target must close the connection for this reason.
    fn closes(mut self, what: &str, bytes: &[u8], reason: Reason) -> Result<()> {
        self.stranger.send(bytes, End::Finished)?;
        closes(self.stranger, what, reason)
    }

    /// Begins an epoch after the newest durable one.
    fn begin(&mut self, number: u64) -> Result<EpochLink> {
        let EpochLink { kind, epoch, .. } = link(number);
        Ok(self.stranger.session().begin_epoch(self.disk, epoch, kind)?)
    }

    /// Sends an epoch that was begun; the target must fail it and keep the connection. Returns
    /// the reason.
    fn fails(&mut self, frames: &[Vec<u8>]) -> Result<CloseCode> {
        self.stranger.send(&frames.concat(), End::Finished)?;
        match self.stranger.next_event()? {
            SourceEvent::Failed(failed) => Ok(failed.code),
            other => anyhow::bail!("{other:?} instead of a failed epoch"),
        }
    }

    /// Sends an epoch that was begun; it must become durable.
    fn succeeds(&mut self, bytes: &[u8]) -> Result<()> {
        self.stranger.send(bytes, End::Finished)?;
        let event = self.stranger.next_event()?;
        ensure!(matches!(event, SourceEvent::Durable { .. }), "{event:?}");
        Ok(())
    }
}

fn closes(stranger: Stranger, what: &str, reason: Reason) -> Result<()> {
    let code = stranger.closed().context(what.to_owned())?;
    ensure!(code == reason, "{what}: {code}");
    Ok(())
}

/// The most memory that the target ever had, in KiB.
fn memory_peak(site: &Site) -> Result<u64> {
    let id = site.target.id().context("the target runs")?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.context("a process has a peak of memory")
}

/// Runs attacks against a target that has a bystander to serve; the target must be the same
/// process afterwards, with bounded memory, and the bystander's replica must follow.
fn withstands(attacks: impl FnOnce(&mut Attacker<'_>, DiskId) -> Result<()>) -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    let site = site(&rig, None)?;
    bystander.begin(&rig, &site)?;
    let disk = site.disk(bystander.name())?["id"].as_str().context("an identity")?.parse()?;
    let id = site.target.id();
    let mut attacker = Attacker::enrolled(&rig, &site)?;
    attacks(&mut attacker, disk).with_context(|| site.logs())?;
    let peak = memory_peak(&site).with_context(|| site.logs())?;
    ensure!(site.target.id() == id, "the target is another process");
    ensure!(peak < MEMORY_MAX_KIB, "the target needed {peak} KiB");
    let log = site.target.log()?;
    ensure!(!log.contains("panicked"), "{log}");
    bystander.end(&site)
}

#[test]
fn what_is_said_out_of_turn_closes_the_connection() -> Result<()> {
    withstands(|attacker, _| {
        let mut later = attacker.connect()?;
        later.say_hello(attacker.id, VersionRange { min: 2, max: 2 });
        closes(later, "a later version", Reason::VersionMismatch)?;
        let mut other = attacker.connect()?;
        other.say_hello(MachineId([1; 16]), VersionRange::SUPPORTED);
        closes(other, "another machine's name", Reason::NotAuthenticated)?;
        let mut noise = attacker.connect()?;
        noise.say(&[0xff; 4096]);
        closes(noise, "a message of 4 GiB", Reason::TooLarge)?;
        let mut unknown = attacker.introduced()?;
        unknown.say(&[6, 0, 0, 0, 0x77, 0x77, 1, 2, 3, 4]);
        closes(unknown, "a message that does not exist", Reason::ProtocolViolation)?;
        let mut twice = attacker.introduced()?;
        twice.say_hello(attacker.id, VersionRange::SUPPORTED);
        closes(twice, "a second hello", Reason::ProtocolViolation)?;
        let mut early = attacker.connect()?;
        let sealer = Sealer::new(&key(), DiskId([1; 16]), GENERATION)?;
        early.send(&epoch(&sealer, 1)?, End::Finished)?;
        early.say_hello(attacker.id, VersionRange::SUPPORTED);
        let code = early.closed().context("a frame before the hello")?;
        let expected = [Reason::ProtocolViolation, Reason::UnknownDisk];
        ensure!(expected.iter().any(|reason| code == *reason), "a frame before the hello: {code}");
        // Cut off in the middle of a message, and gone.
        let mut rude = attacker.introduced()?;
        rude.say(&[200, 0, 0, 0, 2, 0, 1]);
        drop(rude);
        Ok(())
    })
}

#[test]
fn what_is_no_frame_closes_the_connection() -> Result<()> {
    withstands(|attacker, _| {
        attacker.foothold()?.closes("noise", &[0xa5; 100_000], Reason::BadFrame)?;
        let hold = attacker.foothold()?;
        let whole = epoch(&hold.sealer, 1)?;
        hold.closes("half a frame", &whole[..2000], Reason::BadFrame)?;
        let hold = attacker.foothold()?;
        let only = frame(&hold.sealer, link(1), 0, (0, 8))?;
        hold.closes("an epoch without its end", &only, Reason::ProtocolViolation)?;
        let hold = attacker.foothold()?;
        let mut flipped = epoch(&hold.sealer, 1)?;
        flipped[1000] ^= 1;
        hold.closes("a flipped bit", &flipped, Reason::BadFrame)?;
        let hold = attacker.foothold()?;
        let huge = with_payload_len(epoch(&hold.sealer, 1)?, u32::MAX);
        hold.closes("a frame of 4 GiB", &huge, Reason::TooLarge)?;
        let hold = attacker.foothold()?;
        let past = frame(&hold.sealer, link(1), 0, (SECTORS - 4, 8))?;
        hold.closes("a frame past the end of the disk", &past, Reason::ProtocolViolation)?;
        let hold = attacker.foothold()?;
        let other = Sealer::new(&key(), DiskId([200; 16]), GENERATION)?;
        hold.closes("a disk that is not open", &epoch(&other, 1)?, Reason::UnknownDisk)?;
        let hold = attacker.foothold()?;
        let other = Sealer::new(&key(), hold.disk, Generation([1; 16]))?;
        hold.closes("another generation", &epoch(&other, 1)?, Reason::GenerationMismatch)
    })
}

#[test]
fn what_was_sent_before_is_not_taken_again() -> Result<()> {
    withstands(|attacker, _| {
        let mut hold = attacker.foothold()?;
        let first = epoch(&hold.sealer, 1)?;
        hold.begin(1)?;
        hold.succeeds(&first)?;
        hold.closes("an epoch that is durable", &first, Reason::Replay)?;
        let hold = attacker.foothold()?;
        let one = frame(&hold.sealer, link(1), 0, (0, 8))?;
        hold.closes("a frame twice", &[one.clone(), one].concat(), Reason::Replay)
    })
}

#[test]
fn what_is_not_authentic_fails_its_epoch_and_no_more() -> Result<()> {
    withstands(|attacker, _| {
        let mut hold = attacker.foothold()?;
        // Well-formed in every checksum, and sealed with a key that is not the disk's.
        let forger = Sealer::new(&DataKey::from_bytes([4; 32]), hold.disk, GENERATION)?;
        hold.begin(1)?;
        let code = hold.fails(&[epoch(&forger, 1)?])?;
        ensure!(code == Reason::NotAuthentic, "another key: {code}");
        let link = hold.begin(2)?;
        let content = frame(&hold.sealer, link, 0, (0, 8))?;
        let end_of_more = end(&hold.sealer, link, (7, 4096))?;
        let code = hold.fails(&[content, end_of_more])?;
        ensure!(code == Reason::ProtocolViolation, "an end that does not add up: {code}");
        // The disk is still good.
        let link = hold.begin(3)?;
        let content = frame(&hold.sealer, link, 0, (0, 8))?;
        hold.succeeds(&[content, end(&hold.sealer, link, (1, 4096))?].concat())
    })
}

#[test]
fn a_bomb_and_a_flood_are_contained() -> Result<()> {
    withstands(|attacker, _| {
        // A frame that says it is 1 MiB, and decompresses to much more.
        let mut hold = attacker.foothold()?;
        let extents = [FrameExtent { start: Sector(0), sectors: 2048, content: Content::Data }];
        let link_of_bomb = hold.begin(1)?;
        let spec = FrameSpec {
            link: link_of_bomb,
            sequence: Sequence(0),
            codec: Codec::Zstd,
            extents: &extents,
        };
        let bomb = hold.sealer.seal(&spec, &zstd_bomb())?;
        let code = hold.fails(&[bomb.to_vec(), end(&hold.sealer, link_of_bomb, (1, 1 << 20))?])?;
        ensure!(code == Reason::ProtocolViolation, "a bomb: {code}");
        // Epochs that wait for one that never ends, far beyond any window.
        let mut hold = attacker.foothold()?;
        for number in 1..=4 {
            let frames = 96 / 4;
            let mut bytes = Vec::new();
            for sequence in 0..frames {
                bytes.extend(frame(&hold.sealer, link(number), sequence, (0, 2048))?);
            }
            hold.stranger.send(&bytes, End::LeftOpen)?;
        }
        let mut bytes = Vec::new();
        for sequence in 0..64 {
            bytes.extend(frame(&hold.sealer, link(5), sequence, (0, 2048))?);
        }
        hold.closes("a fifth epoch at once", &bytes, Reason::ProtocolViolation)?;
        let mut hold = attacker.foothold()?;
        hold.stranger.send(&frame(&hold.sealer, link(1), 0, (0, 8))?, End::LeftOpen)?;
        let mut bytes = Vec::new();
        for sequence in 0..64 {
            bytes.extend(frame(&hold.sealer, link(2), sequence, (0, 2048))?);
        }
        hold.closes("more than the window", &bytes, Reason::ProtocolViolation)
    })
}

#[test]
fn what_belongs_to_others_is_out_of_reach() -> Result<()> {
    withstands(|attacker, others| {
        let mut stranger = attacker.introduced()?;
        match stranger.open_disk(open(others, SECTORS)?)? {
            SourceEvent::Refused(refused) => {
                ensure!(refused.code == Reason::NotAuthorised, "{}", refused.code);
            }
            other => anyhow::bail!("{other:?} instead of a refusal"),
        }
        // The same connection, and a disk of 8 PiB.
        match stranger.open_disk(open(DiskId([77; 16]), 1 << 44)?)? {
            SourceEvent::Refused(refused) => {
                ensure!(refused.code == Reason::DiskTooLarge, "{}", refused.code);
            }
            other => anyhow::bail!("{other:?} instead of a refusal"),
        }
        let sealer = Sealer::new(&key(), others, GENERATION)?;
        stranger.send(&epoch(&sealer, 1)?, End::Finished)?;
        let code = stranger.closed().context("a frame of another machine's disk")?;
        ensure!(code == Reason::UnknownDisk, "{code}");
        ensure!(machine(&attacker.machine.state)? == attacker.id, "it is who it was");
        Ok(())
    })
}

/// 256 MiB of zeroes in a raw zstd frame of run-length blocks.
fn zstd_bomb() -> Vec<u8> {
    // Magic, a frame header of a window of 128 KiB and more, no content size.
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    let blocks = (256 << 20) / (128 << 10);
    for block in 1..=blocks {
        // Block header: last, type 1 (one byte repeated), size.
        let header: u32 = (128 << 10) << 3 | 1 << 1 | u32::from(block == blocks);
        bytes.extend_from_slice(&header.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes
}

/// The first frame with another payload length, and a header checksum that agrees.
fn with_payload_len(mut bytes: Vec<u8>, len: u32) -> Vec<u8> {
    bytes[16..20].copy_from_slice(&len.to_le_bytes());
    let checksum = crc32c(&bytes[..100]);
    bytes[100..104].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// CRC-32C, bit by bit: the only one a test needs.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
