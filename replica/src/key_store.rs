//! The data keys of the disks, one file each, readable by the target's user only.
//!
//! A key file, 60 bytes: magic `PINKEY01` (8), disk (16), key (32), CRC-32C of all before (4).

use blocks::DiskId;
use storage::{Storage, StorageError, read_whole, write_whole};
use wire::DataKey;
use zeroize::Zeroizing;

use crate::layout;

const MAGIC: &[u8; 8] = b"PINKEY01";
const CHECKED_LEN: usize = 56;
const FILE_LEN: usize = CHECKED_LEN + 4;

/// A key that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file is damaged or belongs to another disk.
    #[error("the key file of disk {0} is damaged")]
    Damaged(DiskId),
}

/// Durably stores the key of a disk, replacing the one it had.
pub(crate) fn store(
    storage: &dyn Storage,
    disk: DiskId,
    key: &DataKey,
) -> Result<(), StorageError> {
    let mut bytes = Zeroizing::new([0; FILE_LEN]);
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(&disk.0);
    bytes[24..CHECKED_LEN].copy_from_slice(key.expose());
    let checksum = crc32c::crc32c(&bytes[..CHECKED_LEN]);
    bytes[CHECKED_LEN..].copy_from_slice(&checksum.to_le_bytes());
    write_whole(storage, &layout::key(disk), bytes.as_slice())
}

/// Reads the key of a disk.
pub(crate) fn load(storage: &dyn Storage, disk: DiskId) -> Result<DataKey, KeyError> {
    let bytes = Zeroizing::new(read_whole(storage, &layout::key(disk), FILE_LEN)?);
    decode(&bytes, disk).ok_or(KeyError::Damaged(disk))
}

fn decode(bytes: &[u8], disk: DiskId) -> Option<DataKey> {
    let (checked, checksum) = bytes.split_at_checked(CHECKED_LEN)?;
    if checksum != crc32c::crc32c(checked).to_le_bytes() {
        return None;
    }
    let (magic, rest) = checked.split_first_chunk()?;
    let (of_disk, key) = rest.split_first_chunk()?;
    (magic == MAGIC && *of_disk == disk.0)
        .then(|| key.first_chunk().map(|key| DataKey::from_bytes(*key)))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::{FaultyStorage, OpenMode};

    #[test]
    fn a_damaged_key_is_never_a_key() {
        let storage = FaultyStorage::new();
        storage.create_dir(&layout::keys()).unwrap();
        let (disk, key) = (DiskId([5; 16]), DataKey::from_bytes([9; 32]));
        store(&storage, disk, &key).unwrap();
        assert_eq!(load(&storage, disk).unwrap(), key);

        let path = layout::key(disk);
        let bytes = read_whole(&storage, &path, 100).unwrap();
        let file = storage.open(&path, OpenMode::Write).unwrap();
        for (at, byte) in (0..).zip(&bytes) {
            file.write_at(at, &[byte ^ 1]).unwrap();
            assert!(matches!(load(&storage, disk), Err(KeyError::Damaged(_))), "byte {at}");
            file.write_at(at, &[*byte]).unwrap();
        }
        let other = layout::key(DiskId([6; 16]));
        write_whole(&storage, &other, &bytes).unwrap();
        assert!(matches!(load(&storage, DiskId([6; 16])), Err(KeyError::Damaged(_))));
        write_whole(&storage, &path, &bytes[..59]).unwrap();
        assert!(matches!(load(&storage, disk), Err(KeyError::Damaged(_))));
    }
}
