//! Where inputs are kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::Target;

/// The kept inputs of a target: few, and chosen because together they reach the most.
pub fn corpus(target: &Target) -> PathBuf {
    room().join("corpus").join(target.name)
}

/// Inputs that once broke a target, named for what was wrong.
pub fn regressions(target: &Target) -> PathBuf {
    room().join("regressions").join(target.name)
}

/// The inputs in a directory, by their names; none if there is no directory.
pub fn inputs(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut inputs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        inputs.push((name, fs::read(&path).with_context(|| path.display().to_string())?));
    }
    inputs.sort();
    Ok(inputs)
}

fn room() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
