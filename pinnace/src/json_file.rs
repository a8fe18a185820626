//! Small records, each a JSON file that is replaced whole.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::pki::write_private;

/// Reads a record; nothing if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let reading = || format!("reading {}", path.display());
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).with_context(reading),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(reading),
    }
}

/// Writes a record, durably, for its owner's eyes only.
pub(crate) fn write(path: &Path, record: &impl Serialize) -> Result<()> {
    write_private(path, serde_json::to_string_pretty(record)?.as_bytes())
}
