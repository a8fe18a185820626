//! The tracker that marks at issue: `issue_only.bpf.c`, compiled, loaded and attached.

use std::{
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result, ensure};
use blocks::{Bitmap, Geometry};
use libbpf_rs::{Link, MapCore, Object, ObjectBuilder};
use memmap2::{MmapOptions, MmapRaw};
use vm_tests::BlockDevice;

use crate::race::Marks;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/issue_only.bpf.c");

/// `CHUNKS` of the source.
const CHUNKS: u64 = 4096;

/// A disk under the wrong tracker.
pub struct IssueOnly {
    geometry: Geometry,
    words: MmapRaw,
    _link: Link,
    _object: Object,
}

impl IssueOnly {
    /// Attaches it to a disk. `object` was made by [`compile`].
    pub fn attach(object: &Path, device: &BlockDevice, geometry: Geometry) -> Result<Self> {
        ensure!(geometry.chunks() <= CHUNKS && geometry.chunk().log2() == 12, "a small disk");
        let mut open = ObjectBuilder::default().open_file(object).context("opening the object")?;
        let (major, minor) = device.number();
        let number: Vec<u8> = [major, minor].iter().flat_map(|n| n.to_ne_bytes()).collect();
        let mut constants = open
            .maps_mut()
            .find(|map| map.name().to_string_lossy().ends_with(".rodata"))
            .context("the object's constants")?;
        constants.set_initial_value(&number).context("setting the disk")?;
        let object = open.load().context("loading the object")?;
        let link = object.progs_mut().next().context("a program")?.attach().context("attaching")?;
        let dirty = object.maps().find(|map| map.name() == "dirty").context("the bitmap")?;
        let len = usize::try_from(CHUNKS / 8)?;
        let words = MmapOptions::new().len(len).map_raw(dirty.as_fd().as_raw_fd());
        let words = words.context("mapping the bitmap")?;
        Ok(Self { geometry, words, _link: link, _object: object })
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        assert!(index < CHUNKS / 64, "within the bitmap");
        let offset = usize::try_from(index * 8).expect("64-bit");
        // SAFETY: the mapping holds all words, so the sum stays inside of it.
        let at = unsafe { self.words.as_mut_ptr().add(offset) };
        // SAFETY: aligned, alive as long as `self`, and everybody uses atomic operations on it.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }
}

impl Marks for IssueOnly {
    fn take(&mut self) -> Result<Bitmap> {
        let mut taken = Bitmap::new(self.geometry.chunks());
        for index in 0..self.geometry.chunks().div_ceil(64) {
            taken.insert_word(index, self.word(index).swap(0, Ordering::SeqCst));
        }
        Ok(taken)
    }
}

/// Compiles it with the clang of this machine.
pub fn compile(object: &Path) -> Result<()> {
    let versioned = (13..=24).rev().map(|version| format!("clang-{version}").into());
    let named = std::env::var_os("CLANG").map(PathBuf::from).into_iter();
    let clang = named
        .chain([PathBuf::from("clang")])
        .chain(versioned)
        .find(|clang| Command::new(clang).arg("--version").output().is_ok())
        .context("clang compiles the wrong tracker, and is not installed")?;
    let flags = ["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Werror", "-c", SOURCE, "-o"];
    let output = Command::new(clang).args(flags).arg(object).output().context("running clang")?;
    ensure!(output.status.success(), "clang: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
