//! What the content of a disk says of it, as `blkid` reads it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// File systems and members made to be used by several hosts, as `blkid` names them.
const SHARED: [&str; 5] = ["ocfs2", "gfs2", "gfs", "lustre", "VMFS_volume_member"];

/// What on the disk at `path` is made for several hosts, if anything is.
///
/// Looks at the content, since no bus tells reliably who else is attached.
pub(super) fn used_by_several_hosts(path: &Path) -> Result<Option<String>> {
    let kind = probe(path, "TYPE")?;
    Ok(SHARED.contains(&kind.as_str()).then_some(kind))
}

/// The identifier of the partition table or file system on the disk at `path`, if it has one that
/// can be read.
pub(super) fn identifier(path: &Path) -> Option<String> {
    let identifier = |tag: &str| {
        let value = probe(path, tag).ok().filter(|value| !value.is_empty())?;
        Some(format!("{tag}={value}"))
    };
    // Of a member of several disks (btrfs, md) the second is its own, and the last that of them all.
    ["PTUUID", "UUID_SUB", "UUID"].into_iter().find_map(identifier)
}

fn probe(path: &Path, tag: &str) -> Result<String> {
    let output = Command::new("blkid")
        .args(["--probe", "--match-tag", tag, "--output", "value"])
        .arg(path)
        .output()
        .context("running blkid")?;
    // Nothing recognised is exit code 2, and no error.
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
