//! Points are listed, shown and named.

use std::time::Duration;

use anyhow::{Result, ensure};
use blocks::{Consistency, RetractReason};
use vm_tests::{Rig, wait_until};

use crate::site::{PATIENCE, Site, ended_with};
use crate::source::{Cut, NOW, Source, noise};

#[test]
fn what_a_source_says_of_its_points_is_listed() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "")?;
    ensure!(site.points()?.is_empty());
    let mut source = Source::start(&site, 2)?;
    let first = source.cut(Cut { age: Duration::from_secs(90), ..NOW })?;
    source.write(0, 1 << 20, &noise(64 << 10, 1));
    let application = Cut { age: Duration::from_secs(60), consistency: Consistency::Application };
    let second = source.cut(application)?;
    source.write(1, 2 << 20, &noise(128 << 10, 2));
    let third = source.cut_of(NOW, 0..1)?;

    let points = site.points()?;
    let ids: Vec<_> = points.iter().map(|point| point["id"].as_str().unwrap()).collect();
    ensure!(ids == [&first, &second, &third], "{ids:?}");
    let point = &points[1];
    for (field, value) in [
        ("kind", "application".into()),
        ("method", "verified".into()),
        ("state", "provisional".into()),
        ("pinned", false.into()),
        ("attempts", 2.into()),
        ("disk_count", 2.into()),
        ("window_seconds", serde_json::json!(0.00015)),
    ] {
        ensure!(point[field] == value, "{field}: {point}");
    }
    ensure!(point["disks"][0]["name"] == "vda" && point["disks"][1]["name"] == "vdb", "{point}");
    ensure!(point["delta_bytes"].as_u64() > Some(64 << 10), "{point}");
    ensure!(points[2]["state"] == "incomplete", "{}", points[2]);

    let table = site.cli(&["point", "list"])?;
    let rows: Vec<_> = table.lines().collect();
    ensure!(
        rows.len() == 4 && rows[0].starts_with("POINT") && rows[0].ends_with("SIZE"),
        "{table}"
    );
    ensure!(rows[2].starts_with(&second[..8]) && rows[2].contains("150 us"), "{table}");
    ensure!(rows[3].contains("1/2") && rows[3].contains("incomplete"), "{table}");
    let shown = site.cli(&["point", "show", "latest"])?;
    ensure!(shown.contains(&second) && shown.contains("application-consistent"), "{shown}");

    let status = site.json(&["target", "status"])?;
    ensure!(status["history"]["points"] == 3, "{status}");
    ensure!(status["history"]["ladder"] == "all 2h, 1h 24h, 1d 15d", "{status}");
    ensure!(status["history"]["note"].is_null(), "{status}");
    Ok(())
}

#[test]
fn what_a_source_takes_back_is_not_relied_on() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "")?;
    let mut source = Source::start(&site, 2)?;
    let good = source.cut(Cut { age: Duration::from_secs(60), ..NOW })?;
    source.confirm()?;
    let state = |index: usize, state: &str| {
        wait_until(state, PATIENCE, || Ok((site.points()?[index]["state"] == state).then_some(())))
    };
    state(0, "confirmed")?;
    source.write(0, 0, &noise(4096, 1));
    let bad = source.cut(NOW)?;
    // On one of its disks, which takes the whole point.
    source.retract(1, RetractReason::MissedIssue)?;
    state(1, "retracted")?;
    let table = site.cli(&["point", "list"])?;
    ensure!(table.contains("retracted: a write may have been issued unseen"), "{table}");
    ensure!(site.json(&["point", "show", "latest"])?["id"] == good.as_str());
    let insisted = ["point", "verify", &bad];
    ended_with(&site.try_cli(&insisted)?, 5, &["unseen", "--force"])?;
    site.cli(&[&insisted[..], &["--force"]].concat())?;
    Ok(())
}

#[test]
fn a_point_is_named_by_word_time_and_identity() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "")?;
    let none = site.try_cli(&["point", "show", "latest"])?;
    ended_with(&none, 4, &["there is no point latest"])?;
    let mut source = Source::start(&site, 1)?;
    let application = Cut { age: Duration::from_secs(300), consistency: Consistency::Application };
    let first = source.cut(application)?;
    let second = source.cut(NOW)?;
    let id = |name: &str| anyhow::Ok(site.json(&["point", "show", name])?["id"].clone());
    ensure!(id("latest")? == second.as_str() && id("latest-app")? == first.as_str());
    ensure!(id(&first[..6])? == first.as_str());
    let time = site.points()?[0]["time"].as_str().unwrap().to_owned();
    ensure!(id(&time)? == first.as_str(), "at its very time");
    ended_with(&site.try_cli(&["point", "show", "1999-12-31T23:59:59Z"])?, 4, &["no point"])?;
    ended_with(&site.try_cli(&["point", "show", "yesterday"])?, 2, &["latest-app"])?;
    let elsewhere = site.try_cli(&["point", "show", "latest", "--machine", "ffff"])?;
    ended_with(&elsewhere, 4, &["no machine"])
}
