//! Disks to read: files on a real file system, and loop devices on them.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use blocks::{ChunkSize, Geometry};
use shipper::DiskSource;
use tempfile::NamedTempFile;

/// A disk and what it holds.
pub(crate) struct Disk {
    pub(crate) geometry: Geometry,
    pub(crate) content: Vec<u8>,
    file: NamedTempFile,
}

impl Disk {
    /// A file, in a directory that allows direct I/O, with logical blocks of 512 bytes.
    pub(crate) fn new(content: Vec<u8>) -> Self {
        Self::with_blocks(content, 512)
    }

    pub(crate) fn with_blocks(content: Vec<u8>, logical_block: u32) -> Self {
        let sectors = content.len() as u64 / 512;
        let geometry = Geometry::new(sectors, logical_block, ChunkSize::DEFAULT).unwrap();
        let file = NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        file.as_file().write_all_at(&content, 0).unwrap();
        Self { geometry, content, file }
    }

    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn source(&self) -> DiskSource {
        self.source_at(self.path())
    }

    pub(crate) fn source_at(&self, path: &Path) -> DiskSource {
        DiskSource { id: super::DISK, path: path.to_owned(), geometry: self.geometry }
    }

    /// Overwrites, on the disk and in what is known of it.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.file.as_file().write_all_at(bytes, at as u64).unwrap();
        self.content[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

/// A loop device over a disk's file. Needs root.
pub(crate) struct LoopDevice(PathBuf);

impl LoopDevice {
    pub(crate) fn attach(disk: &Disk) -> Self {
        let made = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on", "--sector-size"])
            .arg(disk.geometry.logical_block().to_string())
            .arg(disk.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(PathBuf::from(String::from_utf8(made.stdout).unwrap().trim()))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.0).status();
        assert!(detached.is_ok_and(|status| status.success()));
    }
}

/// `len` bytes in stretches of zeroes, text and noise, of lengths that fit no boundary.
pub(crate) fn mixed(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + (1 << 20));
    let mut state = seed;
    while bytes.len() < len {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let stretch = 1 + (state >> 40) as usize % 300_000;
        match (state >> 33) % 3 {
            0 => bytes.resize(bytes.len() + stretch, 0),
            1 => bytes.extend(text(state).take(stretch)),
            _ => bytes.extend(noise(stretch, state)),
        }
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn text(seed: u64) -> impl Iterator<Item = u8> {
    (seed % 1000..).flat_map(|i| format!("line {i} of a log that says little\n").into_bytes())
}

pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
