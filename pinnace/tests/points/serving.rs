//! Points are served over NBD while replication goes on.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use vm_tests::{Daemon, Rig, wait_until};

use crate::site::{PATIENCE, Site, ended_with, other};
use crate::source::{NOW, Source, noise};

/// A command that serves, and what it printed first.
struct Serving {
    command: Daemon,
    uri: String,
    socket: PathBuf,
}

fn serve(site: &Site, name: &str, more: &[&str]) -> Result<Serving> {
    let socket = site.rig.fresh("nbd.sock");
    let arguments = [&["point", "serve", name, "--socket", text(&socket)], more].concat();
    let command = site.start_cli("serve", &arguments)?;
    let uri = wait_until("a URI", PATIENCE, || {
        let log = command.log()?;
        ensure!(!log.contains("pinnace: "), "{log}");
        Ok(log.lines().find(|line| line.starts_with("nbd")).map(str::to_owned))
    })?;
    Ok(Serving { command, uri, socket })
}

fn in_use(site: &Site, point: &str) -> Result<bool> {
    Ok(site.json(&["point", "show", point])?["in_use"] == true)
}

#[test]
fn a_point_stays_what_it_is_while_replication_goes_on() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    // Nothing is kept that is older than a second, so that only the reader holds the point.
    let site = Site::start(&rig, "[retention]\nladder = \"all 1s\"\n")?;
    let mut source = Source::start(&site, 1)?;
    source.write(0, 1 << 20, &noise(64 << 10, 1));
    let held = source.cut(NOW)?;
    let image = rig.fresh("expected.raw");
    std::fs::write(&image, &source.disks[0].content)?;
    let mut serving = serve(&site, "vda@latest", &[])?;
    for round in 0..8_u8 {
        source.write(0, usize::from(round) << 19, &noise(256 << 10, 50 + round));
        source.cut(NOW)?;
    }
    std::thread::sleep(std::time::Duration::from_secs(4));
    ensure!(in_use(&site, &held)?, "{}", site.log());
    other("qemu-img", &["compare", "-f", "raw", "-F", "raw", &serving.uri, text(&image)])?;
    // The policy would let it go, and that is said.
    let plan = site.json(&["point", "prune", "--dry-run"])?;
    ensure!(plan["dropped"][0]["point"]["id"] == held.as_str(), "{plan}");
    ensure!(site.cli(&["point", "prune", "--dry-run"])?.contains(&held[..8]));
    let status = serving.command.stop(PATIENCE)?;
    ensure!(status.success(), "{status}: {}", serving.command.log()?);
    ensure!(!serving.socket.exists(), "the socket is left behind");
    // With the reader the point goes.
    wait_until("the point to go", PATIENCE, || {
        let there = site.points()?.iter().any(|point| point["id"] == held.as_str());
        Ok((!there).then_some(()))
    })
}

#[test]
fn the_lease_ends_with_the_reader_however_it_ends() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut site = Site::start(&rig, "")?;
    let mut source = Source::start(&site, 1)?;
    let point = source.cut(NOW)?;
    let mut serving = serve(&site, "vda@latest", &[])?;
    ensure!(in_use(&site, &point)?);
    serving.command.kill_9()?;
    wait_until("the lease to end", PATIENCE, || Ok((!in_use(&site, &point)?).then_some(())))?;
    // What a killed one left behind is replaced; and one that outlives the target ends.
    let arguments = ["point", "serve", "vda@latest", "--socket", text(&serving.socket)];
    let mut next = site.start_cli("serve", &arguments)?;
    wait_until("the next one", PATIENCE, || Ok(next.log()?.contains("nbd+unix").then_some(())))?;
    site.target.kill_9()?;
    let status = wait_until("its end", PATIENCE, || next.ended())?;
    ensure!(status.code() == Some(10), "{status}: {}", next.log()?);
    ensure!(!serving.socket.exists());
    Ok(())
}

#[test]
fn what_is_written_to_a_served_point_is_thrown_away() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "")?;
    let mut source = Source::start(&site, 1)?;
    let point = source.cut(NOW)?;
    let image = rig.fresh("expected.raw");
    std::fs::write(&image, &source.disks[0].content)?;
    let mut writable = serve(&site, "vda@latest", &["--writable"])?;
    let io = ["-f", "raw", "-c", "write -P 0x77 0 1M", "-c", "read -P 0x77 0 1M", &writable.uri];
    let said = other("qemu-io", &io)?;
    ensure!(!said.contains("failed"), "{said}");
    writable.command.stop(PATIENCE)?;
    let mut serving = serve(&site, &format!("vda@{}", &point[..6]), &[])?;
    other("qemu-img", &["compare", "-f", "raw", "-F", "raw", &serving.uri, text(&image)])?;
    let info = other("nbdinfo", &["--json", &serving.uri])?;
    ensure!(info.contains("\"is_read_only\": true"), "{info}");
    serving.command.stop(PATIENCE)?;
    Ok(())
}

#[test]
fn loopback_is_served_and_the_network_is_not() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "")?;
    let mut source = Source::start(&site, 1)?;
    source.cut(NOW)?;
    let open = site.try_cli(&["point", "serve", "vda@latest", "--listen", "0.0.0.0:0"])?;
    ended_with(&open, 6, &["127.0.0.1"])?;
    let both = site.try_cli(&["point", "serve", "vda@latest"])?;
    ended_with(&both, 2, &["--socket"])?;
    let mut command =
        site.start_cli("serve", &["point", "serve", "vda@latest", "--listen", "127.0.0.1:0"])?;
    let uri = wait_until("a URI", PATIENCE, || {
        let log = command.log()?;
        Ok(log.lines().find(|line| line.starts_with("nbd://")).map(str::to_owned))
    })?;
    other("nbdinfo", &[&uri])?;
    command.stop(PATIENCE)?;
    Ok(())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
