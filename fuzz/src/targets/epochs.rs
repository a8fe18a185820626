//! Epochs as an enrolled machine may send them, all the way into a store: authentic frames that
//! lie about everything else. Frames are opened, decompressed, kept, applied, read again.

use std::collections::BTreeSet;
use std::sync::Arc;

use blocks::{ByteLen, Epoch, MachineId, RetractReason};
use replica::{Disk, DiskSpec, Parallelism, ScrubCursor, Store};
use storage::FaultyStorage;
use wire::Sealer;

use super::sealed::{self, DISK, GENERATION, SECTORS};
use crate::input::Input;

pub(crate) fn spec() -> DiskSpec {
    DiskSpec {
        id: DISK,
        generation: GENERATION,
        geometry: sealed::geometry(),
        name: "a disk".to_owned(),
        machine: MachineId([0x3a; 16]),
        key: sealed::key(),
    }
}

pub(crate) fn open(storage: &FaultyStorage) -> Store {
    let store = Store::open_on(Arc::new(storage.clone()), Parallelism::Caller);
    store.expect("a store opens whatever its disks are worth")
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let storage = FaultyStorage::new();
    Store::init_on(&storage).expect("storage without faults");
    let sealer = sealed::sealer(DISK);
    let mut durable = Epoch::NONE;
    while !input.is_over() {
        let store = open(&storage);
        assert!(store.damaged().is_empty(), "{:?}", store.damaged());
        let disk = store.open_disk(&spec()).expect("no peer damages its replica");
        assert_eq!(disk.state().last_durable, durable, "what is durable stays so");
        for _ in 0..1 + input.below(8) {
            match input.below(4) {
                0 | 1 => send(&mut input, &sealer, &disk),
                2 => drop(disk.fold_one().expect("what was acknowledged can be applied")),
                _ => look(&mut input, &disk),
            }
            assert!(disk.state().last_durable >= durable, "an acknowledged epoch is gone");
            durable = disk.state().last_durable;
        }
        drop(disk);
        let report = store.verify_at_rest().expect("storage without faults");
        assert!(report.damage.is_empty(), "{:?}", report.damage);
    }
}

/// Sends an epoch, or a part of one.
fn send(input: &mut Input, sealer: &Sealer, disk: &Disk) {
    let before = disk.state();
    let link = sealed::link(input, before.last_durable);
    let other = sealed::sealer(DISK);
    let Ok(mut incoming) = disk.begin(link) else { return };
    let mut sent = Vec::new();
    for _ in 0..input.below(4) {
        let link = if input.once_in(16) { sealed::link(input, before.last_durable) } else { link };
        let sealer = if input.once_in(16) { &other } else { sealer };
        let Some(frame) = sealed::content(input, sealer, link) else { continue };
        sent.push(frame.clone());
        if incoming.append(frame).is_err() {
            assert_eq!(disk.state(), before, "a frame that is refused changes nothing");
            return;
        }
    }
    if let Some(end) = sealed::end(input, sealer, link, &sent)
        && incoming.append(end).is_ok()
        && let Ok(durable) = incoming.commit()
    {
        assert_eq!((link.follows, durable.state.last_durable), (before.last_durable, link.epoch));
    }
    let state = disk.state();
    assert!(state == before || state.last_durable == link.epoch, "{before:?}, then {state:?}");
}

/// Everything that reads what was sent.
pub(crate) fn look(input: &mut Input, disk: &Disk) {
    let history = disk.history();
    let epoch = Epoch(input.number(12));
    match input.below(6) {
        0 => drop(history.confirm(epoch)),
        1 => drop(history.retract(epoch..=Epoch(input.number(12)), RetractReason::Gap)),
        2 => drop(history.pin(epoch)),
        3 => drop(disk.hashes(input.number(2), 1)),
        4 => {
            let keep = BTreeSet::from([epoch]);
            drop(history.retain_step(&keep, disk.state().last_durable));
        }
        _ => drop(history.scrub(ScrubCursor::default(), ByteLen(1 << 20))),
    }
    for point in history.points() {
        let Ok(view) = history.view_retracted(point.epoch) else { continue };
        let mut content = vec![0; usize::try_from(SECTORS * 512).expect("a small disk")];
        drop(view.read_at(0, &mut content));
        drop(view.allocation(0, SECTORS * 512, usize::try_from(SECTORS).expect("a small disk")));
    }
}
