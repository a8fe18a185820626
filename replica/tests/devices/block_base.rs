//! A block device as the base of a disk.

use std::{os::unix::fs::symlink, path::Path, process::Command};

use blocks::EpochKind::{Compare, Delta, Seed};
use replica::{AttachError, BaseKind, Completeness, OpenDiskError, Store};
use storage::BlockDevice;

use super::setup::{Loop, Piece, apply, send, skipped, spec};

/// 3 MiB and a bit, on a device of 4 MiB.
const SECTORS: u64 = 6147;
const DEVICE_LEN: usize = 4 << 20;

fn new_store(dir: &Path) -> Store {
    Store::init(dir).unwrap();
    Store::open(dir).unwrap()
}

#[test]
fn a_disk_is_replicated_to_a_device_with_old_content() {
    if skipped() {
        return;
    }
    // Zeroes at sectors that a device of 4096-byte blocks can't zero by itself.
    let seed: [Piece; 4] = [(0, 1000, 1), (1000, 1047, 0), (2047, 2000, 2), (4047, 2100, 0)];
    let delta: [Piece; 4] = [(3, 9, 0), (4096, 4, 3), (4100, 8, 0), (4108, 700, 4)];
    for logical_block in [512, 4096] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let (device, spec) = (Loop::new(DEVICE_LEN, logical_block), spec(SECTORS));
        let store = new_store(&root);
        store.attach_base(spec.id, &device.path).unwrap();
        store.attach_base(spec.id, &device.path).unwrap();
        let disk = store.open_disk(&spec).unwrap();
        assert_eq!(disk.base_path(), device.path);
        assert!(BlockDevice::open(&device.path).is_err(), "the device is ours alone");
        send(&disk, &spec, Seed, &seed).unwrap();
        send(&disk, &spec, Delta, &delta).unwrap();
        drop((disk, store));

        let store = Store::open(&root).unwrap();
        let listed = store.disks().unwrap().remove(0).summary.unwrap();
        assert_eq!((listed.base, &listed.base_path), (BaseKind::Device, &device.path));
        let mut expected = vec![0; DEVICE_LEN];
        expected[usize::try_from(SECTORS).unwrap() * 512..].fill(0xee);
        apply(&mut expected, &seed);
        apply(&mut expected, &delta);
        let disk = store.open_disk(&spec).unwrap();
        while disk.fold_one().unwrap().is_some() {}
        assert!(std::fs::read(&device.path).unwrap() == expected, "blocks of {logical_block}");
        let hashes = disk.hashes(0, 49).unwrap().hashes;
        let blocks = expected[..usize::try_from(SECTORS).unwrap() * 512].chunks(64 * 1024);
        assert!(hashes.iter().copied().eq(blocks.map(|block| *blake3::hash(block).as_bytes())));
        assert!(matches!(store.attach_base(spec.id, &device.path), Err(AttachError::Busy(_))));
        drop(disk);
        let again = store.attach_base(spec.id, &device.path);
        assert!(matches!(again, Err(AttachError::DiskExists(_))));
    }
}

#[test]
fn a_device_that_is_too_short_in_use_or_another_one_is_refused() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(&dir.path().join("store"));
    let (device, other) = (Loop::new(DEVICE_LEN, 512), Loop::new(DEVICE_LEN, 512));
    let name = dir.path().join("device");
    symlink(&device.path, &name).unwrap();
    let longer = spec(DEVICE_LEN as u64 / 512 + 1);
    store.attach_base(longer.id, &name).unwrap();
    let refused = store.open_disk(&longer);
    assert!(matches!(refused, Err(OpenDiskError::ReplicaTooSmall { .. })), "{refused:?}");

    let spec = spec(SECTORS);
    let disk = store.open_disk(&spec).unwrap();
    let state = send(&disk, &spec, Compare, &[(0, 1, 1)]).unwrap();
    assert_eq!(state.completeness, Completeness::Follows);
    drop(disk);
    let held = BlockDevice::open(&device.path).unwrap();
    assert!(store.open_disk(&spec).is_err(), "somebody else has the device");
    drop(held);

    // The name stands for another device after a boot, say.
    std::fs::remove_file(&name).unwrap();
    symlink(&other.path, &name).unwrap();
    let refused = store.open_disk(&spec).unwrap_err().to_string();
    assert!(refused.contains("was attached"), "{refused}");
    assert!(std::fs::read(&other.path).unwrap().iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_mounted_device_is_never_attached() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(&dir.path().join("store"));
    let device = Loop::new(DEVICE_LEN, 512);
    let made = Command::new("mkfs.ext4").arg("-q").arg(&device.path).status().unwrap();
    assert!(made.success());
    let mount_point = dir.path().join("mounted");
    std::fs::create_dir(&mount_point).unwrap();
    let mounted = Command::new("mount").arg(&device.path).arg(&mount_point).status().unwrap();
    assert!(mounted.success());
    let refused = store.attach_base(spec(SECTORS).id, &device.path);
    let unmounted = Command::new("umount").arg(&mount_point).status().unwrap();
    assert!(unmounted.success());
    assert!(matches!(refused, Err(AttachError::Device(_))), "{refused:?}");
    let relative = store.attach_base(spec(SECTORS).id, Path::new("loop0"));
    assert!(matches!(relative, Err(AttachError::RelativePath)));
}
