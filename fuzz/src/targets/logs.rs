//! The file of a log of dirty chunks.

use blocks::{Bitmap, ChunkIndex, ChunkRange, ChunkSize, Coverage, Epoch, GapReason, Geometry};
use storage::{FaultyStorage, Storage, StorePath, write_whole};
use tracker::hrl::{self, Log, LogHeader, LogState};

use super::sealed::{DISK, GENERATION};
use crate::mend;

const MENDED: u8 = 1;

/// The disk that the reader believes the log to be of: 40 MiB, three pages.
fn geometry() -> Geometry {
    Geometry::new(80_000, 512, ChunkSize::DEFAULT).expect("a small disk")
}

fn path() -> StorePath {
    StorePath::root().join("disk.hrl")
}

fn file(bytes: &[u8]) -> impl Storage + use<> {
    let storage = FaultyStorage::new();
    write_whole(&storage, &path(), bytes).expect("storage without faults");
    storage
}

pub(crate) fn run(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let mut bytes = rest.to_vec();
    if how & MENDED != 0 {
        mend::log(&mut bytes);
    }
    let Ok(log) = hrl::read(&file(&bytes), &path(), geometry()) else { return };
    assert_eq!(log.dirty.len(), log.header.geometry.chunks());
    let storage = FaultyStorage::new();
    hrl::write(&storage, &path(), &log).expect("storage without faults");
    let again = hrl::read(&storage, &path(), geometry()).expect("what was written is a log");
    assert_eq!(again, log);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let geometry = geometry();
    let mut dirty = Bitmap::new(geometry.chunks());
    dirty.insert_range(ChunkRange { start: ChunkIndex(5), end: ChunkIndex(9) });
    dirty.insert_range(ChunkRange { start: ChunkIndex(4096), end: ChunkIndex(8192) });
    let header = LogHeader {
        disk: DISK,
        generation: GENERATION,
        geometry,
        boot_id: [3; 16],
        disk_sequence: 11,
        acked: Epoch(41),
        coverage: Coverage::Gap(GapReason::CrossCheck { missing_sectors: 108 }),
        state: LogState::Closed,
    };
    let storage = FaultyStorage::new();
    hrl::write(&storage, &path(), &Log { header, dirty }).expect("storage without faults");
    let bytes = storage.content(&path()).expect("it was written");
    [0, MENDED].into_iter().map(|how| [&[how][..], &bytes].concat()).collect()
}
