use std::{collections::BTreeSet, fs::File};

use blocks::ChunkIndex;
use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;

use super::*;

/// A table in memory of our own: what it is mapped from does not matter to it.
fn table() -> ConflictTable {
    let memory = memfd_create("conflicts", MFdFlags::MFD_CLOEXEC).unwrap();
    File::from(memory.try_clone().unwrap()).set_len(WORDS as u64 * 8).unwrap();
    ConflictTable::new(&memory, Vec::new()).unwrap()
}

fn chunks(start: u64, end: u64) -> ChunkRange {
    ChunkRange { start: ChunkIndex(start), end: ChunkIndex(end) }
}

/// What the programs do; that they do is shown by the tests on real disks.
fn note(table: &ConflictTable, slot: Slot, range: ChunkRange) {
    let current = usize::from(table.map.words()[CURRENT].load(SeqCst) == 1);
    for (index, bits) in words_of(range) {
        let place = Place::of(slot, index);
        table.half(current)[place.word].fetch_or(place.turned(bits), SeqCst);
    }
}

proptest! {
    #[test]
    fn words_hold_exactly_their_range(start in 0u64..1000, len in 0u64..300) {
        let bits = words_of(chunks(start, start + len)).flat_map(|(index, bits)| {
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| 64 * index + bit)
        });
        prop_assert_eq!(bits.collect::<Vec<_>>(), (start..start + len).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_noted_since_the_flip_is_always_found(
        noted in prop::collection::vec((0u32..128, 0u64..1 << 33, 1u64..4096), 1..20),
        pick in any::<prop::sample::Index>(),
    ) {
        let mut table = table();
        table.flip();
        for &(slot, start, len) in &noted {
            note(&table, Slot(slot), chunks(start, start + len));
        }
        for &(slot, start, len) in &noted {
            let one = start + pick.index(usize::try_from(len).unwrap()) as u64;
            prop_assert!(table.conflicted(Slot(slot), chunks(one, one + 1)));
            prop_assert!(table.conflicted(Slot(slot), chunks(start.saturating_sub(70), one + 1)));
        }
        table.flip();
        for &(slot, start, len) in &noted {
            prop_assert!(!table.conflicted(Slot(slot), chunks(start, start + len)));
        }
    }
}

#[test]
fn notes_go_where_the_last_flip_said_and_late_ones_only_add_conflicts() {
    let mut table = table();
    let (slot, block) = (Slot(3), chunks(77, 78));
    for _ in 0..4 {
        note(&table, slot, block);
        assert!(table.conflicted(slot, block), "before the flip");
        table.flip();
        assert!(!table.conflicted(slot, block), "what was noted before");
        note(&table, slot, block);
        assert!(table.conflicted(slot, block));
        table.clear_other();
        assert!(table.conflicted(slot, block), "clearing is of the other half");

        // A program that loaded the old half and was delayed, after the half was cleared.
        let place = Place::of(slot, 0);
        table.half(1 - table.current)[place.word].fetch_or(place.turned(1), SeqCst);
        assert!(!table.conflicted(slot, chunks(0, 1)));
        table.flip();
        assert!(table.conflicted(slot, chunks(0, 1)), "needless, and harmless");
    }
}

#[test]
fn an_overflow_conflicts_with_everything_of_its_half() {
    let mut table = table();
    table.flip();
    assert!(!table.overflowed());
    table.overflow(table.current).store(1, SeqCst);
    assert!(table.overflowed() && table.conflicted(Slot(0), chunks(5, 6)));
    table.flip();
    assert!(!table.overflowed() && !table.conflicted(Slot(0), chunks(5, 6)));
}

#[test]
fn a_new_reader_begins_where_the_last_one_ended() {
    let mut table = table();
    table.flip();
    note(&table, Slot(1), chunks(0, 10));
    table.flip();
    let memory = table.map;
    assert_eq!(memory.words()[CURRENT].load(SeqCst), 0);
    let mut next =
        ConflictTable { map: memory, programs: vec![], current: 0, other_is_clear: false };
    next.flip();
    assert!(!next.conflicted(Slot(1), chunks(0, 10)), "left by the one before");
}

#[test]
fn places_are_spread() {
    // Neighbours, chunks on a boundary of 256 KiB, and the same chunks of several disks.
    let mut table = table();
    table.flip();
    let written: BTreeSet<u64> = (0..1000).map(|i| i * 64).collect();
    written.iter().for_each(|&chunk| note(&table, Slot(0), chunks(chunk, chunk + 1)));
    let false_positives = |slot: u32, step: u64, first: u64| {
        let looked_at = (first..).step_by(usize::try_from(step).unwrap()).take(10_000);
        looked_at.filter(|&chunk| table.conflicted(Slot(slot), chunks(chunk, chunk + 1))).count()
    };
    // Ten thousand looks at a set of a thousand among 2^20: about ten.
    for (slot, step, first) in [(0, 64, 64 * 1000), (1, 64, 0), (7, 1, 0), (0, 64, 1 << 32)] {
        let count = false_positives(slot, step, first);
        assert!(count < 40, "{count} in slot {slot}, every {step} from {first}");
    }
}
