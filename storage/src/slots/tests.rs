use super::*;
use crate::faulty::{Fate, Fault, FaultyStorage};

const TAG: SlotTag = SlotTag(*b"testslot");

fn path() -> StorePath {
    StorePath::root().join("slots")
}

fn bytes_of(storage: &FaultyStorage) -> (Arc<dyn StorageFile>, Vec<u8>) {
    let file = storage.open(&path(), OpenMode::Write).unwrap();
    let mut bytes = vec![0; 2 * SLOT_LEN];
    file.read_exact_at(0, &mut bytes).unwrap();
    (file, bytes)
}

#[test]
fn the_newest_record_is_read_back() {
    let storage = FaultyStorage::new();
    let mut slots = SlotFile::create(&storage, &path(), TAG, b"1").unwrap();
    for record in [&b"22"[..], b"333", b""] {
        slots.write(record).unwrap();
        assert_eq!(SlotFile::peek(&storage, &path(), TAG).unwrap(), record);
    }
    let (mut slots, record) = SlotFile::open(&storage, &path(), TAG).unwrap();
    assert_eq!(record, b"");
    slots.write(&[7; SLOT_PAYLOAD_MAX]).unwrap();
    assert_eq!(SlotFile::open(&storage, &path(), TAG).unwrap().1, [7; SLOT_PAYLOAD_MAX]);
    let too_long = slots.write(&[7; SLOT_PAYLOAD_MAX + 1]);
    assert!(matches!(too_long, Err(SlotError::TooLong(4061))));
    slots.write(b"a refused record does no harm").unwrap();
}

#[test]
fn another_tag_is_another_record() {
    let storage = FaultyStorage::new();
    SlotFile::create(&storage, &path(), TAG, b"1").unwrap();
    let other = SlotFile::peek(&storage, &path(), SlotTag(*b"otherone"));
    assert!(matches!(other, Err(SlotError::NoValidSlot(_))));
}

#[test]
fn one_damaged_slot_leaves_the_other() {
    let storage = FaultyStorage::new();
    let mut slots = SlotFile::create(&storage, &path(), TAG, b"first").unwrap();
    slots.write(b"second").unwrap();
    let (file, bytes) = bytes_of(&storage);
    // Record 2 is in slot 0: damage each byte of it that is covered by a checksum.
    for (at, byte) in (0..).zip(&bytes[..HEADER_LEN + b"second".len()]) {
        file.write_at(at, &[byte ^ 0x40]).unwrap();
        assert_eq!(SlotFile::peek(&storage, &path(), TAG).unwrap(), b"first", "byte {at}");
        file.write_at(at, &[*byte]).unwrap();
    }
    assert_eq!(SlotFile::peek(&storage, &path(), TAG).unwrap(), b"second");
    file.set_len(blocks::ByteLen(100)).unwrap();
    assert!(matches!(SlotFile::peek(&storage, &path(), TAG), Err(SlotError::NoValidSlot(_))));
}

#[test]
fn a_crash_leaves_the_record_before_or_after() {
    for stop in 0..4 {
        for torn in [0, 1, 20, 36, 38, 4095] {
            let storage = FaultyStorage::new();
            let mut slots = SlotFile::create(&storage, &path(), TAG, b"first").unwrap();
            slots.write(b"second").unwrap();
            storage.power_off_after(stop);
            let written = slots.write(b"third").is_ok();
            let after = storage.after_crash(|_| Fate::Torn { bytes: torn });
            let (_, record) = SlotFile::open(&after, &path(), TAG).unwrap();
            assert!(record == b"third" || (!written && record == b"second"), "{record:?}");
        }
    }
}

#[test]
fn what_open_returns_is_durable_even_after_a_failed_sync() {
    let storage = FaultyStorage::new();
    let mut slots = SlotFile::create(&storage, &path(), TAG, b"first").unwrap();
    storage.fail_at(storage.operations() + 1, Fault::Sync);
    assert!(slots.write(b"second").is_err());
    assert!(matches!(slots.write(b"third"), Err(SlotError::WriteFailedEarlier)));
    let (_, seen) = SlotFile::open(&storage, &path(), TAG).unwrap();
    let after = storage.after_crash(|_| Fate::Dropped);
    assert_eq!(SlotFile::open(&after, &path(), TAG).unwrap().1, seen);
}

#[test]
fn every_failing_operation_is_an_error_and_loses_nothing() {
    for fault in [Fault::Io, Fault::Full, Fault::ShortWrite, Fault::Sync] {
        for n in 0..2 {
            let storage = FaultyStorage::new();
            let mut slots = SlotFile::create(&storage, &path(), TAG, b"first").unwrap();
            storage.fail_at(storage.operations() + n, fault);
            let result = slots.write(b"second");
            let record = SlotFile::open(&storage, &path(), TAG).unwrap().1;
            assert!(record == b"second" || (result.is_err() && record == b"first"));
        }
    }
}

#[test]
fn a_record_that_no_other_can_follow_is_none() {
    let storage = FaultyStorage::new();
    let path = StorePath::root().join("slots");
    drop(SlotFile::create(&storage, &path, TAG, b"first").unwrap());
    let last = encode(TAG, u64::MAX, b"last").unwrap();
    let file = storage.open(&path, OpenMode::Write).unwrap();
    file.write_at(slot_offset(u64::MAX), &last).unwrap();
    assert!(matches!(SlotFile::open(&storage, &path, TAG), Err(SlotError::NoValidSlot(_))));
}
