//! Disks that several hosts may write to at once.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

/// File systems and members made to be used by several hosts, as `blkid` names them.
const SHARED: [&str; 5] = ["ocfs2", "gfs2", "gfs", "lustre", "VMFS_volume_member"];

/// What on the disk at `path` is made for several hosts, if anything is.
///
/// Looks at the content, since no bus tells reliably who else is attached.
pub(super) fn used_by_several_hosts(path: &Path) -> Result<Option<String>> {
    let output = Command::new("blkid")
        .args(["--probe", "--match-tag", "TYPE", "--output", "value"])
        .arg(path)
        .output()
        .context("running blkid")?;
    // Nothing recognised is exit code 2, and no reason to refuse.
    let kind = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(SHARED.contains(&kind.as_str()).then_some(kind))
}
