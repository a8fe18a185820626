//! What a measurement found, kept as JSON until its next run, so that each can be run by itself.

use std::{fs, io::ErrorKind, path::Path};

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};

/// Keeps `record` in `directory` under `name`, in place of what an earlier run kept.
pub fn write(directory: &Path, name: &str, record: &impl Serialize) -> Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join(format!("{name}.json"));
    let json = serde_json::to_vec_pretty(record).context("a record as JSON")?;
    fs::write(&path, json).with_context(|| format!("writing {}", path.display()))
}

/// What the last run kept under `name`, if one did.
pub fn read<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Option<T>> {
    let path = directory.join(format!("{name}.json"));
    match fs::read(&path) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}
