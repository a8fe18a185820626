//! The disk of a case, made from the guest's disks: a plain one, or a stack of drivers over some.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use blocks::{ByteLen, SECTOR_SIZE};
use serde::{Deserialize, Serialize};
use vm_tests::{BlockDevice, LoopDisk, LoopSpec, Rig, ZramDisk, wait_until};

/// What the disk of a case is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A virtio disk.
    VirtioBlk,
    /// A SCSI disk.
    VirtioScsi,
    /// NVMe without multipath.
    Nvme,
    /// The head of an NVMe multipath device.
    NvmeHead,
    /// Device mapper: pieces of two disks, in another order.
    DmLinear,
    /// Device mapper: encrypted.
    DmCrypt,
    /// Device mapper: thin, over a pool.
    DmThin,
    /// Device mapper: a disk that has a snapshot.
    DmSnapshotOrigin,
    /// md: mirrored.
    Raid1,
    /// md: with parity, over three disks.
    Raid5,
    /// zram.
    Zram,
    /// A loop disk.
    Loop,
    /// null_blk, of several queues.
    NullBlk,
    /// scsi_debug, with logical blocks of 4 KiB.
    ScsiDebug,
}

/// Disks that other drivers are stacked on have these serial numbers.
pub const MEMBERS: [&str; 3] = ["member0", "member1", "member2"];

impl Kind {
    /// The serial number of the guest's disk that is meant, if it is one of those.
    pub const fn serial(self) -> Option<&'static str> {
        match self {
            Self::VirtioBlk => Some("virtioblk"),
            Self::VirtioScsi => Some("virtioscsi"),
            Self::Nvme => Some("nvmeplain"),
            Self::NvmeHead => Some("nvmehead"),
            _ => None,
        }
    }
}

/// A disk, taken apart when dropped.
pub struct Stack {
    /// The disk.
    pub device: BlockDevice,
    _layers: Layers,
}

/// The layers of a stack, the lowest first; taken away when dropped, the highest first.
#[derive(Default)]
struct Layers(Vec<Undo>);

/// How a layer is taken away.
enum Undo {
    Run(Vec<String>),
    Write(String, String),
    RemoveDirectory(String),
    Drop { _guard: Box<dyn std::any::Any> },
}

impl Stack {
    /// Makes the disk of a kind; those made in memory have a length of `len`.
    pub fn build(rig: &Rig, kind: Kind, len: ByteLen) -> Result<Self> {
        if let Some(serial) = kind.serial() {
            return Ok(Self { device: by_serial(serial)?, _layers: Layers::default() });
        }
        match kind {
            Kind::Zram => {
                let disk = ZramDisk::create(rig, len)?;
                Ok(Self::guarded((*disk).clone(), disk))
            }
            Kind::Loop => {
                let disk = LoopDisk::create(rig, LoopSpec::new(len))?;
                Ok(Self::guarded((*disk).clone(), disk))
            }
            Kind::NullBlk => null_blk(len),
            Kind::ScsiDebug => scsi_debug(len),
            Kind::Raid1 => md(1),
            Kind::Raid5 => md(5),
            _ => device_mapper(kind),
        }
    }

    fn guarded(device: BlockDevice, guard: impl std::any::Any) -> Self {
        Self { device, _layers: Layers(vec![Undo::Drop { _guard: Box::new(guard) }]) }
    }
}

impl Layers {
    /// Adds a layer, by the command that takes it away.
    fn undone_by(&mut self, command: &[&str]) {
        self.0.push(Undo::Run(command.iter().map(|&word| word.to_owned()).collect()));
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        while let Some(undo) = self.0.pop() {
            let undone = match undo {
                Undo::Run(command) => run(&command.iter().map(String::as_str).collect::<Vec<_>>()),
                Undo::Write(path, value) => fs::write(path, value).context("undoing"),
                Undo::RemoveDirectory(path) => fs::remove_dir(path).context("undoing"),
                Undo::Drop { .. } => Ok(()),
            };
            if let Err(error) = undone {
                eprintln!("{error:#}");
            }
        }
    }
}

/// The guest's disk with this serial number.
pub fn by_serial(serial: &str) -> Result<BlockDevice> {
    wait_until(&format!("the disk {serial}"), Duration::from_secs(20), || {
        for entry in fs::read_dir("/sys/block")? {
            let entry = entry?;
            let says = |file: &str| {
                let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).contains(serial)
            };
            let hidden = fs::read(entry.path().join("hidden")).is_ok_and(|text| text == b"1\n");
            if !hidden && ["serial", "device/serial", "device/vpd_pg80"].into_iter().any(says) {
                return BlockDevice::open_whole(&entry.file_name().to_string_lossy()).map(Some);
            }
        }
        Ok(None)
    })
}

/// The names of all disks whose driver says this of its model.
fn by_model(model: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let said = fs::read_to_string(entry.path().join("device/model")).unwrap_or_default();
        if said.trim() == model {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

fn members() -> Result<Vec<BlockDevice>> {
    MEMBERS.iter().map(|serial| by_serial(serial)).collect()
}

fn device_mapper(kind: Kind) -> Result<Stack> {
    let members = members()?;
    let [first, second, _] = &members[..] else { bail!("three members") };
    let (a, b) = (first.path().display(), second.path().display());
    let all = first.sectors().min(second.sectors());
    let mut layers = Layers::default();
    let device = match kind {
        Kind::DmLinear => {
            // Neither lengths nor places are multiples of a chunk.
            let long = all / 4 - 5;
            let pieces = [(&b, long + 3), (&a, 5), (&b, 3 * long + 11), (&a, 2 * long + 7)];
            let lines = (0..).zip(pieces).map(|(number, (device, from))| {
                format!("{} {long} linear {device} {from}", number * long)
            });
            map(&mut layers, "linear", &lines.collect::<Vec<_>>().join("\n"))?
        }
        Kind::DmCrypt => {
            let key = "0123456789abcdef".repeat(8);
            let table = format!("0 {all} crypt aes-xts-plain64 {key} 0 {a} 0 1 allow_discards");
            map(&mut layers, "crypt", &table)?
        }
        Kind::DmThin => {
            // A pool's metadata begins with zeroes.
            zero(first.path(), 1 << 20)?;
            let pool = map(&mut layers, "pool", &format!("0 {all} thin-pool {a} {b} 128 0"))?;
            run(&["dmsetup", "message", "pool", "0", "create_thin 0"])?;
            let (major, minor) = pool.number();
            map(&mut layers, "thin", &format!("0 {all} thin {major}:{minor} 0"))?
        }
        Kind::DmSnapshotOrigin => {
            zero(second.path(), 1 << 20)?;
            // Half of it, so that the other disk has room for all that is copied.
            let half = all / 2;
            let origin = map(&mut layers, "origin", &format!("0 {half} snapshot-origin {a}"))?;
            map(&mut layers, "snapshot", &format!("0 {half} snapshot {a} {b} N 16"))?;
            origin
        }
        _ => bail!("{kind:?} is not made by the device mapper"),
    };
    Ok(Stack { device, _layers: layers })
}

/// A new device of the device mapper.
fn map(layers: &mut Layers, name: &str, table: &str) -> Result<BlockDevice> {
    let path = "/run/table";
    fs::write(path, table)?;
    run(&["dmsetup", "create", name, "--noudevsync", "--noudevrules", path])?;
    layers.undone_by(&["dmsetup", "remove", "--noudevsync", "--retry", name]);
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let said = fs::read_to_string(entry.path().join("dm/name")).unwrap_or_default();
        if said.trim() == name {
            return BlockDevice::open_whole(&entry.file_name().to_string_lossy());
        }
    }
    bail!("the device mapper made no {name}")
}

fn md(level: u32) -> Result<Stack> {
    let count = if level == 5 { 3 } else { 2 };
    let disks = &members()?[..count];
    // Mirrors that differ would answer one read so and the next otherwise. Where discarded, these
    // disks are zeroes.
    disks
        .iter()
        .try_for_each(|disk| run(&["busybox", "blkdiscard", &disk.path().to_string_lossy()]))?;
    let (level, count) = (format!("--level={level}"), format!("--raid-devices={count}"));
    let paths: Vec<_> = disks.iter().map(|disk| disk.path().to_string_lossy()).collect();
    let mut command = vec!["mdadm", "--create", "/dev/md0", "--run", "--force", "--metadata=1.2"];
    command.extend(["--assume-clean", &*level, &*count]);
    command.extend(paths.iter().map(|path| &**path));
    run(&command)?;
    let mut layers = Layers::default();
    layers.undone_by(&["mdadm", "--stop", "/dev/md0"]);
    Ok(Stack { device: BlockDevice::open_whole("md0")?, _layers: layers })
}

fn null_blk(len: ByteLen) -> Result<Stack> {
    run(&["modprobe", "null_blk", "nr_devices=0"])?;
    if !Path::new("/sys/kernel/config/nullb").exists() {
        run(&["busybox", "mount", "-t", "configfs", "configfs", "/sys/kernel/config"])?;
    }
    let mut layers = Layers::default();
    let directory = "/sys/kernel/config/nullb/nullb0";
    fs::create_dir(directory).context("making a null_blk")?;
    layers.0.push(Undo::RemoveDirectory(directory.to_owned()));
    let size = (len.0 >> 20).to_string();
    let settings =
        [("size", &*size), ("memory_backed", "1"), ("discard", "1"), ("submit_queues", "2")];
    for (name, value) in settings.into_iter().chain([("power", "1")]) {
        fs::write(format!("{directory}/{name}"), value)
            .with_context(|| format!("setting {name} of a null_blk"))?;
    }
    layers.0.push(Undo::Write(format!("{directory}/power"), "0".to_owned()));
    let named = |name: &&str| BlockDevice::open_whole(name).is_ok();
    let name = ["nullb0", "nullb1"].into_iter().find(named).context("a null_blk in /dev")?;
    Ok(Stack { device: BlockDevice::open_whole(name)?, _layers: layers })
}

fn scsi_debug(len: ByteLen) -> Result<Stack> {
    let size = format!("dev_size_mb={}", len.0 >> 20);
    run(&["modprobe", "scsi_debug", "sector_size=4096", "lbpu=1", "lbpws=1", "delay=0", &size])?;
    let mut layers = Layers::default();
    layers.undone_by(&["modprobe", "-r", "scsi_debug"]);
    let names = wait_until("the disk of scsi_debug", Duration::from_secs(20), || {
        Ok(Some(by_model("scsi_debug")?).filter(|names| !names.is_empty()))
    })?;
    let device = BlockDevice::open_whole(&names[0])?;
    ensure!(device.logical_block() == 4096, "{}", device.logical_block());
    Ok(Stack { device, _layers: layers })
}

/// Overwrites the first bytes of a device with zeroes.
fn zero(path: &Path, bytes: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(path)?;
    let zeroes = vec![0; usize::try_from(bytes / SECTOR_SIZE * SECTOR_SIZE)?];
    file.write_all_at(&zeroes, 0).context("writing zeroes")?;
    Ok(file.sync_all()?)
}

pub(crate) fn run(command: &[&str]) -> Result<()> {
    let (program, arguments) = command.split_first().context("an empty command")?;
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("running {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} ({}): {}", command.join(" "), output.status, said.trim());
    Ok(())
}
