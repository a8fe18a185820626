//! Storage in memory that fails on command and can lose power. For tests.
//!
//! Two images are kept: what the program sees, and what the medium is sure to hold. Every change
//! since the last sync stands in a list between them, and a crash keeps any subset of that list
//! ([`FaultyStorage::after_crash`]). What the model leaves out: changes that a crash keeps apply in
//! the order they were made.
//!
//! A sync that fails does what Linux does: half of what it should have written is on the medium,
//! the other half never will be, the program goes on seeing all of it until the cache is dropped,
//! and the next sync succeeds.

mod image;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use blocks::ByteLen;

use crate::{OpenMode, Operation, Space, Storage, StorageError, StorageFile, StorePath};
use image::{Change, Image, Inode, InodeNumber, Node};

/// An error to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO, from any operation.
    Io,
    /// ENOSPC, from an operation that needs room; others are spared.
    Full,
    /// Half of a write is done, then ENOSPC; other operations are spared.
    ShortWrite,
    /// A sync fails; other operations are spared.
    Sync,
}

/// What becomes of an unflushed change at a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It reached the medium.
    Kept,
    /// It did not.
    Dropped,
    /// A write reached the medium up to this many bytes; any other change did not.
    Torn {
        /// How many bytes.
        bytes: usize,
    },
}

/// Storage in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct FaultyStorage {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    image: Image,
    operations: u64,
    fault: Option<(u64, Fault)>,
    power_off_at: Option<u64>,
}

impl FaultyStorage {
    /// An empty store without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations were asked for so far, failed ones included.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Makes operation number `n`, counted as [`Self::operations`] does from 0, fail if `fault`
    /// applies to it.
    pub fn fail_at(&self, n: u64, fault: Fault) {
        self.lock().fault = Some((n, fault));
    }

    /// Lets `more` operations happen; all after them fail and change nothing.
    pub fn power_off_after(&self, more: u64) {
        let mut state = self.lock();
        state.power_off_at = Some(state.operations + more);
    }

    /// What a file holds as the program sees it; nothing if there is none. No operation, so that
    /// whoever checks a store changes nothing about when faults come.
    pub fn content(&self, path: &StorePath) -> Option<Vec<u8>> {
        let mut state = self.lock();
        match state.image.lookup(path.as_str())? {
            Node::File(inode) => Some(state.image.inode(inode).seen().to_vec()),
            Node::Dir => None,
        }
    }

    /// How many changes are unflushed: the number of fates [`Self::after_crash`] asks for.
    pub fn unflushed(&self) -> usize {
        self.lock().image.unflushed()
    }

    /// The store as a crash at this moment leaves it. `fate` decides on each unflushed change by
    /// its number. This store goes on as it was; the new one has no faults.
    pub fn after_crash(&self, fate: impl FnMut(usize) -> Fate) -> Self {
        let state = State { image: self.lock().image.after_crash(fate), ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }
}

impl State {
    /// Counts an operation; gives the fault it must show, if any.
    fn count(&mut self, operation: Operation) -> Result<Option<Fault>, io::Error> {
        let n = self.operations;
        self.operations += 1;
        if self.power_off_at.is_some_and(|at| n >= at) {
            return Err(io::Error::other("power is off"));
        }
        let fault = self.fault.filter(|(at, _)| *at == n).map(|(_, fault)| fault);
        let needs_room = matches!(operation, Operation::Write | Operation::CreateDir);
        match fault {
            Some(Fault::Io) if operation != Operation::Sync => Err(eio()),
            Some(Fault::Full) if needs_room => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::ShortWrite) if operation == Operation::Write => Ok(fault),
            Some(Fault::Sync | Fault::Io) if operation == Operation::Sync => Ok(fault),
            _ => Ok(None),
        }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(nix::errno::Errno::EIO as i32)
}

fn at<'a>(operation: Operation, path: &'a str) -> impl Fn(io::Error) -> StorageError + 'a {
    move |source| StorageError { operation, path: PathBuf::from(path), source }
}

impl Storage for FaultyStorage {
    fn open(&self, path: &StorePath, mode: OpenMode) -> Result<Arc<dyn StorageFile>, StorageError> {
        let mut state = self.lock();
        let creates = mode == OpenMode::Create && state.image.lookup(path.as_str()).is_none();
        let operation = if creates { Operation::CreateDir } else { Operation::Open };
        let failed = at(Operation::Open, path.as_str());
        state.count(operation).map_err(&failed)?;
        let inode = match (state.image.lookup(path.as_str()), mode) {
            (Some(Node::File(inode)), OpenMode::Read | OpenMode::Write) => inode,
            (Some(Node::File(inode)), OpenMode::Create) => {
                state.image.inode(inode).change(Change::SetLen(0));
                inode
            }
            (None, OpenMode::Create) => {
                let inode = state.image.new_inode();
                state.image.link(path.as_str(), Node::File(inode)).map_err(&failed)?;
                inode
            }
            (None, _) => return Err(failed(io::ErrorKind::NotFound.into())),
            (Some(Node::Dir), _) => return Err(failed(io::ErrorKind::IsADirectory.into())),
        };
        let path = PathBuf::from(path.as_str());
        Ok(Arc::new(FaultyFile { storage: self.clone(), inode, path }))
    }

    fn create_dir(&self, path: &StorePath) -> Result<(), StorageError> {
        let mut state = self.lock();
        let failed = at(Operation::CreateDir, path.as_str());
        state.count(Operation::CreateDir).map_err(&failed)?;
        match state.image.lookup(path.as_str()) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(failed(io::ErrorKind::AlreadyExists.into())),
            None => state.image.link(path.as_str(), Node::Dir).map_err(failed),
        }
    }

    fn list(&self, dir: &StorePath) -> Result<Vec<String>, StorageError> {
        let mut state = self.lock();
        let failed = at(Operation::List, dir.as_str());
        state.count(Operation::List).map_err(&failed)?;
        let names: BTreeSet<String> = state.image.list(dir.as_str()).map_err(failed)?;
        Ok(names.into_iter().collect())
    }

    fn rename(&self, from: &StorePath, to: &StorePath) -> Result<(), StorageError> {
        let mut state = self.lock();
        let failed = at(Operation::Rename, from.as_str());
        state.count(Operation::Rename).map_err(&failed)?;
        let Some(node) = state.image.lookup(from.as_str()) else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        state.image.link(to.as_str(), node).map_err(&failed)?;
        state.image.unlink(from.as_str());
        Ok(())
    }

    fn remove(&self, path: &StorePath) -> Result<(), StorageError> {
        let mut state = self.lock();
        let failed = at(Operation::Remove, path.as_str());
        state.count(Operation::Remove).map_err(&failed)?;
        match state.image.lookup(path.as_str()) {
            Some(Node::File(_)) => state.image.unlink(path.as_str()),
            Some(Node::Dir) => return Err(failed(io::ErrorKind::IsADirectory.into())),
            None => return Err(failed(io::ErrorKind::NotFound.into())),
        }
        Ok(())
    }

    fn remove_dir(&self, path: &StorePath) -> Result<(), StorageError> {
        let mut state = self.lock();
        let failed = at(Operation::Remove, path.as_str());
        state.count(Operation::Remove).map_err(&failed)?;
        if !state.image.list(path.as_str()).map_err(&failed)?.is_empty() {
            return Err(failed(io::ErrorKind::DirectoryNotEmpty.into()));
        }
        state.image.unlink(path.as_str());
        Ok(())
    }

    fn sync_dir(&self, dir: &StorePath) -> Result<(), StorageError> {
        let mut state = self.lock();
        let failed = at(Operation::Sync, dir.as_str());
        match state.count(Operation::Sync).map_err(&failed)? {
            Some(_) => Err(failed(eio())),
            None => {
                state.image.sync_dir(dir.as_str());
                Ok(())
            }
        }
    }

    fn space(&self) -> Result<Space, StorageError> {
        self.lock().count(Operation::List).map_err(at(Operation::List, ""))?;
        Ok(Space { total: ByteLen(1 << 50), free: ByteLen(1 << 50) })
    }
}

#[derive(Debug)]
struct FaultyFile {
    storage: FaultyStorage,
    inode: InodeNumber,
    path: PathBuf,
}

impl FaultyFile {
    fn with<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut Inode, Option<Fault>) -> io::Result<T>,
    ) -> Result<T, StorageError> {
        let mut state = self.storage.lock();
        let fault = state.count(operation);
        let result = fault.and_then(|fault| act(state.image.inode(self.inode), fault));
        result.map_err(|source| StorageError { operation, path: self.path.clone(), source })
    }
}

impl StorageFile for FaultyFile {
    fn len(&self) -> Result<ByteLen, StorageError> {
        self.with(Operation::Read, |inode, _| Ok(ByteLen(inode.seen().len() as u64)))
    }

    fn allocated(&self) -> Result<ByteLen, StorageError> {
        self.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StorageError> {
        self.with(Operation::Read, |inode, _| {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            let rest = inode.seen().get(offset..).unwrap_or_default();
            let len = rest.len().min(buffer.len());
            buffer[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.with(Operation::Write, |inode, fault| {
            let part = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
            inode.change(Change::Write { offset, bytes: part.to_vec() });
            fault.map_or(Ok(()), |_| Err(io::ErrorKind::StorageFull.into()))
        })
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<(), StorageError> {
        self.with(Operation::Write, |inode, fault| {
            let len = if fault.is_some() { len / 2 } else { len };
            inode.change(Change::Zero { offset, len });
            fault.map_or(Ok(()), |_| Err(io::ErrorKind::StorageFull.into()))
        })
    }

    fn set_len(&self, len: ByteLen) -> Result<(), StorageError> {
        self.with(Operation::Write, |inode, fault| match fault {
            Some(_) => Err(io::ErrorKind::StorageFull.into()),
            None => {
                inode.change(Change::SetLen(len.0));
                Ok(())
            }
        })
    }

    fn sync_data(&self) -> Result<(), StorageError> {
        self.with(Operation::Sync, |inode, fault| match fault {
            Some(_) => {
                inode.fail_sync();
                Err(eio())
            }
            None => {
                inode.sync();
                Ok(())
            }
        })
    }

    fn drop_cache(&self) -> Result<(), StorageError> {
        self.with(Operation::Read, |inode, _| {
            inode.drop_cache();
            Ok(())
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
