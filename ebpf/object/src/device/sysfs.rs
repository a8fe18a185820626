//! Reading a device's attributes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::DeviceNumber;

/// The directory of a device in sysfs; it is gone when the device is.
pub(super) fn directory(number: DeviceNumber) -> PathBuf {
    Path::new("/sys/dev/block").join(number.to_string())
}

/// A name as in `/dev`: sysfs writes `!` for `/`.
pub(super) fn device_name(name: &str) -> String {
    name.replace('!', "/")
}

/// The attributes of one device, by name.
pub(super) struct Attributes {
    directory: PathBuf,
}

impl Attributes {
    pub(super) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Of the disk with this number, or that a partition with this number is on.
    pub(super) fn of_whole_disk(number: DeviceNumber) -> io::Result<Self> {
        let found = Self::at(directory(number).canonicalize()?);
        match found.directory.parent() {
            Some(disk) if found.has("partition") => Ok(Self::at(disk.to_owned())),
            _ => Ok(found),
        }
    }

    /// Where the device is in the tree of devices.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn device_name(&self) -> String {
        device_name(&self.directory.file_name().unwrap_or_default().to_string_lossy())
    }

    pub(super) fn device_number(&self) -> io::Result<DeviceNumber> {
        let text = self.text("dev")?;
        let halves = text
            .trim()
            .split_once(':')
            .and_then(|(major, minor)| DeviceNumber::new(major.parse().ok()?, minor.parse().ok()?));
        halves.ok_or_else(|| unexpected(&text))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.directory.join(name).exists()
    }

    pub(super) fn text(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.directory.join(name))
    }

    pub(super) fn number(&self, name: &str) -> io::Result<u64> {
        let text = self.text(name)?;
        text.trim().parse().map_err(|_| unexpected(&text))
    }

    /// The attributes of all directories below.
    pub(super) fn children(&self) -> io::Result<Vec<Self>> {
        let mut children = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            children.push(Self::at(entry?.path()));
        }
        Ok(children)
    }
}

fn unexpected(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected attribute {text:?}"))
}
