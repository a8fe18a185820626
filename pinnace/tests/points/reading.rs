//! Points are verified and written to files.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use vm_tests::Rig;

use crate::site::{Site, ended_with, other};
use crate::source::{LEN, NOW, Source, noise};

#[test]
fn every_point_is_exported_as_it_was_at_its_cut() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "")?;
    let mut source = Source::start(&site, 1)?;
    let mut expected = Vec::new();
    for round in 0..4_u8 {
        let at = usize::from(round) << 20;
        source.write(0, at, &noise(96 << 10, round));
        source.write(0, at + (256 << 10), &vec![0; 32 << 10]);
        expected.push((source.cut(NOW)?, source.disks[0].content.clone()));
    }
    for (point, content) in &expected {
        let file = rig.fresh("image.raw");
        let name = format!("vda@{}", &point[..6]);
        site.cli(&["point", "export", &name, "--to", text(&file)])?;
        ensure!(&fs::read(&file)? == content, "{name} is not what was sent");
        let taken = fs::metadata(&file)?.blocks() * 512;
        ensure!(taken < LEN as u64, "{taken} bytes: zeroes take room");
        fs::remove_file(&file)?;
    }
    let (raw, qcow2) = (rig.fresh("image.raw"), rig.fresh("image.qcow2"));
    site.cli(&["point", "export", "vda@latest", "--to", text(&raw)])?;
    site.cli(&["point", "export", "vda@latest", "--format", "qcow2", "--to", text(&qcow2)])?;
    other("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", text(&raw), text(&qcow2)])?;
    // What is there is not replaced unasked, and nothing half done is left.
    let again = site.try_cli(&["point", "export", "vda@latest", "--to", text(&raw)])?;
    ended_with(&again, 6, &["--overwrite"])?;
    site.cli(&["point", "export", "vda@latest", "--overwrite", "--to", text(&raw)])?;
    let unknown = site.try_cli(&["point", "export", "vdz@latest", "--to", "/tmp/none"])?;
    ended_with(&unknown, 4, &["vdz", "vda"])?;
    ensure!(!Path::new("/tmp/none.partial").exists(), "something half done is left");
    Ok(())
}

#[test]
fn damage_at_rest_is_found_and_named() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let site = Site::start(&rig, "")?;
    let mut source = Source::start(&site, 2)?;
    let first = source.cut(NOW)?;
    source.write(0, 1 << 20, &noise(256 << 10, 1));
    let second = source.cut(NOW)?;
    let verified = site.json(&["point", "verify", "latest"])?;
    ensure!(verified["damaged_bytes"] == 0 && verified["disks"] == 2, "{verified}");
    ensure!(verified["read_bytes"].as_u64() > Some(6 << 20), "{verified}");
    ensure!(site.cli(&["point", "verify", "latest"])?.contains("all authentic"));
    drop(source);

    flip_a_bit(&site.store)?;
    let damaged = site.try_cli(&["point", "verify", &second, "--json"])?;
    ended_with(&damaged, 20, &[&second, "damaged"])?;
    let report: serde_json::Value = serde_json::from_slice(&damaged.stdout)?;
    ensure!(report["damage"][0]["disk"] == "vda", "{report}");
    // The other disk, and the point before, are as they were.
    site.cli(&["point", "verify", &second, "--disk", "vdb"])?;
    site.cli(&["point", "verify", &first])?;
    let image = rig.fresh("image.raw");
    let export = site.try_cli(&["point", "export", "vda@latest", "--to", text(&image)])?;
    ended_with(&export, 20, &[])?;
    ensure!(!image.exists(), "an image with damage is none");
    Ok(())
}

/// Damages the payload of the largest delta.
pub(crate) fn flip_a_bit(store: &Path) -> Result<()> {
    let delta = newest_delta(store)?;
    let file = fs::File::options().read(true).write(true).open(&delta)?;
    let at = 100 << 10;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    Ok(file.write_all_at(&[byte[0] ^ 1], at)?)
}

/// The largest delta of any disk: of those here, the last one that has content.
fn newest_delta(store: &Path) -> Result<PathBuf> {
    let mut deltas = Vec::new();
    let mut directories = vec![store.join("replicas")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "delta") {
                deltas.push(path);
            }
        }
    }
    let len = |path: &PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
    deltas.into_iter().max_by_key(len).context("no delta is left")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
