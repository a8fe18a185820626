//! The demo: the main job on disks made for it, touching no disk of the machine.
//!
//! `cargo xtask demo` builds and runs it as root.

use std::{process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result};
use blocks::ByteLen;
use vm_tests::{FileWorkload, Filesystem, LoopDisk, LoopSpec, Mounted, Rig};

const SOURCE_LEN: ByteLen = ByteLen(256 << 20);
const WORK_TIME: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let rig = Rig::start()?.context("the demo needs real devices")?;
    let source = LoopDisk::create(&rig, LoopSpec::new(SOURCE_LEN))?;
    println!("A source disk of {SOURCE_LEN}: {}", source.path().display());
    Filesystem::Ext4.make(&source)?;
    let mounted = Mounted::mount(&rig, &source, Filesystem::Ext4, "discard")?;

    println!("An application writes, renames and deletes files on it.");
    let application = FileWorkload::start(mounted.path(), 1, u64::MAX)?;
    thread::sleep(WORK_TIME);
    let (report, durable) = application.stop()?;
    durable.check(mounted.path())?;
    println!("{} files written, {} durable and whole.", report.written, durable.0.len());
    mounted.unmount()
}
