//! The framework itself: machines boot, run what they are asked, outlive nothing, and their disks
//! outlive them.

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use blocks::ByteLen;
use vm_guest::image;
use vm_tests::{
    Rig,
    vm::{Accelerator, Attachment, Guest, Initramfs, MachineSpec, Series, Vm, VmDisk, blank},
};

const LIMIT: Duration = Duration::from_secs(60);
const GUEST: &str = env!("CARGO_BIN_EXE_guest");

/// A machine with one disk, and what runs it fastest.
fn machine(rig: &Rig, vm: &Vm) -> Result<(Accelerator, MachineSpec)> {
    let kernel = vm.kernel(Series::Bookworm)?;
    let image = image::bare(vm, &kernel, Path::new(GUEST))?;
    let mut machine = vm.machine(&kernel, &image)?;
    let file = blank(rig, ByteLen(16 << 20))?;
    let serial = "disk".to_owned();
    machine.disks = vec![VmDisk { file, attachment: Attachment::VirtioBlk, serial }];
    Ok((vm.accelerator(&kernel)?, machine))
}

fn shell(guest: &mut Guest, script: &str) -> Result<String> {
    guest.check(&["sh", "-c", script], LIMIT)
}

#[test]
fn a_disk_outlives_a_killed_machine() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let vm = Vm::open(&rig)?;
    let (accelerator, machine) = machine(&rig, &vm)?;
    let mut guest = vm.boot(accelerator, &machine)?;
    shell(&mut guest, "echo acknowledged | busybox dd of=/dev/vda conv=fsync bs=512 seek=9")?;
    let failed = guest.run(&["busybox", "false"], LIMIT)?;
    ensure!(failed.code == Some(1), "{failed:?}");
    guest.kill()?;

    let mut guest = vm.boot(accelerator, &machine)?;
    let read = shell(&mut guest, "busybox dd if=/dev/vda bs=512 skip=9 count=1")?;
    ensure!(read.starts_with("acknowledged\n"), "{read:?}");
    // A command that hangs is ended, and the guest goes on.
    let hung = guest.run(&["busybox", "sleep", "1000"], Duration::from_secs(1))?;
    ensure!(hung.code.is_none(), "{hung:?}");
    shell(&mut guest, "busybox poweroff -f -d 1 &")?;
    guest.wait_off(LIMIT)
}

#[test]
fn a_guest_that_says_nothing_is_ended() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let vm = Vm::open(&rig)?;
    let kernel = vm.kernel(Series::Bookworm)?;
    let mut image = Initramfs::new(vm.userland())?;
    image.file("init", "#!/bin/sh\nexec /bin/busybox sleep 1000\n", 0o755);
    let machine = vm.machine(&kernel, &image)?;
    let limit = Duration::from_secs(10);
    let error = vm.boot_within(vm.accelerator(&kernel)?, &machine, limit).err();
    let said = error.map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(said.contains("said nothing for 10 s"), "{said:?}");
    // Its process is a record of the rig while it runs.
    let left = std::fs::read_dir(rig.path())?.flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("process.")).collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
