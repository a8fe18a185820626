//! Which accelerator works: found out by a short boot, since `/dev/kvm` may be there and hang.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};

use super::{Accelerator, Guest, Initramfs, Kernel, MachineSpec, Userland};
use crate::Rig;

/// `kvm` or `tcg`: used without a probe.
const VARIABLE: &str = "PINNACE_VM_ACCELERATOR";

/// With KVM a guest is up within two seconds.
const LIMIT: Duration = Duration::from_secs(20);

/// Says that it is there, and is gone.
const INIT: &str = "#!/bin/sh\n\
                    /bin/busybox mount -t devtmpfs dev /dev\n\
                    echo '{\"Ready\":{\"release\":\"probe\"}}' > /dev/ttyS1\n\
                    /bin/busybox poweroff -f\n";

/// What works on this machine; probed once in each boot of it.
pub(super) fn find(
    cache: &Path,
    userland: &Userland,
    rig: &Rig,
    kernel: &Kernel,
) -> Result<Accelerator> {
    match std::env::var(VARIABLE).as_deref() {
        Ok("kvm") => return Ok(Accelerator::Kvm),
        Ok("tcg") => return Ok(Accelerator::Tcg),
        Ok(other) => bail!("{VARIABLE} is {other:?}; it may be kvm or tcg"),
        Err(_) => {}
    }
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Tcg);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("this boot's id")?;
    let (known, works) = (cache.join("accelerator"), format!("{}kvm", boot));
    let found = match fs::read_to_string(&known) {
        Ok(text) if text.starts_with(&boot) => text,
        _ => {
            let word = if kvm_works(userland, rig, kernel)? { "kvm" } else { "tcg" };
            let found = format!("{boot}{word}");
            fs::write(&known, &found).context("noting what accelerates guests")?;
            found
        }
    };
    Ok(if found == works { Accelerator::Kvm } else { Accelerator::Tcg })
}

fn kvm_works(userland: &Userland, rig: &Rig, kernel: &Kernel) -> Result<bool> {
    let mut image = Initramfs::new(userland)?;
    image.file("init", INIT, 0o755);
    let path = rig.fresh("probe");
    image.write(&path)?;
    let spec = MachineSpec::new(kernel.image(), path);
    match Guest::boot(rig, userland, Accelerator::Kvm, &spec, LIMIT) {
        Ok(guest) => guest.kill().map(|()| true),
        Err(error) => {
            let why = error.root_cause().to_string();
            let why = why.lines().next().unwrap_or_default();
            eprintln!("KVM is there and does not work ({why}): guests are translated");
            Ok(false)
        }
    }
}
