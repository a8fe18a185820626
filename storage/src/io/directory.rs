//! A directory of the operating system as a store.
//!
//! Files are created with mode 0600 and directories with 0700: what is kept here is the content
//! of somebody's disks. Symbolic links are not followed for the last name of a path.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use blocks::ByteLen;
use nix::{libc, sys::statvfs::statvfs};

use super::{file::OpenFile, patience::while_taken};
use crate::{OpenMode, Operation, Space, Storage, StorageError, StorageFile, StorePath};

/// A directory, and possibly the lock that says it is ours.
#[derive(Debug)]
pub struct FileStorage {
    root: PathBuf,
    /// Held for its effect: the lock goes when the file is closed.
    _lock: Option<File>,
}

/// A store that can't be had for oneself.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The lock file can't be opened or locked.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl FileStorage {
    /// The store in `root`, a directory that exists, shared with whoever else uses it.
    pub fn shared(root: &Path) -> Self {
        Self { root: root.to_owned(), _lock: None }
    }

    /// The store in `root`, a directory that exists, locked until this value is dropped. The lock
    /// is advisory, on the file `lock_name`, and ends with the process however that ends. One that
    /// is taken is waited for briefly.
    pub fn exclusive(root: &Path, lock_name: &StorePath) -> Result<Self, LockError> {
        let mut storage = Self::shared(root);
        let path = storage.resolve(lock_name);
        let failed =
            |source| StorageError { operation: Operation::Open, path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(&path).map_err(failed)?;
        let is_taken = |result: &_| matches!(result, Err(TryLockError::WouldBlock));
        match while_taken(|| file.try_lock(), is_taken) {
            Ok(()) => storage._lock = Some(file),
            Err(TryLockError::WouldBlock) => return Err(LockError::InUse(root.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error).into()),
        }
        Ok(storage)
    }

    /// Where the store is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of one of its files for the operating system.
    pub fn resolve(&self, path: &StorePath) -> PathBuf {
        if *path == StorePath::root() { self.root.clone() } else { self.root.join(path.as_str()) }
    }

    fn failed(
        &self,
        operation: Operation,
        path: &StorePath,
    ) -> impl Fn(io::Error) -> StorageError + use<> {
        let path = self.resolve(path);
        move |source| StorageError { operation, path: path.clone(), source }
    }
}

impl Storage for FileStorage {
    fn open(&self, path: &StorePath, mode: OpenMode) -> Result<Arc<dyn StorageFile>, StorageError> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).truncate(true);
            }
        }
        let full = self.resolve(path);
        let file = options.open(&full).map_err(self.failed(Operation::Open, path))?;
        Ok(Arc::new(OpenFile { file, path: full }))
    }

    fn create_dir(&self, path: &StorePath) -> Result<(), StorageError> {
        let full = self.resolve(path);
        match DirBuilder::new().mode(0o700).create(&full) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && full.is_dir() => Ok(()),
            result => result.map_err(self.failed(Operation::CreateDir, path)),
        }
    }

    fn list(&self, dir: &StorePath) -> Result<Vec<String>, StorageError> {
        let failed = self.failed(Operation::List, dir);
        let mut names = Vec::new();
        for entry in fs::read_dir(self.resolve(dir)).map_err(&failed)? {
            let name = entry.map_err(&failed)?.file_name();
            names.extend(name.to_str().filter(|name| dir.child(name).is_ok()).map(str::to_owned));
        }
        Ok(names)
    }

    fn rename(&self, from: &StorePath, to: &StorePath) -> Result<(), StorageError> {
        fs::rename(self.resolve(from), self.resolve(to))
            .map_err(self.failed(Operation::Rename, from))
    }

    fn remove(&self, path: &StorePath) -> Result<(), StorageError> {
        fs::remove_file(self.resolve(path)).map_err(self.failed(Operation::Remove, path))
    }

    fn remove_dir(&self, path: &StorePath) -> Result<(), StorageError> {
        fs::remove_dir(self.resolve(path)).map_err(self.failed(Operation::Remove, path))
    }

    fn sync_dir(&self, dir: &StorePath) -> Result<(), StorageError> {
        let sync = || File::open(self.resolve(dir))?.sync_all();
        sync().map_err(self.failed(Operation::Sync, dir))
    }

    fn space(&self) -> Result<Space, StorageError> {
        let root = StorePath::root();
        let stat = statvfs(&self.root)
            .map_err(|errno| self.failed(Operation::List, &root)(errno.into()))?;
        let unit = stat.fragment_size();
        let bytes = |count: u64| ByteLen(count.saturating_mul(unit));
        Ok(Space { total: bytes(stat.blocks()), free: bytes(stat.blocks_available()) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{Failure, read_whole, write_whole};

    #[test]
    fn files_are_private_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let storage = FileStorage::shared(dir.path());
        let path = StorePath::root().join("sub").join("file");
        storage.create_dir(&path.parent()).unwrap();
        storage.create_dir(&path.parent()).unwrap();
        write_whole(&storage, &path, b"content").unwrap();
        assert_eq!(read_whole(&storage, &path, 100).unwrap(), b"content");
        let mode = |path| fs::metadata(storage.resolve(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.parent())), (0o600, 0o700));

        let link = path.parent().join("link");
        std::os::unix::fs::symlink("/etc/hostname", storage.resolve(&link)).unwrap();
        assert!(storage.open(&link, OpenMode::Read).is_err());
        fs::write(storage.resolve(&path.parent()).join(".other"), "").unwrap();
        let mut names = storage.list(&path.parent()).unwrap();
        names.sort();
        assert_eq!(names, ["file", "link"]);
    }

    #[test]
    fn zeroed_ranges_give_their_room_back() {
        let dir = tempfile::tempdir().unwrap();
        let storage = FileStorage::shared(dir.path());
        let file = storage.open(&StorePath::root().join("file"), OpenMode::Create).unwrap();
        file.write_at(0, &[7; 256 * 1024]).unwrap();
        file.sync_data().unwrap();
        let before = file.allocated().unwrap();
        file.zero_range(64 * 1024 + 512, 128 * 1024).unwrap();
        file.sync_data().unwrap();
        file.drop_cache().unwrap();
        assert!(file.allocated().unwrap() < before);
        let mut bytes = vec![1; 256 * 1024 + 1];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 256 * 1024);
        let zero = |at: usize| (64 * 1024 + 512..192 * 1024 + 512).contains(&at);
        assert!((0..256 * 1024).all(|at| bytes[at] == if zero(at) { 0 } else { 7 }));
        let past_end = file.read_exact_at(256 * 1024, &mut [0]).unwrap_err();
        assert_eq!(past_end.failure(), Failure::Broken);
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let name = StorePath::root().join("lock");
        let held = FileStorage::exclusive(dir.path(), &name).unwrap();
        assert!(matches!(FileStorage::exclusive(dir.path(), &name), Err(LockError::InUse(_))));
        drop(held);
        FileStorage::exclusive(dir.path(), &name).unwrap();
        assert!(FileStorage::shared(dir.path()).space().unwrap().total.0 > 0);
    }
}
