//! Which block device is the base of a disk.
//!
//! The file `base-device`, little-endian: magic `PINBDEV1` (8), disk (16), length of the path
//! (u16), length of the identity (u16), the path, the identity, CRC-32C of all before (4).

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use blocks::DiskId;
use storage::{Storage, StorageError, read_whole, write_whole};

use crate::layout::DiskPaths;

const MAGIC: &[u8; 8] = b"PINBDEV1";
const FILE_LEN_MAX: usize = 8 * 1024;

/// A block device and what the kernel said it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRecord {
    pub(crate) path: PathBuf,
    pub(crate) identity: String,
}

/// A record that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DeviceRecordError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file is damaged or belongs to another disk.
    #[error("the record of the base device of disk {0} is damaged")]
    Damaged(DiskId),
    /// The path or identity is too long to be kept.
    #[error("the path {} is too long", .0.display())]
    TooLong(PathBuf),
}

impl DeviceRecord {
    /// Durably writes the record of `disk`.
    pub(crate) fn store(
        &self,
        storage: &dyn Storage,
        paths: &DiskPaths,
        disk: DiskId,
    ) -> Result<(), DeviceRecordError> {
        let too_long = || DeviceRecordError::TooLong(self.path.clone());
        let path = self.path.as_os_str().as_bytes();
        let mut bytes = [&MAGIC[..], &disk.0].concat();
        for part in [path, self.identity.as_bytes()] {
            let len = u16::try_from(part.len()).map_err(|_| too_long())?;
            bytes.extend(len.to_le_bytes());
        }
        bytes.extend(path);
        bytes.extend(self.identity.as_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        if bytes.len() > FILE_LEN_MAX {
            return Err(too_long());
        }
        Ok(write_whole(storage, &paths.base_device(), &bytes)?)
    }

    /// Reads the record of `disk`.
    pub(crate) fn load(
        storage: &dyn Storage,
        paths: &DiskPaths,
        disk: DiskId,
    ) -> Result<Self, DeviceRecordError> {
        let bytes = read_whole(storage, &paths.base_device(), FILE_LEN_MAX)?;
        decode(&bytes, disk).ok_or(DeviceRecordError::Damaged(disk))
    }
}

fn decode(bytes: &[u8], disk: DiskId) -> Option<DeviceRecord> {
    let (checked, checksum) = bytes.split_last_chunk()?;
    if crc32c::crc32c(checked) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (magic, rest) = checked.split_first_chunk()?;
    let (of_disk, rest) = rest.split_first_chunk()?;
    let (path_len, rest) = rest.split_first_chunk()?;
    let (identity_len, rest) = rest.split_first_chunk()?;
    let (path, identity) = rest.split_at_checked(u16::from_le_bytes(*path_len).into())?;
    if magic != MAGIC
        || *of_disk != disk.0
        || identity.len() != usize::from(u16::from_le_bytes(*identity_len))
    {
        return None;
    }
    let identity = str::from_utf8(identity).ok()?.to_owned();
    Some(DeviceRecord { path: Path::new(OsStr::from_bytes(path)).to_owned(), identity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::{FaultyStorage, OpenMode, create_dirs};

    #[test]
    fn a_damaged_record_names_no_device() {
        let storage = FaultyStorage::new();
        let disk = DiskId([4; 16]);
        let paths = DiskPaths::new(disk);
        create_dirs(&storage, paths.dir()).unwrap();
        let record =
            DeviceRecord { path: "/dev/disk/by-id/x".into(), identity: "wwid=naa.5".to_owned() };
        record.store(&storage, &paths, disk).unwrap();
        assert_eq!(DeviceRecord::load(&storage, &paths, disk).unwrap(), record);
        let file = storage.open(&paths.base_device(), OpenMode::Write).unwrap();
        for at in 0..file.len().unwrap().0 {
            let mut byte = [0];
            file.read_exact_at(at, &mut byte).unwrap();
            file.write_at(at, &[byte[0] ^ 0x10]).unwrap();
            assert!(DeviceRecord::load(&storage, &paths, disk).is_err(), "byte {at}");
            file.write_at(at, &byte).unwrap();
        }
        let long = DeviceRecord { path: "x".repeat(9000).into(), identity: String::new() };
        assert!(matches!(long.store(&storage, &paths, disk), Err(DeviceRecordError::TooLong(_))));
    }
}
