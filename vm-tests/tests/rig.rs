//! The rig itself: its guards leave nothing behind, and its sweep finds what a killed run left.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, Extent, Sector};
use vm_tests::{
    Daemon, DaemonSpec, Durable, FileWorkload, Filesystem, LoopDisk, LoopSpec, Mounted, Partition,
    Rig, ZramDisk, first_difference, sweep, wait_until,
};

const MIB: u64 = 1 << 20;
/// Set for the process of this test program that plays the killed run.
const VICTIM: &str = "PINNACE_RIG_VICTIM";

fn sleeper() -> DaemonSpec {
    DaemonSpec {
        name: "sleeper".to_owned(),
        program: "sh".into(),
        arguments: vec!["-c".to_owned(), "echo started; exec sleep 1000".to_owned()],
        variables: Vec::new(),
    }
}

fn mounted_below(path: &Path) -> Result<bool> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let path = path.to_str().context("a path of text")?;
    Ok(table.contains(path))
}

#[test]
fn guards_leave_nothing_behind() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let directory = rig.path().to_owned();
    let loop_disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(32 * MIB)))?;
    let zram = ZramDisk::create(&rig, ByteLen(32 * MIB))?;
    let partition =
        Partition::create(&loop_disk, 1, Extent { start: Sector(2048), sectors: 40960 })?;
    Filesystem::Ext4.make(&zram)?;
    let mounted = Mounted::mount(&rig, &zram, Filesystem::Ext4, "discard")?;
    let pins = Mounted::bpf(&rig)?;
    let daemon = Daemon::start(&rig, sleeper())?;
    let process = daemon.id().context("it runs")?;
    let (zram_path, partition_path) = (zram.path().to_owned(), partition.path().to_owned());
    let backing = loop_disk.backing().to_owned();
    ensure!(zram_path.exists() && partition_path.exists() && mounted_below(&directory)?);

    drop((daemon, pins, mounted, partition, zram, loop_disk, rig));

    ensure!(!Path::new(&format!("/proc/{process}")).exists(), "the process");
    ensure!(!mounted_below(&directory)?, "a mount");
    ensure!(!zram_path.exists() && !partition_path.exists(), "a device");
    ensure!(!bound_loops()?.contains(&backing.display().to_string()), "a bound loop device");
    ensure!(!directory.exists(), "the directory");
    Ok(())
}

fn bound_loops() -> Result<String> {
    let mut found = String::new();
    for entry in fs::read_dir("/sys/block")? {
        let file = entry?.path().join("loop/backing_file");
        found.push_str(&fs::read_to_string(file).unwrap_or_default());
    }
    Ok(found)
}

#[test]
fn a_panic_cleans_up_too() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let directory = rig.path().to_owned();
    let panicked = std::thread::spawn(move || {
        let _zram = ZramDisk::create(&rig, ByteLen(4 * MIB));
        let _loop = LoopDisk::create(&rig, LoopSpec::new(ByteLen(4 * MIB)));
        panic!("on purpose");
    });
    ensure!(panicked.join().is_err() && !directory.exists(), "{}", directory.display());
    Ok(())
}

/// Not a test of its own: what [`what_a_killed_run_left_is_swept`] runs and kills.
#[test]
fn victim() -> Result<()> {
    let Some(ready) = std::env::var_os(VICTIM) else { return Ok(()) };
    let rig = Rig::start()?.context("not skipped")?;
    let zram = ZramDisk::create(&rig, ByteLen(16 * MIB))?;
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(16 * MIB)))?;
    Filesystem::Ext4.make(&disk)?;
    let _mounted = Mounted::mount(&rig, &disk, Filesystem::Ext4, "")?;
    let daemon = Daemon::start(&rig, sleeper())?;
    let process = daemon.id().context("it runs")?;
    let (path, zram) = (rig.path().display(), zram.path().display());
    let complete = Path::new(&ready).with_extension("part");
    fs::write(&complete, format!("{path}\n{zram}\n/proc/{process}"))?;
    fs::rename(&complete, &ready)?;
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

#[test]
fn what_a_killed_run_left_is_swept() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let ready = rig.fresh("ready");
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["victim", "--exact"])
        .env(VICTIM, &ready)
        .spawn()?;
    let left =
        wait_until("the victim", Duration::from_secs(30), || Ok(fs::read_to_string(&ready).ok()));
    victim.kill()?;
    victim.wait()?;
    let left = left?;
    // Another test's new rig may have swept already; this makes sure.
    sweep()?;
    for path in left.lines() {
        ensure!(!Path::new(path).exists(), "{path} is still there");
    }
    ensure!(!mounted_below(Path::new(left.lines().next().context("a path")?))?, "a mount");
    Ok(())
}

#[test]
fn a_rig_at_work_is_not_swept() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&rig, ByteLen(4 * MIB))?;
    sweep()?;
    let other = Rig::start()?.context("not skipped")?;
    ensure!(rig.path().exists() && other.path().exists() && zram.path().exists());
    Ok(())
}

#[test]
fn a_daemon_is_killed_and_restarted() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut daemon = Daemon::start(&rig, sleeper())?;
    let limit = Duration::from_secs(5);
    wait_until("its first line", limit, || Ok(daemon.log()?.contains("started").then_some(())))?;
    let first = daemon.id().context("it runs")?;
    daemon.kill_9()?;
    ensure!(daemon.id().is_none());
    daemon.restart()?;
    ensure!(daemon.id() != Some(first));
    ensure!(!daemon.stop(limit)?.success(), "it ended by the signal");
    Ok(())
}

#[test]
fn copies_are_compared_byte_for_byte() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = ZramDisk::create(&rig, ByteLen(4 * MIB))?;
    let copy = rig.fresh("copy");
    fs::write(&copy, vec![0; 4 << 20])?;
    ensure!(first_difference(disk.path(), &copy)?.is_none());
    let mut bytes = vec![0; 4 << 20];
    bytes[(3 << 20) + 7] = 1;
    fs::write(&copy, &bytes)?;
    let found = first_difference(disk.path(), &copy)?.context("a difference")?;
    ensure!(found.to_string().starts_with("first difference at byte 3145735"), "{found}");
    fs::write(&copy, &bytes[..2 << 20])?;
    let found = first_difference(disk.path(), &copy)?.context("a difference")?;
    ensure!(found.to_string() == "lengths differ: 4 MiB and 2 MiB", "{found}");
    Ok(())
}

fn files_on(filesystem: Filesystem, len: ByteLen) -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(len))?;
    filesystem.make(&disk)?;
    let mounted = Mounted::mount(&rig, &disk, filesystem, "")?;
    let (report, durable) = FileWorkload::start(mounted.path(), 11, 400)?.finish()?;
    ensure!(report.written > 100 && report.deleted > 5 && report.overwritten > 20, "{report:?}");
    mounted.unmount()?;

    let mounted = Mounted::mount(&rig, &disk, filesystem, "")?;
    durable.check(mounted.path())?;
    // The check can fail: another version is asked for.
    let (name, (version, sectors)) = durable.0.first_key_value().context("a durable file")?;
    let other = Durable([(name.clone(), (version + 1, *sectors))].into());
    ensure!(other.check(mounted.path()).is_err(), "the check does not see the content");
    mounted.unmount()?;
    filesystem.check(disk.path())
}

#[test]
fn the_workload_keeps_its_promises_on_ext4() -> Result<()> {
    files_on(Filesystem::Ext4, ByteLen(64 * MIB))
}

#[test]
fn the_workload_keeps_its_promises_on_xfs() -> Result<()> {
    files_on(Filesystem::Xfs, ByteLen(320 * MIB))
}
