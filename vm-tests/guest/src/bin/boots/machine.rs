//! The machine: a kernel, a first file system that does what Debian's does, and a root disk.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use clap::ValueEnum;
use vm_tests::{
    Rig, pinnace_binary,
    vm::{
        Accelerator, Attachment, Guest, Initramfs, Kernel, MachineSpec, Series, Vm, VmDisk, blank,
    },
};

const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "nvme", "ext4"];

/// Those that file systems ask for by what they do.
const ON_REQUEST: [&str; 2] = ["crc32c_generic", "crc32c_intel"];

const ROOT: ByteLen = ByteLen(96 << 20);
const STORE: ByteLen = ByteLen(512 << 20);

/// Where the partition of the root begins, in sectors.
const PARTITION: u64 = 2048;

/// Where the machine's own hooks come from, beside this crate.
const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../early-attach/hooks");

/// What Debian's first file system does with a root disk, and no more.
const INIT: &str = r#"#!/bin/sh
export PATH=/bin:/sbin
for kind in proc:/proc sysfs:/sys devtmpfs:/dev; do
    busybox mount -t ${kind%%:*} ${kind%%:*} ${kind#*:}
done
for module in MODULES; do modprobe -q $module; done
for word in $(busybox cat /proc/cmdline); do
    case $word in
    root=*) root=${word#root=} ;;
    early=*) early=${word#early=} ;;
    esac
done
# A pattern, which the shell replaces by what there is.
until [ -b $(echo $root) ]; do busybox sleep 0.1; done
root=$(echo $root)
[ "$early" = on ] && /scripts/local-premount/pinnace
# As usual: for reading first, although that replays the journal, and then by the root's own hand.
busybox mount -t ext4 -o ro $root /root || busybox poweroff -f
for point in dev proc sys; do busybox mount --move /$point /root/$point; done
exec busybox switch_root /root /sbin/init
"#;

const ROOT_INIT: &str = r#"#!/bin/sh
export PATH=/bin:/sbin
for word in $(busybox cat /proc/cmdline); do
    case $word in store=*) store=${word#store=} ;; esac
done
busybox mount -o remount,rw /
busybox mount -t tmpfs tmpfs /run
busybox mkdir -p /dev/shm
busybox mount -t tmpfs tmpfs /dev/shm
busybox mount -t tmpfs tmpfs /tmp
busybox mount -t ext4 $store /srv
busybox ifconfig lo 127.0.0.1 up
guest serve
while :; do busybox sleep 1000; done
"#;

/// Without points the base of a replica follows its disk, so that the two can be compared.
const AGENT: &str = r#"interval = "500ms"
log_interval = "1h"
[policy]
point_interval = "0s"
[resync]
window = "always"
"#;

const TARGET: &str = "store = \"/srv/store\"\nlisten = \"127.0.0.1:7414\"\n";

/// Whether a boot attaches early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Early {
    On,
    Off,
}

/// What the root disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RootDisk {
    /// A virtio disk.
    Virtio,
    /// The head of an NVMe multipath device, of two paths.
    Multipath,
}

impl RootDisk {
    /// A kernel that has the disk tracked: before the second, heads keep no statistics.
    fn series(self) -> Series {
        match self {
            Self::Virtio => Series::Bookworm,
            Self::Multipath => Series::Trixie,
        }
    }

    fn attachment(self) -> Attachment {
        match self {
            Self::Virtio => Attachment::VirtioBlk,
            Self::Multipath => Attachment::NvmeShared,
        }
    }

    /// Its name before it is protected. A head is numbered like the controller that was ready first.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Virtio => "vda",
            Self::Multipath => "nvme?n1",
        }
    }
}

/// In which order the machine has its disks, and so how the kernel names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Usual,
    Exchanged,
}

/// All that outlives a boot.
pub(crate) struct Machine {
    vm: Vm,
    kernel: Kernel,
    accelerator: Accelerator,
    programs: Programs,
    spec: MachineSpec,
    root_disk: RootDisk,
    root: VmDisk,
    store: VmDisk,
}

impl Machine {
    /// Makes it, with a root disk that has everything and a disk for a target's store.
    pub(crate) fn make(rig: &Rig, root_disk: RootDisk) -> Result<Self> {
        let vm = Vm::open(rig)?;
        let kernel = vm.kernel(root_disk.series())?;
        let programs = Programs::find(rig)?;
        let disk =
            |file, attachment, serial: &str| VmDisk { file, attachment, serial: serial.to_owned() };
        let file = make_root(rig, &vm, &programs)?;
        let root = disk(file, root_disk.attachment(), "root");
        let store = disk(store_disk(rig)?, Attachment::VirtioBlk, "store");
        let spec = vm.machine(&kernel, &first_file_system(&vm, &kernel, &programs, None)?)?;
        let accelerator = vm.accelerator(&kernel)?;
        Ok(Self { vm, kernel, accelerator, programs, spec, root_disk, root, store })
    }

    /// Makes the first file system anew, with the plan that an agent has written.
    pub(crate) fn update_initramfs(&mut self, plan: &str) -> Result<()> {
        let image = first_file_system(&self.vm, &self.kernel, &self.programs, Some(plan))?;
        self.spec = self.vm.machine(&self.kernel, &image)?;
        Ok(())
    }

    /// Boots it, to where commands are taken in its root.
    pub(crate) fn boot(&self, early: Early, names: Names) -> Result<Guest> {
        let (root, store) = (self.root.clone(), self.store.clone());
        let (disks, [root, store]) = match (self.root_disk, names) {
            (RootDisk::Virtio, Names::Usual) => (vec![root, store], ["vda1", "vdb"]),
            (RootDisk::Virtio, Names::Exchanged) => (vec![store, root], ["vdb1", "vda"]),
            // Its driver alone decides on its name.
            (RootDisk::Multipath, _) => (vec![root, store], ["nvme?n1p1", "vda"]),
        };
        let early = if early == Early::On { "on" } else { "off" };
        let command_line = format!("root=/dev/{root} store=/dev/{store} early={early}");
        self.vm.boot(self.accelerator, &MachineSpec { command_line, disks, ..self.spec.clone() })
    }
}

/// Programs of this build, without what debuggers need.
struct Programs {
    pinnace: PathBuf,
    guest: PathBuf,
    early_attach: PathBuf,
}

impl Programs {
    fn find(rig: &Rig) -> Result<Self> {
        let pinnace = pinnace_binary()?;
        let beside = |name: &str| {
            let path = pinnace.with_file_name(name);
            ensure!(path.is_file(), "no {name} beside {}: build it", pinnace.display());
            stripped(rig, &path)
        };
        let (guest, early_attach) = (beside("guest")?, beside("early-attach")?);
        Ok(Self { guest, early_attach, pinnace: stripped(rig, &pinnace)? })
    }
}

fn stripped(rig: &Rig, program: &Path) -> Result<PathBuf> {
    let path = rig.fresh("program");
    run(Command::new("strip").arg("-o").arg(&path).arg(program))?;
    Ok(path)
}

fn first_file_system(
    vm: &Vm,
    kernel: &Kernel,
    programs: &Programs,
    plan: Option<&str>,
) -> Result<Initramfs> {
    let mut image = Initramfs::new(vm.userland())?;
    image.tool(vm.userland(), "modprobe")?;
    // Where the kernel itself calls it.
    image.link("sbin/modprobe", "../bin/modprobe");
    image.modules(kernel, &[&MODULES[..], &ON_REQUEST[..]].concat())?;
    image.program("sbin/pinnace-early-attach", &programs.early_attach)?;
    let hook = Path::new(HOOKS).join("initramfs-tools/scripts/local-premount/pinnace");
    image.file("scripts/local-premount/pinnace", fs::read(hook)?, 0o755);
    image.file("init", INIT.replace("MODULES", &MODULES.join(" ")), 0o755);
    image.file("root/.where-the-root-is-mounted", "", 0o644);
    if let Some(plan) = plan {
        image.file("etc/pinnace/early-attach.plan", plan, 0o644);
    }
    Ok(image)
}

/// A disk with a table of one partition, and on that a file system with the programs.
fn make_root(rig: &Rig, vm: &Vm, programs: &Programs) -> Result<PathBuf> {
    let mut tree = Initramfs::new(vm.userland())?;
    tree.program("bin/pinnace", &programs.pinnace)?;
    tree.program("bin/guest", &programs.guest)?;
    let blkid = ["/usr/sbin/blkid", "/sbin/blkid"].map(Path::new);
    let blkid = blkid.into_iter().find(|path| path.exists()).context("no blkid here")?;
    tree.program("bin/blkid", blkid)?;
    tree.file("sbin/init", ROOT_INIT, 0o755);
    let shutdown = Path::new(HOOKS).join("systemd/pinnace.shutdown");
    tree.file("lib/systemd/system-shutdown/pinnace.shutdown", fs::read(shutdown)?, 0o755);
    tree.link("usr/bin", "../bin");
    tree.file("etc/pinnace/agent.toml", AGENT, 0o644);
    tree.file("etc/pinnace/target.toml", TARGET, 0o644);
    for point in ["srv", "data", "var/lib/pinnace/agent"] {
        tree.file(&format!("{point}/.here"), "", 0o644);
    }
    let directory = rig.fresh("root");
    tree.lay_out(&directory)?;
    let path = blank(rig, ROOT)?;
    let disk = File::options().write(true).open(&path)?;
    disk.write_all_at(&partition_table(), 0)?;
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-F", "-E"]);
    make.arg(format!("offset={},lazy_itable_init=0,lazy_journal_init=0", PARTITION * 512));
    make.arg("-d").arg(&directory).arg(&path);
    run(make.arg(format!("{}k", (ROOT.0 - PARTITION * 512) >> 10)))?;
    fs::remove_dir_all(&directory)?;
    Ok(path)
}

/// One partition, from [`PARTITION`] to the end.
fn partition_table() -> [u8; 512] {
    let mut table = [0; 512];
    let sectors = u32::try_from(ROOT.0 / 512 - PARTITION).expect("a small disk");
    table[440..444].copy_from_slice(b"pinn");
    table[446 + 4] = 0x83;
    table[446 + 8..][..4].copy_from_slice(&u32::try_from(PARTITION).expect("small").to_le_bytes());
    table[446 + 12..][..4].copy_from_slice(&sectors.to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    table
}

fn store_disk(rig: &Rig) -> Result<PathBuf> {
    let path = blank(rig, STORE)?;
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&path))?;
    Ok(path)
}

fn run(command: &mut Command) -> Result<()> {
    let described = format!("{command:?}");
    let output = command.output().with_context(|| described.clone())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{described} ({}): {}", output.status, said.trim());
    Ok(())
}
