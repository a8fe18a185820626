//! The story, step by step.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use vm_tests::{Filesystem, Rig, Site, SiteSpec, number};

use crate::Patience;
use crate::disk::DemoDisk;
use crate::narration::{Narration, rate};
use crate::points;

const LOOP_LEN: ByteLen = ByteLen(1 << 30);
const ZRAM_LEN: ByteLen = ByteLen(512 << 20);
const SETTINGS: &str = "interval = \"1s\"\nsegment = \"64 MiB\"\n";

/// Tells the whole story; an error if any part of it is not true.
pub(crate) fn tell(patience: &Patience) -> Result<()> {
    let mut narration = Narration::begin();
    let rig = Rig::start()?.context("the demo can't do without devices")?;

    narration.step("Two disks of different class, a file system in use on each");
    let mut disks = [
        DemoDisk::on_loop(&rig, LOOP_LEN, Filesystem::Ext4)?,
        DemoDisk::on_zram(&rig, ZRAM_LEN, Filesystem::Xfs)?,
    ];
    for (seed, disk) in (1..).zip(&mut disks) {
        disk.put_to_use(&rig, seed)?;
        let filesystem = disk.filesystem;
        narration.say(&format!(
            "{}: {filesystem:?}, files created, overwritten, synced, deleted, trimmed as they go",
            disk.name()
        ));
    }

    narration.step("A target and an agent: two processes, mutual TLS, a one-time token");
    let mut site =
        Site::start(&rig, &SiteSpec { agent_settings: SETTINGS.into(), ..SiteSpec::default() })?;
    patience.check()?;

    initial_replication(patience, &mut narration, &site, &disks)?;
    delta_cycles(patience, &mut narration, &site, &disks)?;
    agent_killed(patience, &mut narration, &mut site, &disks)?;
    path_cut(patience, &mut narration, &site, &disks)?;
    let made = points::made_under_load(patience, &mut narration, &site, &disks)?;

    narration.step("The applications stop, the file systems are unmounted, the rest is drained");
    let mut durable = Vec::new();
    for disk in &mut disks {
        let (report, files) = disk.retire()?;
        narration.say(&format!(
            "{}: {} files written, {} overwritten, {} deleted in all",
            disk.name(),
            report.written,
            report.overwritten,
            report.deleted
        ));
        durable.push(files);
    }
    for disk in &disks {
        patience.check()?;
        site.drain(&disk.name(), Duration::from_secs(60))?;
    }
    totals(&narration, &site, &disks)?;
    points::earlier(patience, &mut narration, (&site, &rig), &disks, &made)?;
    let proven = (disks.as_slice(), durable.as_slice());
    points::newest_is_the_disk(patience, &mut narration, (&site, &rig), proven)?;

    narration.step("Protection ends; disks, mounts, pins and processes go");
    for disk in &disks {
        site.agent(&["unprotect", &disk.name(), "--yes"])?;
    }
    let seconds = narration.seconds();
    drop((site, disks, rig));
    println!("\nIdentical. The main job holds, in {seconds:.0} s.");
    Ok(())
}

fn initial_replication(
    patience: &Patience,
    narration: &mut Narration,
    site: &Site,
    disks: &[DemoDisk],
) -> Result<()> {
    narration.step("Both disks are protected; initial replication under load");
    let started = Instant::now();
    for disk in disks {
        let name = disk.name();
        narration.say(site.agent(&["protect", &format!("/dev/{name}")])?.trim());
    }
    for disk in disks {
        let mut shown = 0;
        patience
            .wait("the initial replication", 90, || {
                let status = disk.status(site)?;
                let percent = number(&status, "/state/initial_replication/percent");
                if percent >= shown + 20 {
                    shown = percent;
                    narration.say(&format!("{}: {percent} %", disk.name()));
                }
                Ok((status["state"] == "protected").then_some(()))
            })
            .with_context(|| site.logs())?;
    }
    let seconds = started.elapsed().as_secs_f64();
    for disk in disks {
        let status = disk.status(site)?;
        let (raw, zero) = (number(&status, "/sent/raw"), number(&status, "/sent/zero"));
        let wire = number(&status, "/sent/wire");
        narration.say(&format!(
            "{}: {} read, {} of it zeroes, {} sent",
            disk.name(),
            ByteLen(raw),
            ByteLen(zero),
            ByteLen(wire)
        ));
    }
    let len: u64 = disks.iter().map(|disk| disk.device().sectors() * blocks::SECTOR_SIZE).sum();
    narration.say(&format!("{} of disk in {seconds:.1} s: {}", ByteLen(len), rate(len, seconds)));
    Ok(())
}

fn delta_cycles(
    patience: &Patience,
    narration: &mut Narration,
    site: &Site,
    disks: &[DemoDisk],
) -> Result<()> {
    narration.step("Delta cycles: only what changed is sent");
    let mut before = Vec::new();
    for disk in disks {
        before.push(disk.status(site)?);
    }
    patience.sleep(8.0)?;
    for (disk, before) in disks.iter().zip(&before) {
        let name = disk.name();
        let after = patience
            .wait("a delta cycle", 30, || {
                let after = disk.status(site)?;
                let cycles = number(&after, "/sent/epochs") - number(before, "/sent/epochs");
                Ok((cycles >= 3).then_some(after))
            })
            .with_context(|| site.logs())?;
        let gained = |path: &str| number(&after, path) - number(before, path);
        let (raw, wire) = (gained("/sent/raw"), gained("/sent/wire"));
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let ratio = raw as f64 / wire.max(1) as f64;
        narration.say(&format!(
            "{name}: {} cycles, {} changed, {} sent ({ratio:.1} to 1), lag {:.1} s, {:.0} ms from seal to durable",
            gained("/sent/epochs"),
            ByteLen(raw),
            ByteLen(wire),
            after["rpo_seconds"].as_f64().unwrap_or_default(),
            after["ack_latency"]["p50"].as_f64().unwrap_or_default() * 1e3,
        ));
    }
    Ok(())
}

fn agent_killed(
    patience: &Patience,
    narration: &mut Narration,
    site: &mut Site,
    disks: &[DemoDisk],
) -> Result<()> {
    narration.step("kill -9 of the agent in the middle of a cycle, while writes go on");
    patience.wait("a cycle under way", 30, || {
        let status = disks[0].status(site)?;
        Ok((number(&status, "/in_flight_bytes") > 0).then_some(()))
    })?;
    site.agent.kill_9()?;
    patience.sleep(3.0)?;
    site.agent.restart()?;
    for disk in disks {
        let name = disk.name();
        let status = patience
            .wait("the agent to carry on", 60, || {
                // Until the socket is back, asking fails.
                let Ok(status) = disk.status(site) else { return Ok(None) };
                let carried_on =
                    number(&status, "/sent/epochs") >= 1 && status["state"] == "protected";
                Ok(carried_on.then_some(status))
            })
            .with_context(|| site.logs())?;
        let sent = number(&status, "/sent/raw");
        let len = disk.device().sectors() * blocks::SECTOR_SIZE;
        ensure!(sent < len / 2, "{name}: {} were read again after the restart", ByteLen(sent));
        ensure!(number(&status, "/tracking/gaps") == 0, "{name}: the restart opened a gap");
        narration.say(&format!("{name}: no gap; {} sent since, no full copy", ByteLen(sent)));
    }
    Ok(())
}

fn path_cut(
    patience: &Patience,
    narration: &mut Narration,
    site: &Site,
    disks: &[DemoDisk],
) -> Result<()> {
    narration.step("The path is cut: every datagram is lost, while writes go on");
    site.relay.cut();
    patience.wait("the agent to notice", 40, || {
        Ok((site.status()?["link"]["state"] == "connecting").then_some(()))
    })?;
    let behind = disks[0].status(site)?;
    narration.say(&format!(
        "noticed; {} is {:.1} s behind, {} dirty",
        disks[0].name(),
        behind["rpo_seconds"].as_f64().unwrap_or_default(),
        ByteLen(number(&behind, "/dirty_bytes")),
    ));
    site.relay.mend();
    let mended = Instant::now();
    for disk in disks {
        let before = number(&disk.status(site)?, "/epoch");
        patience
            .wait("the session to resume", 60, || {
                let status = disk.status(site)?;
                let resumed = number(&status, "/epoch") > before && status["state"] == "protected";
                Ok(resumed.then_some(()))
            })
            .with_context(|| site.logs())?;
    }
    let seconds = mended.elapsed().as_secs_f64();
    narration.say(&format!("mended; resumed from the last durable epoch within {seconds:.1} s"));
    Ok(())
}

fn totals(narration: &Narration, site: &Site, disks: &[DemoDisk]) -> Result<()> {
    for disk in disks {
        let status = disk.status(site)?;
        narration.say(&format!(
            "{}: {} writes of {} tracked since the restart, {} sent",
            disk.name(),
            number(&status, "/tracking/writes"),
            ByteLen(number(&status, "/tracking/bytes")),
            ByteLen(number(&status, "/sent/wire")),
        ));
    }
    Ok(())
}
