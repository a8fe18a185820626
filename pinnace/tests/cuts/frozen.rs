//! File systems held still: for points that are to be consistent for them, and for applications.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use nix::sys::signal::Signal;
use serde_json::Value;
use vm_tests::{FileWorkload, Filesystem, LoopDisk, LoopSpec, Mounted, Pace, Rig, Site, SiteSpec};

use crate::judge::PATIENCE;

const SELDOM: &str = "interval = \"1h\"\n[policy]\npoint_interval = \"1h\"\nobjective = \"2h\"\n";

struct Mount {
    site: Site,
    mounted: Mounted,
    disk: LoopDisk,
}

fn mount(rig: &Rig, settings: &str) -> Result<Mount> {
    let disk = LoopDisk::create(rig, LoopSpec::new(ByteLen(128 << 20)))?;
    Filesystem::Ext4.make(&disk)?;
    let agent_settings = format!("{SELDOM}{settings}");
    let spec = SiteSpec { agent_settings, ..SiteSpec::default() };
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pinnace"));
    let site = Site::start_program(program, rig, &spec)?;
    let mounted = Mounted::mount(rig, &disk, Filesystem::Ext4, "discard")?;
    site.protect(&disk, PATIENCE)?;
    Ok(Mount { site, mounted, disk })
}

fn create(site: &Site, flags: &[&str]) -> Result<Value> {
    let arguments: Vec<&str> = ["point", "create", "--json"].iter().chain(flags).copied().collect();
    let printed = site.agent(&arguments).with_context(|| site.logs())?;
    serde_json::from_str(&printed).context("what was printed")
}

#[test]
fn a_file_system_is_frozen_and_let_go() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let Mount { site, mounted, disk: _disk } = mount(&rig, "freeze = \"always\"\n")?;
    let pace = Pace { pause: Duration::from_millis(1), trim_every: u64::MAX };
    let application = FileWorkload::start_at(mounted.path(), 2, u64::MAX, pace)?;
    for _ in 0..3 {
        let point = create(&site, &[])?;
        ensure!(point["consistency"] == "filesystem-consistent", "{point}");
        let freeze = point["freeze_seconds"].as_f64().unwrap_or_default();
        ensure!(freeze > 0.0 && freeze < 2.5, "{point}");
    }
    // It goes on: whatever is frozen can't be written.
    fs::write(mounted.path().join("after"), b"thawed")?;
    application.stop()?;
    Ok(())
}

#[test]
fn hooks_make_an_application_ready_and_are_shown() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let trace = rig.fresh("trace");
    let line = |word: &str| format!("echo {word} >> {}; echo said {word}", trace.display());
    let hooks = format!("[hooks]\npre = {:?}\npost = {:?}\n", line("pre"), line("post"));
    let Mount { site, mounted: _mounted, disk: _disk } = mount(&rig, &hooks)?;
    let point = create(&site, &["--app-consistent"])?;
    ensure!(point["consistency"] == "application-consistent", "{point}");
    ensure!(fs::read_to_string(&trace)? == "pre\npost\n");
    let hooks = &site.status()?["points"]["hooks"];
    ensure!(hooks[0] == "said pre" && hooks[1] == "said post", "{hooks}");
    Ok(())
}

#[test]
fn a_hook_that_fails_leaves_no_point_and_the_other_runs() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let trace = rig.fresh("trace");
    let post = format!("echo post >> {}", trace.display());
    let hooks = format!("[hooks]\npre = \"echo not now; exit 7\"\npost = {post:?}\n");
    let Mount { site, mounted: _mounted, disk: _disk } = mount(&rig, &hooks)?;
    let output = site.try_agent(&["point", "create", "--app-consistent"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(5), "{said}");
    ensure!(said.contains("pre hook failed") && said.contains("not now"), "{said}");
    ensure!(fs::read_to_string(&trace)? == "post\n");
    Ok(())
}

#[test]
fn an_agent_that_is_killed_while_it_freezes_leaves_nothing_frozen() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let settings = "freeze = \"always\"\nfreeze_limit = \"30s\"\n";
    let Mount { mut site, mounted, disk: _disk } = mount(&rig, settings)?;
    for round in 0..6u64 {
        let agent = site.agent.id().context("the agent runs")?;
        let dying = std::thread::scope(|scope| -> Result<()> {
            let asking = scope.spawn(|| site.try_agent(&["point", "create"]));
            std::thread::sleep(Duration::from_millis(2 + 4 * round));
            let agent = nix::unistd::Pid::from_raw(i32::try_from(agent)?);
            nix::sys::signal::kill(agent, Signal::SIGKILL)?;
            drop(asking.join());
            Ok(())
        });
        dying?;
        let file = mounted.path().join(format!("after-{round}"));
        let written = std::thread::spawn(move || fs::write(file, b"thawed"));
        vm_tests::wait_until("the file system to be writable", Duration::from_secs(5), || {
            Ok(written.is_finished().then_some(()))
        })?;
        // It is dead already; this takes note of it.
        site.agent.kill_9()?;
        site.agent.restart()?;
        site.wait_for_agent()?;
    }
    Ok(())
}

/// A guard of one file system, told that a freeze begins, and the freeze.
fn guarded(mounted: &Mounted, limit: &str) -> Result<(Child, ChildStdin)> {
    let mut guard = Command::new(env!("CARGO_BIN_EXE_pinnace"))
        .args(["freeze-guard", limit])
        .arg(mounted.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut told = guard.stdin.take().context("the guard's input")?;
    guard.stdout.as_mut().context("the guard's output")?.read_exact(&mut [0])?;
    told.write_all(b"f")?;
    let frozen = Command::new("fsfreeze").arg("--freeze").arg(mounted.path()).status()?;
    ensure!(frozen.success(), "fsfreeze: {frozen}");
    Ok((guard, told))
}

/// Writes a file; whether it is written can be asked.
fn write(mounted: &Mounted) -> JoinHandle<std::io::Result<()>> {
    let file = mounted.path().join("written");
    std::thread::spawn(move || fs::write(file, b"thawed"))
}

#[test]
fn the_guard_thaws_when_its_pipe_closes_and_when_time_is_up() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(ByteLen(64 << 20)))?;
    Filesystem::Ext4.make(&disk)?;
    let mounted = Mounted::mount(&rig, &disk, Filesystem::Ext4, "discard")?;
    let thawed = |written: &JoinHandle<_>| {
        vm_tests::wait_until("the file to be written", Duration::from_secs(5), || {
            Ok(written.is_finished().then_some(()))
        })
    };

    let (mut guard, told) = guarded(&mounted, "30000")?;
    let written = write(&mounted);
    std::thread::sleep(Duration::from_millis(300));
    let waited = !written.is_finished();
    drop(told);
    thawed(&written)?;
    guard.wait()?;
    ensure!(waited, "it was not frozen at all");

    let (mut guard, told) = guarded(&mounted, "600")?;
    let written = write(&mounted);
    std::thread::sleep(Duration::from_millis(200));
    let waited = !written.is_finished();
    thawed(&written)?;
    drop(told);
    guard.wait()?;
    ensure!(waited, "it was not frozen at all");
    Ok(())
}
