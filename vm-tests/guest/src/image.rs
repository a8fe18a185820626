//! What guests are given: an image for each kernel, and disks.

use std::path::Path;

use anyhow::{Context, Result};
use blocks::ByteLen;
use vm_tests::{
    Rig,
    vm::{Attachment, Initramfs, Kernel, Vm, VmDisk, blank},
};

use crate::{
    cell::ISSUE_ONLY,
    issue_only, serve,
    stack::{Kind, MEMBERS},
};

/// Programs that the cases call.
const TOOLS: [&str; 7] =
    ["dmsetup", "mdadm", "mkfs.btrfs", "mkfs.ext4", "mkfs.xfs", "btrfs", "e2fsck"];

/// Loaded when the guest comes up.
const LOADED: &[&str] = &["virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "sg", "nvme"];

/// Loaded by whoever needs them, by the kernel's own request too.
const ON_REQUEST: &[&str] = &[
    "dm-mod",
    "dm-crypt",
    "dm-thin-pool",
    "dm-snapshot",
    "raid1",
    "raid456",
    "zram",
    "loop",
    "null_blk",
    "scsi_debug",
    "configfs",
    "ext4",
    "xfs",
    "btrfs",
    // Ciphers, checksums and compression, which are asked for by what they do.
    "xts",
    "aes_generic",
    "aesni_intel",
    "cbc",
    "ecb",
    "essiv",
    "sha256_generic",
    "crc32c_generic",
    "crc32c_intel",
    "libcrc32c",
    "crc32c-cryptoapi",
    "xxhash_generic",
    "blake2b_generic",
    "lzo",
    "lzo-rle",
    "lz4",
    "zstd",
    "842",
    "deflate",
];

/// Large enough for XFS.
pub const LARGE: ByteLen = ByteLen(320 << 20);

/// An image that runs what it is asked to: `guest` is the program of that name.
pub fn bare(vm: &Vm, kernel: &Kernel, guest: &Path) -> Result<Initramfs> {
    let mut image = Initramfs::new(vm.userland())?;
    image.program("init", guest)?;
    image.program("bin/guest", guest)?;
    image.tool(vm.userland(), "modprobe")?;
    // Where the kernel itself calls it.
    image.link("sbin/modprobe", "../bin/modprobe");
    image.modules(kernel, LOADED)?;
    image.file(serve::MODULES.trim_start_matches('/'), LOADED.join("\n"), 0o644);
    Ok(image)
}

/// The same, with everything that the cases of the matrix need.
pub fn for_cases(rig: &Rig, vm: &Vm, kernel: &Kernel, guest: &Path) -> Result<Initramfs> {
    let mut image = bare(vm, kernel, guest)?;
    TOOLS.iter().try_for_each(|name| image.tool(vm.userland(), name))?;
    image.modules(kernel, ON_REQUEST)?;
    let object = rig.fresh("issue-only").with_extension("o");
    issue_only::compile(&object)?;
    let object = std::fs::read(object).context("reading the wrong tracker")?;
    image.file(ISSUE_ONLY.trim_start_matches('/'), object, 0o644);
    Ok(image)
}

/// The disks that the cases of the matrix expect, all of zeroes; `others` is the length of those
/// that no file system is made on.
pub fn disks(rig: &Rig, others: ByteLen) -> Result<Vec<VmDisk>> {
    let mut disks = Vec::new();
    let plain = [
        (Kind::VirtioBlk, Attachment::VirtioBlk, LARGE),
        (Kind::VirtioScsi, Attachment::VirtioScsi, others),
        (Kind::Nvme, Attachment::Nvme, LARGE),
        (Kind::NvmeHead, Attachment::NvmeShared, others),
    ];
    let plain = plain.map(|(kind, attachment, len)| {
        (kind.serial().expect("these are the guest's own"), attachment, len)
    });
    let members = MEMBERS.map(|serial| (serial, Attachment::VirtioBlk, others));
    for (serial, attachment, len) in plain.into_iter().chain(members) {
        let file = blank(rig, len)?;
        disks.push(VmDisk { file, attachment, serial: serial.to_owned() });
    }
    Ok(disks)
}
