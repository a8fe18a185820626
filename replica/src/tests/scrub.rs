//! A scrub finds every damaged byte, and says which points are lost by it.

use std::sync::Arc;

use blocks::{
    ByteLen, Epoch,
    EpochKind::{Delta, Seed},
};
use storage::{FaultyStorage, OpenMode, Storage, StorePath, faulty::Fate, read_whole};

use super::{
    scenario::disk_path,
    source::{Fill, Plan, SECTORS, piece, plan, point, point_plan, read_view, send, spec},
};
use crate::{
    Damaged, DamagedPart, FailureClass, History, Parallelism, ScrubCursor, Store, ViewError,
};

/// Points in the base and at 3 and 4; the second frame of epoch 2 is overwritten by epoch 4.
fn stored() -> FaultyStorage {
    let storage = FaultyStorage::new();
    Store::init_on(&storage).unwrap();
    let store = open(&storage);
    let disk = store.open_disk(&spec()).unwrap();
    let whole = piece(0, u32::try_from(SECTORS).unwrap(), Fill::Noise(1));
    send(&disk, &Plan { point: Some(point(1, 1)), ..plan(Seed, 1, true, &[whole]) });
    let pieces = [piece(0, 9, Fill::Noise(2)), piece(50, 9, Fill::Noise(3))];
    send(&disk, &plan(Delta, 2, true, &pieces));
    send(&disk, &point_plan(3, &[piece(4, 1, Fill::Same(3)), piece(90, 2, Fill::Zero)]));
    send(&disk, &point_plan(4, &[piece(40, 30, Fill::Noise(4))]));
    storage.after_crash(|_| Fate::Kept)
}

fn open(storage: &FaultyStorage) -> Store {
    Store::open_on(Arc::new(storage.clone()), Parallelism::Caller).unwrap()
}

fn path(epoch: u64) -> StorePath {
    disk_path().join("deltas").join(&format!("{epoch}.delta"))
}

fn damage(storage: &FaultyStorage, path: &StorePath, at: usize) {
    let byte = read_whole(storage, path, 1 << 20).unwrap()[at] ^ 0x10;
    storage.open(path, OpenMode::Write).unwrap().write_at(at as u64, &[byte]).unwrap();
}

/// A whole scrub by pieces of so many bytes: what is damaged, and how much was read.
fn scrub(history: &History, budget: u64) -> (Vec<Damaged>, u64) {
    let (mut cursor, mut damage, mut bytes) = (ScrubCursor::default(), Vec::new(), 0);
    loop {
        let mut piece = history.scrub(cursor, ByteLen(budget)).unwrap();
        damage.append(&mut piece.damage);
        bytes += piece.bytes.0;
        match piece.next {
            // As text, since that is how it is kept between two pieces.
            Some(next) => cursor = next.to_string().parse().unwrap(),
            None => return (damage, bytes),
        }
    }
}

fn lost(damage: &[Damaged]) -> Vec<u64> {
    damage.iter().flat_map(|damaged| &damaged.points).map(|point| point.epoch.0).collect()
}

#[test]
fn every_byte_of_every_delta_is_read_whatever_the_pieces() {
    let storage = stored();
    let history = open(&storage).history(spec().id).unwrap();
    let all: u64 = [2, 3, 4]
        .map(|epoch| read_whole(&storage, &path(epoch), 1 << 20).unwrap().len() as u64)
        .iter()
        .sum();
    for budget in [1, 700, 5000, u64::MAX] {
        let (damage, bytes) = scrub(&history, budget);
        assert!(damage.is_empty(), "{damage:?}");
        assert_eq!(bytes, all, "by {budget}");
    }
    assert!("7".parse::<ScrubCursor>().is_err() && "a:b".parse::<ScrubCursor>().is_err());
}

#[test]
fn any_damaged_byte_is_found() {
    let whole = stored();
    let len = read_whole(&whole, &path(3), 1 << 20).unwrap().len();
    for at in 0..len {
        let storage = whole.after_crash(|_| Fate::Kept);
        let history = open(&storage).history(spec().id).unwrap();
        damage(&storage, &path(3), at);
        let (damage, _) = scrub(&history, 3000);
        assert_eq!(damage.len(), 1, "byte {at}: {damage:?}");
        let loses_all = matches!(damage[0].part, DamagedPart::Delta { .. });
        let epoch = match damage[0].part {
            DamagedPart::Delta { epoch, .. } | DamagedPart::Frame { epoch, .. } => epoch,
            _ => panic!("byte {at}: {damage:?}"),
        };
        assert_eq!((epoch, lost(&damage)), (Epoch(3), vec![3, 4]), "byte {at}");
        let refused = history.view(Epoch(4)).unwrap_err();
        let named = matches!(refused, ViewError::Damaged { damaged: Epoch(3), .. });
        assert!(named || loses_all, "byte {at}: {refused}");
        assert_eq!(refused.class(), FailureClass::Corrupt);
    }
}

#[test]
fn a_point_that_does_not_need_what_is_damaged_is_not_lost() {
    let storage = stored();
    let history = open(&storage).history(spec().id).unwrap();
    let after = read_view(&history.view(Epoch(4)).unwrap());
    let first_frame = 104 + 16 + 4 + 9 * 512 + 20;
    damage(&storage, &path(2), first_frame + 300);
    let (damage, _) = scrub(&history, 5000);
    let [Damaged { part: DamagedPart::Frame { epoch: Epoch(2), frame: 1, .. }, .. }] = &damage[..]
    else {
        panic!("{damage:?}")
    };
    assert_eq!(lost(&damage), [3], "epoch 4 has overwritten it, and the base is below it");
    assert!(matches!(history.view(Epoch(3)), Err(ViewError::Damaged { .. })));
    assert!(read_view(&history.view(Epoch(4)).unwrap()) == after);
    history.view(Epoch(1)).unwrap();
    // Nobody has scrubbed: what is damaged is refused when it is read.
    let history = {
        drop(history);
        open(&storage).history(spec().id).unwrap()
    };
    let view = history.view(Epoch(3)).unwrap();
    view.read_at(0, &mut [0; 512]).unwrap();
    let refused = view.read_at(55 * 512, &mut [0; 512]).unwrap_err();
    assert_eq!(refused.class(), FailureClass::Corrupt);
}

#[test]
fn a_damaged_key_or_catalogue_is_found_while_the_disk_is_open() {
    let storage = stored();
    let history = open(&storage).history(spec().id).unwrap();
    let key = StorePath::root().join("keys").join(&format!("{}.key", spec().id));
    damage(&storage, &key, 30);
    let catalog = disk_path().join("catalog");
    damage(&storage, &catalog, 40);
    damage(&storage, &catalog, 4096 + 40);
    let (damage, _) = scrub(&history, u64::MAX);
    let parts: Vec<_> = damage.iter().map(|damaged| &damaged.part).collect();
    assert!(matches!(parts[..], [DamagedPart::Catalog(_), DamagedPart::Key(_)]), "{parts:?}");
}

#[test]
fn an_index_that_hides_an_extent_is_found() {
    // Made with a good checksum by somebody who has no key: the frame has the last word.
    let storage = stored();
    let bytes = read_whole(&storage, &path(4), 1 << 20).unwrap();
    let trailer = bytes.len() - 128;
    let index =
        usize::try_from(u64::from_le_bytes(*bytes[trailer + 64..].first_chunk().unwrap())).unwrap();
    let mut changed = bytes.clone();
    // The extent begins a sector later.
    changed[index + 8] += 1;
    let covered = crc32c::crc32c(&changed[index..trailer]);
    changed[trailer + 120..trailer + 124].copy_from_slice(&covered.to_le_bytes());
    let checksum = crc32c::crc32c(&changed[trailer..trailer + 124]);
    changed[trailer + 124..].copy_from_slice(&checksum.to_le_bytes());
    storage.open(&path(4), OpenMode::Create).unwrap().write_at(0, &changed).unwrap();
    let history = open(&storage).history(spec().id).unwrap();
    let view = history.view(Epoch(4)).unwrap();
    let refused = view.read_at(0, &mut vec![0; usize::try_from(SECTORS).unwrap() * 512]);
    assert_eq!(refused.unwrap_err().class(), FailureClass::Corrupt);
    let (damage, _) = scrub(&history, u64::MAX);
    assert_eq!(lost(&damage), [4]);
}
