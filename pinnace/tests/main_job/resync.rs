//! Comparisons: when they begin, what they send, and that they go on where they were.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{BlockDevice, Rig, Site, SiteSpec, Target, fill, wait_until};

use crate::subject::{PATIENCE, number, site, site_with, use_disk, zram};

/// No comparison begins unless somebody asks.
const ASKED_ONLY: &str = "[resync]\nwindow = \"never\"\n";

/// A site on which no delta is due and no comparison begins by itself, and a disk it protects.
fn at_rest(rig: &Rig, disk: &BlockDevice, settings: &str) -> Result<Site> {
    let settings = format!("interval = \"1h\"\nsegment = \"16 MiB\"\n{settings}\n{ASKED_ONLY}");
    let spec = SiteSpec { agent_settings: settings, ..SiteSpec::default() };
    let site = Site::start_program(Path::new(env!("CARGO_BIN_EXE_pinnace")), rig, &spec)?;
    site.protect(disk, PATIENCE)?;
    // The first delta, of nothing, comes at once.
    std::thread::sleep(Duration::from_millis(500));
    Ok(site)
}

/// Overwrites leaves at even distances, past the page cache's memory of them.
#[expect(clippy::cast_possible_truncation, reason = "bytes of a pattern")]
fn change(disk: &BlockDevice, leaves: u64) -> Result<()> {
    let file = File::options().write(true).open(disk.path())?;
    for number in 0..leaves {
        let content: Vec<u8> = (0..4096u64).map(|at| (at * 31 + number * 7) as u8 | 1).collect();
        file.write_all_at(&content, number * (1 << 20) + (number % 16) * 4096)?;
    }
    Ok(file.sync_all()?)
}

fn reason(status: &Value) -> &str {
    status.pointer("/resync/reason").and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn a_comparison_waits_for_its_window_or_for_being_asked_and_sends_leaves() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 60)?;
    let site = at_rest(&rig, &disk, "")?;
    change(&disk, 40)?;
    let words = site.agent(&["resync", disk.name()])?;
    ensure!(words.contains("--now"), "{words}");
    let waiting = site.wait_for_state(disk.name(), "resync_required", PATIENCE)?;
    ensure!(reason(&waiting) == "requested", "{waiting}");
    ensure!(waiting["resync"]["since"].is_string() && waiting["resync"]["begun"].is_null());
    let shown = waiting["reason"].as_str().unwrap_or_default();
    ensure!(shown.contains("--now") && shown.contains("asked for"), "{shown}");

    // There can be no point meanwhile, and whoever asks for one is told why.
    let refused = site.try_agent(&["point", "create"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(5), "{said}");
    ensure!(said.contains(disk.name()) && said.contains("asked for"), "{said}");

    let estimate = site.agent(&["resync", disk.name(), "--estimate", "--json"])?;
    let estimate: Value = serde_json::from_str(&estimate)?;
    let (size, most) = (number(&waiting, "/size_bytes"), number(&estimate, "/send_bytes_max"));
    ensure!(number(&estimate, "/read_bytes") == size, "{estimate}");
    ensure!(number(&estimate, "/hash_bytes") == size / 2048, "{estimate}");
    // 512 blocks of 1536 were looked at; 40 differ, by a leaf each.
    ensure!((40 * 4096 / 4..40 * 4096 * 4).contains(&most), "{estimate}");

    site.agent(&["resync", disk.name(), "--now"])?;
    let after = site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    ensure!(after["resync"].is_null() && after["reason"].is_null(), "{after}");
    let sent = number(&after, "/sent/wire") - number(&waiting, "/sent/wire");
    ensure!(sent < 40 * 4096 + 40 * 512, "{sent} bytes were sent for 40 leaves");
    site.compare(disk.name())
}

#[test]
fn so_much_dirty_is_compared_in_its_time() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 61)?;
    let site = site_with(&rig, ASKED_ONLY)?;
    site.protect(&disk, PATIENCE)?;
    // No delta carries a part of it off meanwhile.
    site.agent(&["pause", disk.name()])?;
    // Some 63 of a hundred chunks, since its writes overlap.
    fill(&rig, &Target::whole(0, &disk), 62)?;
    site.agent(&["resume", disk.name()])?;
    let waiting = site.wait_for_state(disk.name(), "resync_required", PATIENCE)?;
    ensure!(reason(&waiting) == "dirty-threshold", "{waiting}");
    site.agent(&["resync", disk.name(), "--now"])?;
    site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    site.prove(&disk, PATIENCE)
}

#[test]
fn an_agent_killed_in_a_comparison_goes_on_where_it_was() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 63)?;
    // A segment takes half a second.
    let mut site = at_rest(&rig, &disk, "bandwidth = \"32 MiB\"")?;
    change(&disk, 90)?;
    site.agent(&["resync", disk.name(), "--now"])?;
    let begun = wait_until("half of the comparison", PATIENCE, || {
        let status = site.disk(disk.name())?;
        let percent = number(&status, "/state/resynchronising/percent");
        Ok((percent >= 50).then_some(status))
    })
    .with_context(|| site.logs())?;
    site.agent.kill_9()?;
    site.agent.restart()?;
    site.wait_for_agent()?;
    // The window is never open: it goes on because it had begun.
    let after = site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    let (again, size) = (number(&after, "/sent/raw"), number(&after, "/size_bytes"));
    ensure!(again < size * 3 / 4, "{again} bytes of {size} were compared again after {begun}");
    site.compare(disk.name())
}

/// Runs `pinnace verify`; its exit code and what it said.
fn verify(site: &Site, disk: &BlockDevice) -> Result<(Option<i32>, String)> {
    let output = site.try_agent(&["verify", disk.name(), "--rate", "1 GiB"])?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn a_verification_finds_what_the_replica_lost_and_nothing_else() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 64)?;
    let site = site(&rig)?;
    site.protect(&disk, PATIENCE)?;
    // While it is written to without pause: no write in between is taken for a difference.
    let writers = use_disk(&rig, &disk, 64)?;
    let (code, said) = verify(&site, &disk)?;
    ensure!(code == Some(0), "{said}\n{}", site.logs());
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;

    // Two leaves of the replica, behind everybody's back.
    let replica = File::options().read(true).write(true).open(site.replica(disk.name())?)?;
    for at in [40 << 20, (50 << 20) + 4096] {
        let mut byte = [0];
        replica.read_exact_at(&mut byte, at)?;
        replica.write_all_at(&[!byte[0]], at)?;
    }
    let (code, said) = verify(&site, &disk)?;
    ensure!(code == Some(20), "{said}\n{}", site.logs());
    let offsets = [40u64 << 20, (50 << 20) + 4096].map(|at| format!("{at}+4096"));
    ensure!(offsets.iter().all(|offset| said.contains(offset)), "{said}");
    ensure!(said.contains("medium"), "{said}");
    let status = site.disk(disk.name())?;
    ensure!(status["state"] == "critical", "{status}");
    ensure!(number(&status, "/difference/bytes") == 2 * 4096, "{status}");

    site.agent(&["resync", disk.name(), "--now"])?;
    let after = site.wait_for_state(disk.name(), "protected", PATIENCE)?;
    ensure!(after["difference"].is_null(), "{after}");
    site.compare(disk.name())?;
    let (code, said) = verify(&site, &disk)?;
    ensure!(code == Some(0), "{said}\n{}", site.logs());
    Ok(())
}
