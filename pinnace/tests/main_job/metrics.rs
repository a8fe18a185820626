//! What Prometheus scrapes is what `status` says.

use anyhow::{Context, Result, ensure};
use vm_tests::{Rig, Scraped};

use crate::subject::{PATIENCE, number, site_with, use_disk, zram};

#[test]
fn metrics_say_what_status_says() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 70)?;
    let site = site_with(&rig, "metrics = \"127.0.0.1:0\"\n")?;
    let writers = use_disk(&rig, &disk, 70)?;
    site.protect(&disk, PATIENCE)?;
    site.wait_for_epochs(disk.name(), 3, PATIENCE)?;
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    site.agent(&["point", "create"])?;

    let scraped = Scraped::of(&site.agent)?;
    let status = site.disk(disk.name())?;
    let of_disk = [("disk", disk.name())];
    let same = |metric: &str, pointer: &str| {
        let (scraped, said) = (scraped.value(metric, &of_disk)?, number(&status, pointer));
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let said = said as f64;
        ensure!(scraped == said && said > 0.0, "{metric} is {scraped}, {pointer} is {said}");
        Ok(())
    };
    same("pinnace_disk_size_bytes", "/size_bytes")?;
    same("pinnace_disk_tracked_bytes_total", "/tracking/bytes")?;
    same("pinnace_disk_tracked_writes_total", "/tracking/writes")?;
    let state = [of_disk[0], ("state", "protected")];
    ensure!(scraped.value("pinnace_disk_state", &state)? == 1.0, "{scraped:?}");
    let raw = [of_disk[0], ("kind", "raw")];
    let raw = scraped.value("pinnace_disk_sent_bytes_total", &raw)?;
    ensure!(raw >= number(&status, "/size_bytes") as f64, "{raw} bytes of a whole disk were read");

    // One point was made, and each histogram that a point or an epoch goes into knows of it.
    for (metric, least) in [
        ("pinnace_recovery_points_made_total", 1.0),
        ("pinnace_cut_window_seconds_count", 1.0),
        ("pinnace_cut_attempts_count", 1.0),
        ("pinnace_freeze_seconds_count", 0.0),
        ("pinnace_ack_latency_seconds_count", 4.0),
        ("pinnace_cycle_duration_seconds_count", 4.0),
    ] {
        let value = scraped.value(metric, &[])?;
        ensure!(value >= least, "{metric} is {value}");
    }
    let every = scraped.value("pinnace_cut_window_seconds_bucket", &[("le", "+Inf")])?;
    ensure!(every == scraped.value("pinnace_cut_window_seconds_count", &[])?);
    let slowest = scraped.value("pinnace_ack_latency_seconds_bucket", &[("le", "3600")])?;
    ensure!(slowest == scraped.value("pinnace_ack_latency_seconds_count", &[])?);
    let cut = scraped.value("pinnace_recovery_point_latest_timestamp_seconds", &[])?;
    let said = status["last_point"]["cut"].as_str().context("a point was made")?;
    let said: jiff::Timestamp = said.parse()?;
    ensure!(cut == said.as_second() as f64, "{cut} is not {said}");
    let good_until = scraped.value("pinnace_certificate_expiry_timestamp_seconds", &[])?;
    ensure!(good_until > cut, "the certificate is good until {good_until}");
    Ok(())
}
