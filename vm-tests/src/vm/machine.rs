//! A virtual machine, described: what QEMU is told.

use std::path::{Path, PathBuf};

use blocks::ByteLen;

/// How the guest's processors are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// By the processor itself.
    Kvm,
    /// Translated by QEMU.
    Tcg,
}

/// How a disk is attached, which decides the guest's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// virtio-blk, of two queues.
    VirtioBlk,
    /// A SCSI disk on a virtio adapter of its own.
    VirtioScsi,
    /// NVMe, on a controller of its own.
    Nvme,
    /// NVMe, a namespace of a subsystem of two controllers, which makes its disk the head of a
    /// multipath device.
    NvmeShared,
}

/// A disk of a machine: a file, which outlives the machine and may be given to the next.
#[derive(Clone, Debug)]
pub struct VmDisk {
    /// The raw content.
    pub file: PathBuf,
    /// How.
    pub attachment: Attachment,
    /// What tells it from the others in the guest: letters and digits, no two alike.
    pub serial: String,
}

/// A machine.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// The kernel that is booted, or nothing to boot from the first disk as a PC does.
    pub kernel: Option<PathBuf>,
    /// Its first file system, with a kernel.
    pub initramfs: Option<PathBuf>,
    /// More for the kernel's command line.
    pub command_line: String,
    /// Its memory.
    pub memory: ByteLen,
    /// Its processors.
    pub processors: u32,
    /// Its disks.
    pub disks: Vec<VmDisk>,
    /// More arguments for QEMU.
    pub more: Vec<String>,
}

impl MachineSpec {
    /// A machine of two processors, with 2 GiB and no disks.
    pub fn new(kernel: PathBuf, initramfs: PathBuf) -> Self {
        Self {
            kernel: Some(kernel),
            initramfs: Some(initramfs),
            command_line: String::new(),
            memory: ByteLen(2 << 30),
            processors: 2,
            disks: Vec::new(),
            more: Vec::new(),
        }
    }

    /// QEMU's arguments, where the console goes to a file and the port to a socket.
    pub(super) fn arguments(
        &self,
        accelerator: Accelerator,
        console: &Path,
        port: &Path,
    ) -> Vec<String> {
        let (processor, accelerator) = match accelerator {
            Accelerator::Kvm => ("host", "kvm"),
            Accelerator::Tcg => ("max", "tcg,thread=multi"),
        };
        let mut list = Arguments::default();
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            list.flag(flag);
        }
        list.pair("-display", "none");
        list.pair("-machine", "pc");
        list.pair("-accel", accelerator);
        list.pair("-cpu", processor);
        list.pair("-m", format!("{}M", self.memory.0 >> 20));
        list.pair("-smp", self.processors.to_string());
        list.pair("-chardev", format!("file,id=console,append=on,path={}", console.display()));
        list.pair("-serial", "chardev:console");
        list.pair("-chardev", format!("socket,id=port,path={}", port.display()));
        list.pair("-serial", "chardev:port");
        if let Some(kernel) = &self.kernel {
            list.pair("-kernel", kernel.display().to_string());
            // A panic ends the machine, as there is no reboot.
            list.pair("-append", format!("console=ttyS0 panic=-1 quiet {}", self.command_line));
        }
        if let Some(initramfs) = &self.initramfs {
            list.pair("-initrd", initramfs.display().to_string());
        }
        for (number, disk) in self.disks.iter().enumerate() {
            disk.describe(number, &mut list);
        }
        list.0.extend(self.more.iter().cloned());
        list.0
    }
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn pair(&mut self, flag: &str, value: impl Into<String>) {
        self.flag(flag);
        self.0.push(value.into());
    }

    fn device(&mut self, value: impl Into<String>) {
        self.pair("-device", value);
    }
}

impl VmDisk {
    fn describe(&self, number: usize, list: &mut Arguments) {
        let (file, serial) = (self.file.display(), &self.serial);
        let drive = format!("drive{number}");
        list.pair("-drive", format!("if=none,id={drive},format=raw,discard=unmap,file={file}"));
        match self.attachment {
            Attachment::VirtioBlk => {
                list.device(format!("virtio-blk-pci,drive={drive},serial={serial},num-queues=2"));
            }
            Attachment::VirtioScsi => {
                list.device(format!("virtio-scsi-pci,id=scsi{number}"));
                list.device(format!("scsi-hd,bus=scsi{number}.0,drive={drive},serial={serial}"));
            }
            Attachment::Nvme => list.device(format!("nvme,drive={drive},serial={serial}")),
            Attachment::NvmeShared => {
                list.device(format!("nvme-subsys,id=subsystem{number},nqn={serial}"));
                for controller in ["a", "b"] {
                    list.device(format!(
                        "nvme,id=nvme{number}{controller},serial={serial},subsys=subsystem{number}"
                    ));
                }
                // It is attached to both.
                list.device(format!("nvme-ns,drive={drive},bus=nvme{number}a,shared=on"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_attached_as_asked() {
        let mut spec = MachineSpec::new("/k".into(), "/i".into());
        let disk = |attachment, serial: &str| VmDisk {
            file: "/d".into(),
            attachment,
            serial: serial.to_owned(),
        };
        spec.disks = vec![disk(Attachment::VirtioBlk, "one"), disk(Attachment::NvmeShared, "two")];
        let said = spec.arguments(Accelerator::Tcg, Path::new("/c"), Path::new("/p")).join(" ");
        assert!(said.contains("-drive if=none,id=drive0,format=raw,discard=unmap,file=/d"));
        assert!(said.contains("virtio-blk-pci,drive=drive0,serial=one"));
        assert!(said.contains("nvme-ns,drive=drive1,bus=nvme1a,shared=on"));
        assert!(said.contains("-accel tcg,thread=multi -cpu max"));
    }
}
