//! Points are kept and let go, as the policy says and as people say.

use std::time::Duration;

use anyhow::{Result, ensure};
use vm_tests::{Rig, wait_until};

use crate::site::{PATIENCE, Site, ended_with};
use crate::source::{Cut, NOW, Source, noise};

const HOUR: u64 = 3600;

fn aged(hours: u64) -> Cut {
    Cut { age: Duration::from_secs(hours * HOUR + 60), ..NOW }
}

fn ids(site: &Site) -> Result<Vec<String>> {
    Ok(site.points()?.iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn the_ladder_lets_old_points_go_and_what_is_kept_stays_readable() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "[retention]\nladder = \"all 2h\"\n")?;
    let mut source = Source::start(&site, 2)?;
    let mut cuts = Vec::new();
    for (round, hours) in [(1, 9), (2, 8), (3, 1), (4, 0)] {
        source.write(0, usize::from(round) << 20, &noise(64 << 10, round));
        let point = source.cut(aged(hours))?;
        cuts.push((point, source.disks[0].content.clone()));
    }
    let kept = [cuts[2].0.clone(), cuts[3].0.clone()];
    wait_until("old points to go", PATIENCE, || Ok((ids(&site)? == kept).then_some(())))?;
    for (point, content) in &cuts[2..] {
        let file = rig.fresh("image.raw");
        let name = format!("vda@{}", &point[..6]);
        site.cli(&["point", "export", &name, "--to", &file.to_string_lossy()])?;
        ensure!(&std::fs::read(&file)? == content, "{name} has changed");
    }
    let gone = site.try_cli(&["point", "show", &cuts[0].0])?;
    ended_with(&gone, 4, &["no point"])
}

#[test]
fn a_pinned_point_stays_until_it_is_unpinned() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "[retention]\nladder = \"all 3s\"\n")?;
    let mut source = Source::start(&site, 1)?;
    let pinned = source.cut(NOW)?;
    site.cli(&["point", "pin", &pinned])?;
    for round in 1..5 {
        source.write(0, usize::from(round) << 20, &noise(64 << 10, round));
        source.cut(NOW)?;
    }
    std::thread::sleep(Duration::from_secs(5));
    source.write(0, 0, &noise(4096, 9));
    let newest = source.cut(NOW)?;
    let left = [pinned.clone(), newest.clone()];
    wait_until("the others to go", PATIENCE, || Ok((ids(&site)? == left).then_some(())))?;
    ensure!(site.points()?[0]["pinned"] == true);
    site.cli(&["point", "unpin", &pinned])?;
    wait_until("it to go", PATIENCE, || Ok((ids(&site)? == [newest.clone()]).then_some(())))
}

#[test]
fn what_would_go_is_said_before_it_goes() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "[retention]\nladder = \"all 2h, 1h 24h\"\nquota = \"1 GiB\"\n")?;
    let mut source = Source::start(&site, 1)?;
    source.cut(NOW)?;
    let plan = site.json(&["point", "prune", "--dry-run"])?;
    ensure!(plan["ladder"] == "all 2h, 1h 24h" && plan["quota_bytes"] == 1 << 30, "{plan}");
    ensure!(plan["kept"] == 1 && plan["dropped"].as_array().is_some_and(Vec::is_empty), "{plan}");
    ended_with(&site.try_cli(&["point", "prune"])?, 2, &["--dry-run"])
}

#[test]
fn a_quota_is_kept_to_and_status_says_why_points_went() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "[retention]\nquota = \"1 MiB\"\n")?;
    let mut source = Source::start(&site, 1)?;
    let mut cuts = Vec::new();
    for round in 0..8_u8 {
        source.write(0, usize::from(round % 4) << 20, &noise(256 << 10, round));
        cuts.push(source.cut(NOW)?);
    }
    let left = ids(&site)?;
    ensure!(left.len() < 8 && left.last() == cuts.last(), "{left:?}");
    let history = site.json(&["target", "status"])?["history"].clone();
    ensure!(history["bytes"].as_u64() <= Some(1 << 20), "{history}");
    ensure!(history["quota_bytes"] == 1 << 20, "{history}");
    let table = site.cli(&["target", "status"])?;
    ensure!(table.contains("quota of 1 MiB") && table.contains("points went before"), "{table}");
    let log = site.log();
    ensure!(log.contains(&cuts[0]) && log.contains("dropped to make room"), "{log}");
    // What is left is whole.
    site.cli(&["point", "verify", "latest"])?;
    Ok(())
}

#[test]
fn what_is_wrong_with_retention_is_said_with_its_line() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "[retention]\nladder = \"all 2h\"\n")?;
    site.cli(&["config", "check", "target"])?;
    let text = std::fs::read_to_string(&site.config)?.replace("all 2h", "all of it");
    std::fs::write(&site.config, text)?;
    let wrong = site.try_cli(&["config", "check", "target"])?;
    ended_with(&wrong, 2, &["line 5", "all of it", "1h 24h"])
}
