//! File systems on the rig's disks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use blocks::ByteLen;
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::BlockDevice;
use crate::Rig;

/// A file system that the rig can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filesystem {
    /// ext4.
    Ext4,
    /// XFS, on disks of 300 MiB and more.
    Xfs,
    /// Btrfs, on disks of 120 MiB and more.
    Btrfs,
}

impl Filesystem {
    /// Makes the file system on a disk of the rig, over whatever is there.
    pub fn make(self, device: &BlockDevice) -> Result<()> {
        let (program, flags): (_, &[&str]) = match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F"]),
            Self::Xfs => ("mkfs.xfs", &["-q", "-f"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-f"]),
        };
        run(Command::new(program).args(flags).arg(device.path()))
    }

    /// Checks a file system that is not mounted, changing nothing. An error says what is wrong.
    ///
    /// A journal that was not replayed is no fault of ext4; XFS asks for a mount first.
    pub fn check(self, path: &Path) -> Result<()> {
        match self {
            Self::Ext4 => run(Command::new("e2fsck").args(["-f", "-n"]).arg(path)),
            Self::Xfs => run(Command::new("xfs_repair").args(["-n", "-f"]).arg(path)),
            Self::Btrfs => run(Command::new("btrfs").args(["check", "--readonly"]).arg(path)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }
}

/// A mount, undone when dropped. Drop it before its disk.
pub struct Mounted {
    point: PathBuf,
    _rig: Rig,
}

impl Mounted {
    /// Mounts a disk's file system in the rig, with these options (`"discard"`, or `""`).
    pub fn mount(
        rig: &Rig,
        device: &BlockDevice,
        filesystem: Filesystem,
        options: &str,
    ) -> Result<Self> {
        Self::at(rig, device.path(), filesystem.name(), options)
    }

    /// Mounts a BPF file system of its own: pins in it go with it.
    pub fn bpf(rig: &Rig) -> Result<Self> {
        Self::at(rig, Path::new("bpf"), "bpf", "mode=0700")
    }

    /// Mounts a file system in memory with room for `len`.
    pub fn tmpfs(rig: &Rig, len: ByteLen) -> Result<Self> {
        Self::at(rig, Path::new("tmpfs"), "tmpfs", &format!("size={},mode=0700", len.0))
    }

    fn at(rig: &Rig, source: &Path, kind: &str, options: &str) -> Result<Self> {
        let point = rig.fresh("mount");
        fs::create_dir(&point).with_context(|| format!("making {}", point.display()))?;
        mount(Some(source), &point, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("mounting {} as {kind}", source.display()))?;
        Ok(Self { point, _rig: rig.clone() })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Unmounts, and fails if the file system is still in use after five seconds.
    pub fn unmount(self) -> Result<()> {
        self.try_unmount()
        // The drop that follows finds nothing mounted, and removes the directory.
    }

    fn try_unmount(&self) -> Result<()> {
        for _ in 0..250 {
            match umount2(&self.point, MntFlags::empty()) {
                Ok(()) | Err(Errno::EINVAL) => return Ok(()),
                Err(Errno::EBUSY) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("unmounting {}", self.point.display()));
                }
            }
        }
        bail!("{} stays in use", self.point.display())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.try_unmount() {
            eprintln!("{error:#}");
            let _ = umount2(&self.point, MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir(&self.point);
    }
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        let (out, err) = (&output.stdout, &output.stderr);
        let said = [String::from_utf8_lossy(out), String::from_utf8_lossy(err)].concat();
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    Ok(())
}
