//! A whole block device with the face of a file.
//!
//! Opened for this process alone: the kernel refuses it while the device is mounted, swapped on,
//! or part of a RAID or a volume group. Its length can't be changed.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use blocks::ByteLen;
use nix::libc;

use super::{file::OpenFile, patience::while_taken};
use crate::{StorageError, StorageFile};

/// An open block device.
#[derive(Debug)]
pub struct BlockDevice {
    file: Arc<OpenFile>,
    identity: String,
}

/// A block device that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BlockDeviceError {
    /// The path names something else.
    #[error("{} is not a block device", .0.display())]
    NotABlockDevice(PathBuf),
    /// It is mounted, or otherwise in use.
    #[error("{} is in use", .0.display())]
    InUse(PathBuf),
    /// It can't be opened.
    #[error("opening {}", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BlockDevice {
    /// Opens the device at `path` for reading and writing, for this process alone. One that is in
    /// use is waited for briefly.
    pub fn open(path: &Path) -> Result<Self, BlockDeviceError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_EXCL);
        Self::open_with(path, &options)
    }

    /// Opens the device at `path` for reading, whoever has it open.
    pub fn open_shared(path: &Path) -> Result<Self, BlockDeviceError> {
        Self::open_with(path, OpenOptions::new().read(true))
    }

    fn open_with(path: &Path, options: &OpenOptions) -> Result<Self, BlockDeviceError> {
        let failed = |source| BlockDeviceError::Open { path: path.to_owned(), source };
        // Checked before opening: opening a FIFO would wait, and a tape would rewind.
        if !fs::metadata(path).map_err(failed)?.file_type().is_block_device() {
            return Err(BlockDeviceError::NotABlockDevice(path.to_owned()));
        }
        let is_busy = |error: &io::Error| error.raw_os_error() == Some(libc::EBUSY);
        let is_taken = |result: &io::Result<_>| result.as_ref().is_err_and(is_busy);
        let file = while_taken(|| options.open(path), is_taken).map_err(|error| {
            if is_busy(&error) { BlockDeviceError::InUse(path.to_owned()) } else { failed(error) }
        })?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.file_type().is_block_device() {
            return Err(BlockDeviceError::NotABlockDevice(path.to_owned()));
        }
        let identity = sysfs_identity(metadata.rdev());
        Ok(Self { file: Arc::new(OpenFile { file, path: path.to_owned() }), identity })
    }

    /// What the kernel says of which device this is: a world-wide name, a serial number, a
    /// device-mapper identity, or the file behind a loop device. Empty if it says nothing.
    ///
    /// A path such as `/dev/sdb` can name another disk after the next boot; this tells them apart.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its length.
    pub fn len(&self) -> Result<ByteLen, StorageError> {
        self.file.len()
    }

    /// Whether it has no room at all, as a drive without a medium.
    pub fn is_empty(&self) -> Result<bool, StorageError> {
        self.file.is_empty()
    }

    /// The device as a file.
    pub fn into_file(self) -> Arc<dyn StorageFile> {
        self.file
    }
}

/// The first identity that sysfs knows of a device, with the attribute's name before it.
fn sysfs_identity(device: u64) -> String {
    const ATTRIBUTES: [&str; 6] =
        ["wwid", "device/wwid", "device/serial", "serial", "dm/uuid", "loop/backing_file"];
    const PARTITION: &str = "partition";
    let (major, minor) = (libc::major(device), libc::minor(device));
    let node = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let partition = fs::read_to_string(node.join(PARTITION)).ok();
    // A partition's identity is its disk's and its number.
    let disk = if partition.is_some() { node.join("..") } else { node };
    let identity = ATTRIBUTES.iter().find_map(|attribute| {
        let text = fs::read_to_string(disk.join(attribute)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| format!("{attribute}={text}"))
    });
    match (identity, partition) {
        (Some(identity), Some(number)) => format!("{identity} {PARTITION}={}", number.trim()),
        (Some(identity), None) => identity,
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_block_device_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.as_path(), dir.path(), Path::new("/dev/null")] {
            let refused = BlockDevice::open(path);
            assert!(matches!(refused, Err(BlockDeviceError::NotABlockDevice(_))), "{refused:?}");
        }
        let missing = BlockDevice::open(&dir.path().join("none"));
        assert!(matches!(missing, Err(BlockDeviceError::Open { .. })));
    }
}
