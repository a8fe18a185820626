use std::{fs::File, os::fd::OwnedFd};

use blocks::{ChunkSize, DiskId, Generation, Geometry, Taint};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;

/// A table in memory of our own: what it is mapped from does not matter to it.
fn table() -> DiskTable {
    let memory: OwnedFd = memfd_create("table", MFdFlags::MFD_CLOEXEC).unwrap();
    File::from(memory.try_clone().unwrap()).set_len(WORDS as u64 * 8).unwrap();
    DiskTable::new(&memory).unwrap()
}

fn number(major: u32, minor: u32) -> DeviceNumber {
    DeviceNumber::new(major, minor).unwrap()
}

#[test]
fn a_disk_is_found_until_withdrawn() {
    let table = table();
    let (one, other) = (number(8, 0), number(8, 16));
    table.publish(one, Slot(3)).unwrap();
    table.publish(other, Slot(127)).unwrap();
    assert!(table.is_published(one, Slot(3)) && table.is_published(other, Slot(127)));
    assert!(!table.is_published(one, Slot(127)) && !table.is_published(number(8, 32), Slot(0)));
    table.withdraw(one, Slot(3));
    assert!(!table.is_published(one, Slot(3)));
    table.withdraw_slot(Slot(127));
    assert!(!table.is_published(other, Slot(127)));
}

#[test]
fn the_usual_numbers_never_crowd() {
    let table = table();
    // What a machine could have: SCSI disks and their partitions' gaps, NVMe, virtio, LVM, loops.
    let usual = (0..32)
        .map(|i| number(8, 16 * i))
        .chain((0..24).map(|i| number(259, i)))
        .chain((0..16).map(|i| number(254, 16 * i)))
        .chain((0..32).map(|i| number(253, i)))
        .chain((0..24).map(|i| number(7, i)));
    for (slot, number) in (0..).map(Slot).zip(usual) {
        table.publish(number, slot).unwrap();
    }
}

#[test]
fn a_full_bucket_says_so() {
    let table = table();
    let bucket = |number| table.bucket(number).as_ptr();
    let numbers = (1..1 << 16).map(|minor| number(1, minor));
    let same: Vec<_> = numbers.filter(|n| bucket(*n) == bucket(number(1, 1))).take(5).collect();
    for number in &same[..4] {
        table.publish(*number, Slot(1)).unwrap();
    }
    assert!(table.publish(same[4], Slot(2)).is_err());
    table.withdraw(same[2], Slot(1));
    table.publish(same[4], Slot(2)).unwrap();
}

#[test]
fn a_head_is_found_by_the_paths_that_it_has() {
    let table = table();
    let (head, old, new) = (number(259, 0), number(259, 1), number(259, 2));
    let slot = Slot(3);
    table.publish(head, slot).unwrap();
    table.follow_paths(head, slot, || Ok(vec![old])).unwrap().unwrap();
    assert!(table.is_published(head, slot) && table.is_published(old, slot));
    // The new path's number was one of another head, which has lost it.
    table.publish(new, Slot(4)).unwrap();
    table.follow_paths(head, slot, || Ok(vec![new])).unwrap().unwrap();
    assert!(table.is_published(head, slot) && table.is_published(new, slot));
    assert!(!table.is_published(old, slot) && !table.is_published(new, Slot(4)));
    table.withdraw_slot(slot);
    assert!(!table.is_published(head, slot) && !table.is_published(new, slot));
}

#[test]
fn taints_are_kept_apart_from_the_chunk_size() {
    let table = table();
    let spec = DiskSpec {
        id: DiskId([1; 16]),
        generation: Generation([2; 16]),
        number: number(8, 0),
        class: DiskClass::RequestBased,
        geometry: Geometry::new(1000, 512, ChunkSize::from_bytes(65536).unwrap()).unwrap(),
        sequence: 9,
    };
    let slot = Slot(5);
    table.describe(slot, &spec);
    let one = TaintSet::default().with(Taint::Passthrough);
    let both = one.with(Taint::DiskGone);
    table.add_taints(slot, both);
    assert_eq!(table.taints(slot), both);
    table.clear_taints(slot, TaintSet::default().with(Taint::DiskGone));
    assert_eq!(table.taints(slot), one);
    assert_eq!(table.record(slot, SHIFT_AND_TAINTS).load(SeqCst) & 0xffff_ffff, 7);
    // Its slot's next disk starts without.
    table.describe(slot, &spec);
    assert!(table.taints(slot).is_empty());
}
