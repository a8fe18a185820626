//! Pins: they outlive the process, are taken up or refused, and are removed whole.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use anyhow::Result;
use blocks::{ByteLen, Epoch, Extent, Sector, Taint, TaintSet};
use ebpf::{
    AddDiskError, Attached, DirectoryError, LAYOUT_VERSION, LoadError, RemoveDiskError,
    TrackedDisk, Tracking,
};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use vm_tests::{ZramDisk, wait_until};

use crate::bench::{Bench, MIB, harvested, open_direct, pending, polled, spec_of, track, write};

fn block(index: u64) -> Extent {
    Extent { start: Sector(index * 8), sectors: 8 }
}

#[test]
fn tracking_goes_on_without_the_process() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &zram)?;
    let file = open_direct(&zram)?;
    let (slot, spec) = (disk.slot(), *disk.spec());

    write(&file, block(1), 1)?;
    harvested(&disk);
    write(&file, block(2), 1)?;
    disk.acknowledge(Epoch(7));
    disk.keep_baseline([1, 2, 3, u64::MAX]);
    disk.taint(TaintSet::default().with(Taint::StatisticsOff));
    drop((disk, tracking));
    write(&file, block(3), 1)?;

    let mut tracking = bench.take_up()?;
    let disk = tracking.disks().next().expect("it is still there").clone();
    assert_eq!((disk.slot(), *disk.spec()), (slot, spec));
    assert_eq!((disk.acked(), disk.baseline()), (Epoch(7), [1, 2, 3, u64::MAX]));
    assert_eq!(disk.taints(), TaintSet::default().with(Taint::StatisticsOff));
    assert_eq!(disk.counters()?.written, 24);
    assert_eq!(pending(&disk).words().collect::<Vec<_>>(), [(0, 0b10)]);
    assert_eq!(harvested(&disk).words().collect::<Vec<_>>(), [(0, 0b1100)]);
    assert_eq!(pending(&disk).count(), 3);
    assert_eq!(polled(&mut tracking).len(), 3);
    write(&file, block(4), 1)?;
    assert_eq!(harvested(&disk).words().collect::<Vec<_>>(), [(0, 0b10000)]);
    Ok(())
}

#[test]
fn a_disk_is_removed_whole_and_its_slot_starts_anew() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let [one, other] = [(); 2].map(|()| ZramDisk::create(&bench.rig, ByteLen(16 * MIB)));
    let (one, other) = (one?, other?);
    let mut tracking = bench.load()?;
    assert_eq!(tracking.programs()?.len(), 5, "programs for bios are not attached yet");
    let disk = track(&mut tracking, &one)?;
    assert_eq!(tracking.programs()?.len(), 10);
    let again = tracking.add_disk(&spec_of(&one, 2)?);
    assert!(matches!(again, Err(AddDiskError::AlreadyTracked(slot)) if slot == disk.slot()));

    write(&open_direct(&one)?, block(1), 1)?;
    let slot = disk.slot();
    tracking.remove_disk(slot)?;
    assert!(!bench.pins().join("disks").join(slot.0.to_string()).exists());
    assert!(matches!(tracking.remove_disk(slot), Err(RemoveDiskError::NotTracked(_))));
    write(&open_direct(&one)?, block(2), 1)?;
    assert_eq!(disk.counters()?.written, 8, "nothing is counted any more");

    let next = track(&mut tracking, &other)?;
    assert_eq!(next.slot(), slot);
    assert_eq!(next.counters()?, Default::default());
    write(&open_direct(&one)?, block(3), 1)?;
    write(&open_direct(&other)?, block(4), 1)?;
    assert_eq!(harvested(&next).words().collect::<Vec<_>>(), [(0, 0b10000)]);
    assert_eq!(next.counters()?.written, 8);
    Ok(())
}

#[test]
fn another_layout_is_refused_and_left_alone() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    drop(bench.load()?);
    let version = MapHandle::from_pinned_path(bench.pins().join("version"))?;
    let other = u64::from(LAYOUT_VERSION) + 1;
    version.update(&[0; 4], &other.to_le_bytes(), MapFlags::ANY)?;

    let refused = Tracking::open_or_load(&bench.pins());
    assert!(matches!(refused, Err(LoadError::Layout { found }) if found == other));
    assert!(bench.pins().join("links/rq_complete_1").exists());
    Tracking::unload_all(&bench.pins())?;
    assert!(!bench.pins().exists());
    bench.load()?;
    Ok(())
}

#[test]
fn handles_can_be_used_from_other_threads() {
    fn check<T: Send>() {}
    fn check_shared<T: Send + Sync>() {}
    check::<Tracking>();
    check::<ebpf::ConflictTable>();
    check_shared::<TrackedDisk>();
}

#[test]
fn one_process_at_a_time() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let tracking = bench.load()?;
    let second = Tracking::open_or_load(&bench.pins());
    assert!(matches!(second, Err(LoadError::Directory(DirectoryError::Busy(_)))));
    drop(tracking);
    bench.take_up()?;
    Ok(())
}

#[test]
fn a_missing_program_is_a_fresh_start() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    for gone in ["rq_complete_2", "rq_issue_1", "bio_queue_1", "bio_complete_3"] {
        let (mut tracking, attached) = Tracking::open_or_load(&bench.pins())?;
        assert_eq!(attached, Attached::Fresh);
        assert_eq!(tracking.disks().count(), 0);
        track(&mut tracking, &zram)?;
        drop(tracking);
        fs::remove_file(bench.pins().join("links").join(gone))?;
    }
    bench.load()?;
    Ok(())
}

#[test]
fn what_an_interrupted_addition_left_is_swept() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &zram)?;
    drop((disk, tracking));
    // As if the process had been killed before the record was pinned.
    fs::remove_file(bench.pins().join("disks/0/meta"))?;

    let mut tracking = bench.take_up()?;
    assert_eq!(tracking.disks().count(), 0);
    assert!(!bench.pins().join("disks/0").exists());
    write(&open_direct(&zram)?, block(1), 1)?;
    assert!(polled(&mut tracking).is_empty(), "it is tracked no more");
    let disk = track(&mut tracking, &zram)?;
    write(&open_direct(&zram)?, block(2), 1)?;
    assert_eq!(harvested(&disk).words().collect::<Vec<_>>(), [(0, 0b100)]);
    Ok(())
}

#[test]
fn unloading_leaves_nothing() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let mut tracking = bench.load()?;
    let disk = track(&mut tracking, &zram)?;
    tracking.unload()?;
    assert!(!bench.pins().exists());
    // The kernel detaches in its own time.
    let file = open_direct(&zram)?;
    wait_until("no program counts", Duration::from_secs(10), || {
        let before = disk.counters()?;
        write(&file, block(1), 1)?;
        Ok((disk.counters()? == before).then_some(()))
    })
}

#[test]
fn a_directory_elsewhere_is_refused() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let refused = Tracking::open_or_load(&bench.rig.fresh("pins"));
    assert!(matches!(refused, Err(LoadError::Directory(DirectoryError::NotBpf(_)))));
    Ok(())
}

#[test]
fn the_bpf_file_system_is_mounted_where_it_belongs() -> Result<()> {
    let Some(_bench) = Bench::start()? else { return Ok(()) };
    // In a view of the file systems of its own, so that nobody else sees the mount.
    let alone = thread::spawn(|| -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )?;
        while umount2("/sys/fs/bpf", MntFlags::MNT_DETACH).is_ok() {}
        let pins = Path::new(ebpf::DEFAULT_DIRECTORY);
        let (tracking, attached) = Tracking::open_or_load(pins)?;
        assert_eq!(attached, Attached::Fresh);
        drop(tracking);
        let (tracking, attached) = Tracking::open_or_load(pins)?;
        assert_eq!(attached, Attached::Continued);
        Ok(tracking.unload()?)
    });
    alone.join().expect("no panic")
}

#[test]
fn only_direct_loads_are_used() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let _tracking = bench.load()?;
    for program in ["rq_issue_1", "rq_complete_1", "bio_queue_1", "bio_complete_3"] {
        let path = bench.pins().join("programs").join(program);
        let output =
            Command::new("bpftool").args(["prog", "dump", "xlated", "pinned"]).arg(path).output();
        let Ok(output) = output else {
            println!("bpftool is not installed: not checked");
            return Ok(());
        };
        let listing = String::from_utf8(output.stdout)?;
        assert!(listing.contains("call"), "{listing}");
        for forbidden in ["probe_read", "trace_printk"] {
            assert!(!listing.contains(forbidden), "{program} calls {forbidden}");
        }
    }
    Ok(())
}
