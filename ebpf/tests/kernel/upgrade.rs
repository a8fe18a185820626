//! Programs are put in the place of others while disks are written to.

use std::{env, fs, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use blocks::{Bitmap, ByteLen, Extent, Sector};
use ebpf::{Counters, TrackedDisk, Tracking, device};
use vm_tests::{BlockDevice, Image, LoopDisk, LoopSpec, WriteLog, Writer, ZramDisk};

use crate::bench::{Bench, MIB, harvested, open_direct, track, write, writers_at_full_speed};

/// How often, unless `PINNACE_UPGRADES` says otherwise.
const UPGRADES: usize = 4;

const WRITERS: u32 = 4;

fn upgrades() -> Result<usize> {
    let given = env::var("PINNACE_UPGRADES");
    given.map_or(Ok(UPGRADES), |text| text.parse().context("PINNACE_UPGRADES"))
}

/// The only disk that is tracked.
fn only(tracking: &Tracking) -> TrackedDisk {
    tracking.disks().next().expect("one is tracked").clone()
}

/// What one upgrade under load comes to.
struct Outcome {
    tracking: Tracking,
    /// Chunks that were written and not marked.
    missed: Bitmap,
    /// Sectors that were written, and that were counted by either programs.
    written: u64,
    counted: u64,
}

/// Writes at full speed, and has the programs replaced meanwhile.
fn upgrade_under_load(bench: &Bench, device: &BlockDevice, tracking: Tracking) -> Result<Outcome> {
    let before = Image::read(device.path())?;
    let disk = only(&tracking);
    let (geometry, begun) = (disk.spec().geometry, disk.counters()?);
    let mut marked = harvested(&disk);
    drop(disk);
    let log = Arc::new(WriteLog::create(&bench.rig.fresh("log"), 2_000_000)?);
    let writers = writers_at_full_speed(device, WRITERS, Duration::from_secs(20), &log)?;
    let upgraded = tracking.upgrade();
    // For some time with the new ones, after the kernel has detached the old.
    std::thread::sleep(Duration::from_millis(150));
    writers.iter().for_each(Writer::stop);
    writers.into_iter().try_for_each(|writer| writer.finish().map(drop))?;
    device.wait_idle()?;
    let (tracking, behind) = upgraded?;
    let disk = only(&tracking);
    marked.union_with(&harvested(&disk));
    let mut missed = before.changed_chunks(&Image::read(device.path())?, &geometry);
    missed.union_with(&log.chunks(0, &geometry));
    missed.subtract(&marked);
    ensure!(disk.taints().is_empty(), "{}", disk.taints());
    let [(slot, behind)] = behind[..] else { anyhow::bail!("{behind:?}") };
    ensure!(slot == disk.slot(), "the disk is in another slot");
    let completed = |counters: &Counters| counters.completed();
    let counted = completed(&behind) + completed(&disk.counters()?) - completed(&begun);
    let written = log.records().iter().map(|record| record.issue.extent.sectors).sum();
    Ok(Outcome { tracking, missed, written, counted })
}

#[test]
fn under_load_on_zram_no_write_is_missed_and_each_is_counted_once() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(64 * MIB))?;
    let mut tracking = bench.load()?;
    track(&mut tracking, &zram)?;
    ensure!(tracking.is_current(), "they were just loaded");
    let mut writes = 0;
    for upgrade in 1..=upgrades()? {
        let outcome = upgrade_under_load(&bench, &zram, tracking)?;
        let Outcome { missed, written, counted, .. } = &outcome;
        ensure!(missed.is_empty(), "upgrade {upgrade}: {missed:?} missed");
        ensure!(counted == written, "upgrade {upgrade}: {counted} of {written} sectors counted");
        writes += written;
        tracking = outcome.tracking;
        ensure!(tracking.is_current() && tracking.programs()?.len() == 10, "upgrade {upgrade}");
    }
    println!("{} upgrades, {writes} sectors written meanwhile, none missed", upgrades()?);
    drop(tracking);
    bench.take_up()?;
    Ok(())
}

#[test]
fn under_load_on_a_loop_a_write_is_marked_or_the_cross_check_flags_it() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&bench.rig, LoopSpec::new(ByteLen(64 * MIB)))?;
    let mut tracking = bench.load()?;
    track(&mut tracking, &disk)?;
    let kept = || {
        let found = device::probe(disk.path())?;
        anyhow::Ok(found.accounting.kept(&found.statistics()?))
    };
    for upgrade in 1..=upgrades()? {
        let before = kept()?;
        let outcome = upgrade_under_load(&bench, &disk, tracking)?;
        let Outcome { missed, counted, .. } = &outcome;
        let kept = kept()? - before;
        ensure!(*counted <= kept, "upgrade {upgrade}: {counted} counted, {kept} kept");
        ensure!(*counted < kept || missed.is_empty(), "upgrade {upgrade}: {missed:?} missed");
        tracking = outcome.tracking;
    }
    Ok(())
}

/// Whatever an agent that was killed in an upgrade has left, the next one tracks.
#[test]
fn an_upgrade_that_was_cut_short_is_undone_or_ended() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    let mut tracking = bench.load()?;
    track(&mut tracking, &zram)?;
    drop(tracking);
    let pins = bench.pins();
    let file = open_direct(&zram)?;
    for (number, (directory, moved)) in
        (0..).zip([("next", false), ("ready", false), ("ready", true)])
    {
        for kind in ["maps", "programs", "links"] {
            fs::create_dir_all(pins.join(directory).join(kind))?;
        }
        if moved {
            // As if these had been attached beside others, which the same names had before.
            for name in ["bio_queue_1", "bio_complete_3", "rq_complete_2"] {
                let at = |below: &str| pins.join(below).join("links").join(name);
                fs::rename(pins.join("links").join(name), at(directory))?;
            }
        }
        let tracking = bench.take_up()?;
        ensure!(!pins.join(directory).exists(), "{directory} is left");
        ensure!(tracking.programs()?.len() == 10, "a program is not attached");
        write(&file, Extent { start: Sector(number * 8), sectors: 8 }, 1)?;
        ensure!(harvested(&only(&tracking)).words().eq([(0, 1 << number)]), "case {number}");
    }
    Ok(())
}
