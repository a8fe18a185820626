//! Verified cuts, without a freeze.

use std::time::Duration;

use anyhow::{Result, ensure};
use vm_tests::{PointLoadSpec, Rate, Rig};

use crate::judge::Protected;

const EVERY_SECOND: &str = "point_interval = \"1s\"";

#[test]
fn points_under_full_load_are_one_instant() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut protected = Protected::start(&rig, 1, EVERY_SECOND)?;
    let load = protected.load(PointLoadSpec::new(Rate::Full))?;
    let status = protected.wait_for_points(5)?;
    let written = load.stop()?;
    ensure!(written.writes > 10_000, "hardly any load: {written:?}");
    let window = status["points"]["window"]["p50"].as_f64().unwrap_or(f64::MAX);
    ensure!(window < 0.1, "the median window took {window} s");
    let points = protected.points()?;
    protected.judge(&points)?.ensure_valid()
}

#[test]
fn disks_of_a_machine_share_the_instant() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut protected = Protected::start(&rig, 2, EVERY_SECOND)?;
    let load = protected.load(PointLoadSpec::new(Rate::Full))?;
    protected.wait_for_points(4)?;
    load.stop()?;
    let points = protected.points()?;
    ensure!(points.iter().all(|point| point.record.disks == 2));
    protected.judge(&points)?.ensure_valid()
}

#[test]
fn a_point_is_made_on_request_and_confirmed_at_rest() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut protected = Protected::start(&rig, 1, "point_interval = \"1h\"\nobjective = \"2h\"")?;
    let load = protected.load(PointLoadSpec::new(Rate::Full))?;
    std::thread::sleep(Duration::from_millis(500));
    let made: serde_json::Value =
        serde_json::from_str(&protected.site.agent(&["point", "create", "--json"])?)?;
    load.stop()?;
    protected.wait_until_confirmed()?;
    let points = protected.points()?;
    let found = points.iter().find(|point| made["id"] == point.record.id.to_string());
    ensure!(found.is_some(), "{made} is not in the store");
    protected.judge(&points)?.ensure_valid()
}
