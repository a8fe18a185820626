//! The last log of a disk, as the boot after a stop of the machine finds it on a disk that anybody
//! may have written to.

use blocks::{
    Bitmap, ChunkIndex, ChunkRange, ChunkSize, Coverage, DiskId, Epoch, Generation, Geometry,
};
use storage::StorePath;
use tracker::hrl::{self, Log, LogHeader, LogState};
use tracker::last::{self, Boot, Closing, LastRecord, LastState, RECORD_LEN};

use super::sealed::{DISK, GENERATION};
use crate::mend;

const MENDED: u8 = 1;
/// The part of the record's block that says anything; the input leaves the rest out.
const RECORD: usize = 192;
const BOOT: [u8; 16] = [9; 16];
const BEFORE: [u8; 16] = [8; 16];
const CLOSING: Closing = [7; 16];

/// The disk whose log the reader looks for: 40 MiB, three pages.
fn disk() -> (DiskId, Generation, Geometry) {
    let geometry = Geometry::new(80_000, 512, ChunkSize::DEFAULT).expect("a small disk");
    (DISK, GENERATION, geometry)
}

/// The file, with the zeroes after the record.
fn file(record: &[u8], log: &[u8]) -> Vec<u8> {
    let mut file = record.to_vec();
    file.resize(RECORD_LEN, 0);
    file.extend_from_slice(log);
    file
}

pub(crate) fn run(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let mut bytes = rest.to_vec();
    if how & MENDED != 0 {
        mend::last_log(&mut bytes);
    }
    let (record, log) = bytes.split_at(bytes.len().min(RECORD));
    let file = file(record, log);
    let decoded = LastRecord::decode(&file);
    if let Some(record) = decoded {
        assert_eq!(
            LastRecord::decode(&record.encode()),
            Some(record),
            "it reads as it was written"
        );
    }
    let boot = Boot { boot: BOOT, taken: CLOSING };
    let path = StorePath::root().join("last.log");
    let Some(log) = last::believed(&file, &path, boot, disk()) else { return };
    let record = decoded.expect("there is no log without a record");
    let (id, generation, geometry) = disk();
    assert_eq!(record.state, LastState::Taken { boot: BOOT }, "taken in this boot");
    assert_eq!(record.closing, CLOSING, "under the kernel's number");
    assert_ne!(record.closed_in, BOOT, "and closed in another");
    assert_eq!((log.header.disk, log.header.generation), (id, generation));
    assert_eq!(log.dirty.len(), geometry.chunks());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let (disk, generation, geometry) = disk();
    let mut dirty = Bitmap::new(geometry.chunks());
    dirty.insert_range(ChunkRange { start: ChunkIndex(5), end: ChunkIndex(9) });
    let header = LogHeader {
        disk,
        generation,
        geometry,
        boot_id: BEFORE,
        disk_sequence: 11,
        acked: Epoch(41),
        coverage: Coverage::Complete,
        state: LogState::Closed,
    };
    let log = hrl::encode(&Log { header, dirty });
    let closed = LastRecord {
        disk,
        generation,
        geometry,
        closing: CLOSING,
        closed_in: BEFORE,
        hardware: [4; 32],
        fingerprint: [5; 32],
        log_len: 0,
        log_crc: 0,
        state: LastState::Closed,
    };
    let record = closed.of_log(&log);
    let states = [LastState::Closed, LastState::Taken { boot: BOOT }];
    let files = states.map(|state| [&record.in_state(state).encode()[..RECORD], &log].concat());
    let seed = |file: &Vec<u8>| [0, MENDED].map(|how| [&[how][..], file].concat());
    files.iter().flat_map(seed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_believed_and_one_is_not() {
        let boot = Boot { boot: BOOT, taken: CLOSING };
        let path = StorePath::root().join("last.log");
        let believed = seeds().into_iter().filter(|seed| {
            let (record, log) = seed[1..].split_at(RECORD);
            last::believed(&file(record, log), &path, boot, disk()).is_some()
        });
        assert_eq!(believed.count(), 2);
    }
}
