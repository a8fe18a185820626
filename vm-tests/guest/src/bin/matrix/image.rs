//! What all guests of the matrix are given: one image for each kernel, and disks.

use std::{path::Path, path::PathBuf};

use anyhow::{Context, Result};
use blocks::ByteLen;
use vm_guest::{
    cell::ISSUE_ONLY,
    issue_only, serve,
    stack::{Kind, MEMBERS},
};
use vm_tests::{
    Rig,
    vm::{Attachment, Initramfs, Kernel, Vm, VmDisk, blank},
};

/// Programs that the cases call.
const TOOLS: [&str; 8] =
    ["dmsetup", "mdadm", "mkfs.btrfs", "mkfs.ext4", "mkfs.xfs", "modprobe", "btrfs", "e2fsck"];

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
const LARGE: ByteLen = ByteLen(320 << 20);

/// The image of a kernel.
pub(crate) fn make(rig: &Rig, vm: &Vm, kernel: &Kernel) -> Result<Initramfs> {
    let mut image = Initramfs::new(vm.userland())?;
    let guest = guest_program()?;
    image.program("init", &guest)?;
    image.program("bin/guest", &guest)?;
    TOOLS.iter().try_for_each(|name| image.tool(vm.userland(), name))?;
    image.link("sbin/modprobe", "../bin/modprobe");
    image.modules(kernel, LOADED)?;
    image.modules(kernel, ON_REQUEST)?;
    image.file(serve::MODULES.trim_start_matches('/'), LOADED.join("\n"), 0o644);
    let object = rig.fresh("issue-only").with_extension("o");
    issue_only::compile(&object)?;
    let object = std::fs::read(object).context("reading the wrong tracker")?;
    image.file(ISSUE_ONLY.trim_start_matches('/'), object, 0o644);
    Ok(image)
}

/// The disks of a guest, all of zeroes.
pub(crate) fn disks(rig: &Rig) -> Result<Vec<VmDisk>> {
    let mut disks = Vec::new();
    let plain = [
        (Kind::VirtioBlk, Attachment::VirtioBlk),
        (Kind::VirtioScsi, Attachment::VirtioScsi),
        (Kind::Nvme, Attachment::Nvme),
        (Kind::NvmeHead, Attachment::NvmeShared),
    ];
    let plain = plain
        .map(|(kind, attachment)| (kind.serial().expect("these are the guest's own"), attachment));
    let members = MEMBERS.map(|serial| (serial, Attachment::VirtioBlk));
    for (serial, attachment) in plain.into_iter().chain(members) {
        let file = blank(rig, LARGE)?;
        disks.push(VmDisk { file, attachment, serial: serial.to_owned() });
    }
    Ok(disks)
}

/// The program that runs in guests, built beside this one.
fn guest_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("the path of this executable")?;
    let beside: PathBuf = this.parent().unwrap_or(Path::new("/")).join("guest");
    beside.is_file().then_some(beside).context("the program `guest` is not beside this one")
}
