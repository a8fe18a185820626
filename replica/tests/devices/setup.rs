//! Loop devices, small file systems and epochs for the tests beside this.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use blocks::{
    ChunkSize, DiskId, Epoch, EpochKind, Generation, Geometry, MachineId, SECTOR_SIZE, Sector,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use replica::{Disk, DiskSpec, DiskState, IncomingError};
use tempfile::TempDir;
use wire::{
    CheckedFrame, Codec, Content, DataKey, EpochLink, EpochSummary, FrameExtent, FrameSpec, Sealer,
    Sequence,
};

/// Whether the tests of this file are switched off.
pub(super) fn skipped() -> bool {
    let skipped = std::env::var("PINNACE_SKIP_DEVICE_TESTS").is_ok_and(|value| value == "1");
    if skipped {
        eprintln!("skipped: PINNACE_SKIP_DEVICE_TESTS is 1");
    }
    skipped
}

/// A loop device over a file full of old bytes; detached when dropped.
pub(super) struct Loop {
    pub(super) path: PathBuf,
    _backing: TempDir,
}

impl Loop {
    pub(super) fn new(len: usize, logical_block: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let backing = dir.path().join("backing");
        std::fs::write(&backing, vec![0xee; len]).unwrap();
        let output = Command::new("losetup")
            .args(["--find", "--show", "--sector-size", &logical_block.to_string()])
            .arg(&backing)
            .output()
            .unwrap();
        assert!(output.status.success(), "losetup (root is needed): {output:?}");
        let path = String::from_utf8(output.stdout).unwrap().trim().into();
        Self { path, _backing: dir }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

/// A file system in memory of a fixed size; unmounted when dropped.
pub(super) struct SmallFileSystem(TempDir);

impl SmallFileSystem {
    pub(super) fn new(mebibytes: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let (none, kind) = (None::<&str>, Some("tmpfs"));
        mount(none, dir.path(), kind, MsFlags::empty(), Some(size.as_str()))
            .expect("mounting a tmpfs (root is needed)");
        Self(dir)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

pub(super) fn spec(sectors: u64) -> DiskSpec {
    DiskSpec {
        id: DiskId([0xd1; 16]),
        generation: Generation([0x9e; 16]),
        geometry: Geometry::new(sectors, 512, ChunkSize::DEFAULT).unwrap(),
        name: "disk under test".to_owned(),
        machine: MachineId([0x3a; 16]),
        key: DataKey::from_bytes([0x77; 32]),
    }
}

/// Sectors set to one byte each, or to zero.
pub(super) type Piece = (u64, u32, u8);

pub(super) fn apply(content: &mut [u8], pieces: &[Piece]) {
    for (start, sectors, byte) in pieces {
        let start = usize::try_from(start * SECTOR_SIZE).unwrap();
        content[start..][..*sectors as usize * 512].fill(*byte);
    }
}

/// Sends the next epoch, a frame a piece, uncompressed.
pub(super) fn send(
    disk: &Disk,
    spec: &DiskSpec,
    kind: EpochKind,
    pieces: &[Piece],
) -> Result<DiskState, IncomingError> {
    let follows = disk.state().last_durable;
    let link = EpochLink { kind, epoch: Epoch(follows.0 + 1), follows };
    let sealer = Sealer::new(&spec.key, spec.id, spec.generation).unwrap();
    let mut summary = EpochSummary { completes: true, ..EpochSummary::default() };
    let mut incoming = disk.begin(link).unwrap();
    for (sequence, (start, sectors, byte)) in (0..).zip(pieces) {
        let content = if *byte == 0 { Content::Zeroes } else { Content::Data };
        let extents = [FrameExtent { start: Sector(*start), sectors: *sectors, content }];
        let payload = vec![*byte; usize::try_from(extents[0].data_len()).unwrap()];
        let (sequence, codec) = (Sequence(sequence), Codec::Raw);
        let frame = FrameSpec { link, sequence, codec, extents: &extents };
        let frame = CheckedFrame::parse(sealer.seal(&frame, &payload).unwrap()).unwrap();
        summary.frames += 1;
        summary.data_bytes += payload.len() as u64;
        summary.zero_bytes += frame.zero_bytes();
        incoming.append(frame)?;
    }
    let end = sealer.seal_end(link, Sequence(1 << 32), &summary).unwrap();
    incoming.append(CheckedFrame::parse(end).unwrap())?;
    Ok(incoming.commit()?.state)
}
