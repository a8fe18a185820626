//! Whole files, visible at a crash as they were before or as they are after, never between.

use crate::{OpenMode, Operation, Storage, StorageError, StorageFile, StorePath};

/// Makes `file`, written under the name `from`, durable under the name `to`.
///
/// Sync the bytes, rename, sync the directory of `to`, in this order: a name that appears earlier
/// than its bytes are durable would show half a file after a crash. The directory of `from` is not
/// synced; at a crash the old name may come back beside the new one.
pub fn publish(
    storage: &dyn Storage,
    file: &dyn StorageFile,
    from: &StorePath,
    to: &StorePath,
) -> Result<(), StorageError> {
    file.sync_data()?;
    storage.rename(from, to)?;
    storage.sync_dir(&to.parent())
}

/// Durably gives `path` the content `bytes`, whether it exists or not.
///
/// Written under the name `<name>.new` first; what a crash leaves of that is overwritten next
/// time.
pub fn write_whole(
    storage: &dyn Storage,
    path: &StorePath,
    bytes: &[u8],
) -> Result<(), StorageError> {
    let new = path.parent().join(&format!("{}.new", path.name()));
    let file = storage.open(&new, OpenMode::Create)?;
    file.write_at(0, bytes)?;
    publish(storage, file.as_ref(), &new, path)
}

/// The whole content of a file of at most `len_max` bytes; a longer one is an error.
pub fn read_whole(
    storage: &dyn Storage,
    path: &StorePath,
    len_max: usize,
) -> Result<Vec<u8>, StorageError> {
    let file = storage.open(path, OpenMode::Read)?;
    let len = usize::try_from(file.len()?.0).ok().filter(|len| *len <= len_max);
    let Some(len) = len else {
        return Err(StorageError {
            operation: Operation::Read,
            path: file.path().to_owned(),
            source: std::io::Error::other(format!("longer than {len_max} bytes")),
        });
    };
    let mut bytes = vec![0; len];
    file.read_exact_at(0, &mut bytes)?;
    Ok(bytes)
}

/// Durably creates a directory and those above it.
pub fn create_dirs(storage: &dyn Storage, path: &StorePath) -> Result<(), StorageError> {
    if *path == StorePath::root() {
        return Ok(());
    }
    create_dirs(storage, &path.parent())?;
    storage.create_dir(path)?;
    storage.sync_dir(&path.parent())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::{Fate, FaultyStorage};

    #[test]
    fn a_whole_file_is_old_or_new_at_any_crash() {
        let path = StorePath::root().join("state");
        let mut crashes = 0;
        for stop in 0.. {
            let storage = FaultyStorage::new();
            write_whole(&storage, &path, b"old").unwrap();
            storage.power_off_after(stop);
            let written = write_whole(&storage, &path, b"newer").is_ok();
            for subset in 0..1u32 << storage.unflushed().min(10) {
                let fate = |i: usize| if subset >> i & 1 == 1 { Fate::Kept } else { Fate::Dropped };
                let after = storage.after_crash(fate);
                let content = read_whole(&after, &path, 100).unwrap();
                assert!(content == b"newer" || (!written && content == b"old"), "{content:?}");
                crashes += 1;
            }
            if written {
                break;
            }
        }
        assert!(crashes > 10);
    }

    #[test]
    fn a_file_past_the_limit_is_not_read() {
        let storage = FaultyStorage::new();
        let path = StorePath::root().join("state");
        write_whole(&storage, &path, &[1; 11]).unwrap();
        assert!(read_whole(&storage, &path, 10).is_err());
        assert!(read_whole(&storage, &path.parent().join("none"), 10).unwrap_err().is_missing());
    }
}
