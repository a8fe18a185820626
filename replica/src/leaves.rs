//! The hashes of the base's leaves, kept beside it, so that a comparison need not read the base.
//!
//! One entry of 32 bytes for each leaf of the disk, in a file: its hash, or zeroes for a leaf that
//! reads as zeroes. The entries are part of the base: whoever writes to it writes them too, and they
//! are made durable before the catalogue says what is in the base.
//!
//! Invariants:
//! - Every entry before `known` is that of the base's content, unless a delta that is not in the
//!   base yet covers some of the leaf, or a seed that is being received. The first are never asked
//!   for here, and rewritten by the fold; of the second nobody asks until it has ended.
//! - `hashed <= known` while no seed is being received, where `hashed` is the catalogue's: entries
//!   before `hashed` are what the first invariant says after any crash. So before a seed writes
//!   below `hashed`, the catalogue durably says less.
//!
//! An entry of neither old nor new content (a torn write) is the hash of nothing that anybody has:
//! it costs bytes on the wire, and hides no difference.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use blocks::{ByteLen, Extent, Geometry, SECTOR_SIZE, Sector};
use storage::{OpenMode, Storage, StorageError, StorageFile};
use wire::leaf::{LEAF_LEN, LEAVES_PER_BLOCK, LeafHash, leaf_hash, zero_leaf};

use crate::{base::Base, catalog::Record, layout::DiskPaths};

/// Sectors of a leaf.
pub(crate) const LEAF_SECTORS: u64 = LEAF_LEN as u64 / SECTOR_SIZE;

const ENTRY_LEN: usize = size_of::<LeafHash>();

/// The entry of a leaf that reads as zeroes.
const ZEROES: LeafHash = [0; ENTRY_LEN];

/// The number of a leaf of a disk, from 0.
pub(crate) type LeafIndex = u64;

/// The entries of a disk.
#[derive(Debug)]
pub(crate) struct LeafTable {
    file: Arc<dyn StorageFile>,
    geometry: Geometry,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    known: LeafIndex,
    /// Whether anything was written since the last sync.
    unsynced: bool,
    /// Leaves of which a part was written: only the base has the whole.
    ragged: BTreeSet<LeafIndex>,
}

/// What becomes of entries when something was written to the base.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Written<'a> {
    Data(&'a [u8]),
    Zeroes,
}

impl LeafTable {
    /// Opens the entries of a base, and makes the file if it is missing. All they show is durable
    /// afterwards.
    pub(crate) fn open(
        storage: &dyn Storage,
        paths: &DiskPaths,
        record: &Record,
        base: &Base,
    ) -> Result<Self, StorageError> {
        let (path, geometry) = (paths.hashes(), record.geometry);
        let leaves = leaves_of(geometry);
        // The entries of a base that was made just now are all zeroes, like the base.
        let existing = Self::existing(storage, paths, record)?.filter(|_| !base.is_fresh());
        let (file, known) = match existing {
            Some(file) => (file, record.hashed.min(leaves)),
            None => {
                let file = storage.open(&path, OpenMode::Create)?;
                file.set_len(len_of(geometry))?;
                (file, if base.is_fresh() { leaves } else { 0 })
            }
        };
        file.sync_data()?;
        file.drop_cache()?;
        storage.sync_dir(&path.parent())?;
        let state = State { known, unsynced: false, ragged: BTreeSet::new() };
        Ok(Self { file, geometry, state: Mutex::new(state) })
    }

    /// Whether there is a file with an entry for each leaf.
    pub(crate) fn is_there(
        storage: &dyn Storage,
        paths: &DiskPaths,
        record: &Record,
    ) -> Result<bool, StorageError> {
        Ok(Self::existing(storage, paths, record)?.is_some())
    }

    fn existing(
        storage: &dyn Storage,
        paths: &DiskPaths,
        record: &Record,
    ) -> Result<Option<Arc<dyn StorageFile>>, StorageError> {
        match storage.open(&paths.hashes(), OpenMode::Write) {
            Ok(file) => Ok((file.len()? == len_of(record.geometry)).then_some(file)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many leaves the disk has.
    pub(crate) fn leaves(&self) -> LeafIndex {
        leaves_of(self.geometry)
    }

    /// The entries before this one may be asked for.
    pub(crate) fn known(&self) -> LeafIndex {
        self.state().known
    }

    /// Takes it that an extent of the base was written. Called after that, so that a leaf which two
    /// threads write parts of is read once both have.
    pub(crate) fn note(&self, extent: Extent, written: Written<'_>) -> Result<(), StorageError> {
        let (touched, whole) = (touched_by(extent), self.whole_in(extent));
        {
            let mut state = self.state();
            state.unsynced = true;
            let ragged = touched.filter(|leaf| !whole.contains(leaf));
            // At most the first and the last.
            state.ragged.extend(ragged);
        }
        if whole.is_empty() {
            return Ok(());
        }
        match written {
            Written::Zeroes => {
                self.file.zero_range(place(whole.start), place(whole.end - whole.start))
            }
            Written::Data(content) => {
                let skipped = (whole.start * LEAF_SECTORS - extent.start.0) * SECTOR_SIZE;
                let skipped = usize::try_from(skipped).expect("less than a leaf");
                let leaves = content[skipped..].chunks(LEAF_LEN);
                let hashes: Vec<u8> = whole
                    .clone()
                    .zip(leaves)
                    .flat_map(|(leaf, content)| hash(leaf, content))
                    .collect();
                self.file.write_at(place(whole.start), &hashes)
            }
        }
    }

    /// Reads what only the base has the whole of. No write may be under way whose leaves matter now.
    pub(crate) fn settle(&self, base: &Base) -> Result<(), StorageError> {
        let ragged = std::mem::take(&mut self.state().ragged);
        let mut content = [0; LEAF_LEN];
        for leaf in ragged {
            let extent = self.extent_of(&(leaf..leaf + 1));
            let len = usize::try_from(extent.len().0).expect("at most a leaf");
            let content = &mut content[..len];
            base.file().read_exact_at(extent.start.bytes(), content)?;
            self.file.write_at(place(leaf), &hash(leaf, content))?;
        }
        Ok(())
    }

    /// Makes durable all entries that were written. No write may be under way that matters now.
    pub(crate) fn sync_if_needed(&self) -> Result<(), StorageError> {
        if !std::mem::take(&mut self.state().unsynced) {
            return Ok(());
        }
        self.file.sync_data().inspect_err(|_| self.state().unsynced = true)
    }

    /// The hashes of leaves that are known.
    pub(crate) fn read(&self, leaves: Range<LeafIndex>) -> Result<Vec<LeafHash>, StorageError> {
        let count = usize::try_from(leaves.end - leaves.start).expect("hashes fit in memory");
        let mut bytes = vec![0; count * ENTRY_LEN];
        self.file.read_exact_at(place(leaves.start), &mut bytes)?;
        let entries = bytes.as_chunks::<ENTRY_LEN>().0;
        Ok(leaves.zip(entries).map(|(leaf, entry)| self.hash_of(leaf, entry)).collect())
    }

    /// Takes the hashes of neighbouring leaves that somebody has read from the base, if they join
    /// what is known. Those that a delta covers may be anything.
    pub(crate) fn learn(&self, first: LeafIndex, hashes: &[LeafHash]) -> Result<(), StorageError> {
        let end = first + hashes.len() as u64;
        let known = self.known();
        if !(first..end).contains(&known) {
            return Ok(());
        }
        self.state().unsynced = true;
        self.file.write_at(place(first), hashes.as_flattened())?;
        self.state().known = end;
        Ok(())
    }

    /// Takes it that the base holds something else of a leaf than was written to it: from now on
    /// a comparison finds the difference.
    pub(crate) fn correct(&self, leaf: LeafIndex, hash: &LeafHash) -> Result<(), StorageError> {
        self.state().unsynced = true;
        self.file.write_at(place(leaf), hash)
    }

    /// Takes it that all of an extent was written, with its entries.
    pub(crate) fn extend(&self, extent: Extent) {
        let (mut state, whole) = (self.state(), self.whole_in(extent));
        if whole.contains(&state.known) {
            state.known = whole.end;
        }
    }

    /// Takes it that nobody knows what the base holds from a leaf on.
    pub(crate) fn forget_from(&self, leaf: LeafIndex) {
        let mut state = self.state();
        state.known = state.known.min(leaf);
    }

    /// The sectors of leaves of the disk.
    pub(crate) fn extent_of(&self, leaves: &Range<LeafIndex>) -> Extent {
        let sector = |leaf: LeafIndex| (leaf * LEAF_SECTORS).min(self.geometry.sectors());
        let (start, end) = (sector(leaves.start), sector(leaves.end));
        Extent { start: Sector(start), sectors: end - start }
    }

    /// The leaves that lie in an extent as a whole.
    fn whole_in(&self, extent: Extent) -> Range<LeafIndex> {
        let start = extent.start.0.div_ceil(LEAF_SECTORS);
        let end = match extent.end().0 == self.geometry.sectors() {
            true => self.leaves(),
            false => extent.end().0 / LEAF_SECTORS,
        };
        start..end.max(start)
    }

    fn hash_of(&self, leaf: LeafIndex, entry: &LeafHash) -> LeafHash {
        if *entry != ZEROES {
            return *entry;
        }
        let len = usize::try_from(self.extent_of(&(leaf..leaf + 1)).len().0);
        match len.expect("at most a leaf") {
            LEAF_LEN => zero_leaf(place_of(leaf)),
            short => leaf_hash(place_of(leaf), &[0; LEAF_LEN][..short]),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, so the state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many leaves a disk has, the last possibly short.
pub(crate) fn leaves_of(geometry: Geometry) -> LeafIndex {
    geometry.sectors().div_ceil(LEAF_SECTORS)
}

/// How long the file of entries is.
fn len_of(geometry: Geometry) -> ByteLen {
    ByteLen(leaves_of(geometry) * ENTRY_LEN as u64)
}

/// The leaves of which an extent holds any sector.
pub(crate) fn touched_by(extent: Extent) -> Range<LeafIndex> {
    extent.start.0 / LEAF_SECTORS..extent.end().0.div_ceil(LEAF_SECTORS)
}

/// The hash of a leaf's content.
pub(crate) fn hash(leaf: LeafIndex, content: &[u8]) -> LeafHash {
    leaf_hash(place_of(leaf), content)
}

/// Which leaf of its block it is.
fn place_of(leaf: LeafIndex) -> usize {
    usize::try_from(leaf % LEAVES_PER_BLOCK as u64).expect("less than the leaves of a block")
}

/// Where the entry of a leaf is in the file; also how long the entries before it are.
fn place(leaf: LeafIndex) -> u64 {
    leaf * ENTRY_LEN as u64
}
