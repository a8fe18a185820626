//! Recovery points: made while the applications work, listed, verified, taken out and looked at.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use serde_json::Value;
use vm_tests::{Durable, Rig, Site, first_difference};

use crate::Patience;
use crate::disk::{Access, DemoDisk, with_image_mounted};
use crate::narration::Narration;

const POINTS: usize = 3;
/// Between two points, in which the applications change some hundred files.
const PAUSE_SECONDS: f64 = 2.0;

/// A point, and what it must hold.
pub(crate) struct Made {
    id: String,
    /// For each disk the files that no one touched from before the point until it was there.
    files: Vec<Durable>,
}

/// Makes points of all disks while they are written, and returns them.
pub(crate) fn made_under_load(
    patience: &Patience,
    narration: &mut Narration,
    site: &Site,
    disks: &[DemoDisk],
) -> Result<Vec<Made>> {
    narration.step("Recovery points: one instant of both disks each, made under load");
    let mut made = Vec::new();
    for _ in 0..POINTS {
        patience.sleep(PAUSE_SECONDS)?;
        let durable = || disks.iter().map(DemoDisk::durable).collect::<Result<Vec<_>>>();
        let before = durable()?;
        let point = create(site)?;
        let files = before.into_iter().zip(durable()?);
        let files = files.map(|(before, after)| untouched(before, &after)).collect();
        let number = |field: &str| point[field].as_f64().unwrap_or_default();
        narration.say(&format!(
            "{}: {}, window {:.1} ms, frozen for {:.1} ms",
            short(&id_of(&point)?),
            point["method"].as_str().unwrap_or_default(),
            number("window_seconds") * 1e3,
            number("freeze_seconds") * 1e3,
        ));
        made.push(Made { id: id_of(&point)?, files });
    }
    Ok(made)
}

/// The earliest point, taken out of the store after all that came later.
pub(crate) fn earlier(
    patience: &Patience,
    narration: &mut Narration,
    (site, rig): (&Site, &Rig),
    disks: &[DemoDisk],
    made: &[Made],
) -> Result<()> {
    narration.step("An earlier point: listed, verified, written to a file, mounted");
    let list = site.target(&["point", "list"])?;
    list.lines().for_each(|line| narration.say(line));
    // A kernel that hides completions from programs has points retracted, which then are gone.
    let there = |point: &&Made| list.contains(short(&point.id));
    let point =
        made.iter().find(there).with_context(|| format!("no point is left\n{}", site.logs()))?;
    let verified = site.target(&["point", "verify", &point.id]);
    narration.say(verified.with_context(|| site.logs())?.trim());
    for (disk, files) in disks.iter().zip(&point.files) {
        patience.check()?;
        let image = export(site, rig, disk, &point.id)?;
        let now = first_difference(disk.device().path(), &image)?;
        ensure!(now.is_some(), "{} has not changed since the point", disk.name());
        let found = with_image_mounted(rig, &image, Access::InUse, |root| files.check(root));
        found.with_context(|| format!("{} at point {}", disk.name(), point.id))?;
        narration.say(&format!(
            "{}@{}: unlike the disk of now; mounted, its log replayed, all {} files of then whole",
            disk.name(),
            short(&point.id),
            files.0.len()
        ));
        std::fs::remove_file(image)?;
    }
    Ok(())
}

/// Each disk, no longer in use, against the newest point, byte for byte.
pub(crate) fn newest_is_the_disk(
    patience: &Patience,
    narration: &mut Narration,
    (site, rig): (&Site, &Rig),
    (disks, durable): (&[DemoDisk], &[Durable]),
) -> Result<()> {
    narration.step("The proof: disk and newest point, byte for byte; then the point is mounted");
    let id = id_of(&create(site)?)?;
    for (disk, files) in disks.iter().zip(durable) {
        patience.check()?;
        let name = disk.name();
        let image = export(site, rig, disk, &id)?;
        if let Some(difference) = first_difference(disk.device().path(), &image)? {
            anyhow::bail!("{name} and its newest point differ: {difference}\n{}", site.logs());
        }
        let found = with_image_mounted(rig, &image, Access::Clean, |root| files.check(root));
        found.with_context(|| format!("{name} at point {id}"))?;
        let len = ByteLen(disk.device().sectors() * blocks::SECTOR_SIZE);
        narration.say(&format!(
            "{name}: {len} identical; mounted read-only, all {} durable files whole",
            files.0.len()
        ));
        std::fs::remove_file(image)?;
    }
    Ok(())
}

fn create(site: &Site) -> Result<Value> {
    let made = site.agent(&["point", "create", "--json"]).with_context(|| site.logs())?;
    serde_json::from_str(&made).context("a point as it was made")
}

fn id_of(point: &Value) -> Result<String> {
    Ok(point["id"].as_str().context("a point has an identity")?.to_owned())
}

/// As the tables name it.
fn short(id: &str) -> &str {
    &id[..id.len().min(8)]
}

/// Files that are the same in both lists: an application says so before it touches one.
fn untouched(before: Durable, after: &Durable) -> Durable {
    let same = |(name, content): &(String, _)| after.0.get(name) == Some(content);
    Durable(before.0.into_iter().filter(same).collect())
}

fn export(site: &Site, rig: &Rig, disk: &DemoDisk, point: &str) -> Result<PathBuf> {
    let image = rig.fresh("image");
    let disk_at_point = format!("{}@{point}", disk.name());
    site.target(&["point", "export", &disk_at_point, "--to", text(&image)?])?;
    Ok(image)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the rig's paths are text")
}
