//! What is at rest is verified in the background, and what is damaged is named before anybody needs
//! it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{Rig, Scraped, wait_until};

use crate::reading::flip_a_bit;
use crate::site::{PATIENCE, Site};
use crate::source::{NOW, Source, noise};

const SETTINGS: &str = "metrics = \"127.0.0.1:0\"\n[scrub]\nevery = \"1s\"\n";

#[test]
fn damage_at_rest_is_found_without_anybody_asking() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut site = Site::start(&rig, SETTINGS)?;
    let mut source = Source::start(&site, 2)?;
    source.cut(NOW)?;
    source.write(0, 1 << 20, &noise(256 << 10, 1));
    let second = source.cut(NOW)?;
    drop(source);
    wait_until("both disks to be verified", PATIENCE, || {
        let read = |disk| Ok::<_, anyhow::Error>(scrub(&site, disk)?["read_bytes"].as_u64());
        Ok((read("vda")? > Some(256 << 10) && read("vdb")?.is_some()).then_some(()))
    })?;
    ensure!(scrub(&site, "vda")?["damage"] == Value::Array(Vec::new()), "{}", site.log());
    ensure!(!site.cli(&["target", "status"])?.contains("DAMAGED"));

    flip_a_bit(&site.store)?;
    let found = wait_until("the damage to be found", PATIENCE, || {
        let scrub = scrub(&site, "vda")?;
        Ok((scrub["damage"][0].is_object() && scrub["running"] == false).then_some(scrub))
    })?;
    ensure!(found["damage"][0]["points"] == serde_json::json!([second]), "{found}");
    ensure!(scrub(&site, "vdb")?["damage"] == Value::Array(Vec::new()), "the other disk is sound");
    let table = site.cli(&["target", "status"])?;
    ensure!(table.contains("vda: DAMAGED at rest") && table.contains(&second), "{table}");
    let scraped = Scraped::of(&site.target)?;
    for (disk, parts) in [("vda", 1.0), ("vdb", 0.0)] {
        let value = scraped.value("pinnace_scrub_damaged_parts", &[("disk", disk)])?;
        ensure!(value == parts, "{scraped:?}");
    }
    ensure!(scraped.value("pinnace_recovery_points", &[("consistency", "crash")])? == 2.0);

    // A target that ends knows it when it is back.
    site.target.kill_9()?;
    site.target.restart()?;
    wait_until("the target", PATIENCE, || Ok(site.cli(&["target", "status"]).ok()))?;
    let known = scrub(&site, "vda")?;
    ensure!(known["damage"][0]["points"] == serde_json::json!([second]), "{known}");
    Ok(())
}

/// What is known of a disk.
fn scrub(site: &Site, disk: &str) -> Result<Value> {
    let status = site.json(&["target", "status"])?;
    let disks = status["disks"].as_array().context("disks are listed")?;
    let found = disks.iter().find(|listed| listed["name"] == disk);
    Ok(found.with_context(|| format!("no {disk} in {status}"))?["scrub"].clone())
}
