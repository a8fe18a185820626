//! What the programs cost. Prints; the bounds it asserts are wide, for machines that are busy.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use blocks::{ByteLen, Extent, Sector};
use ebpf::{
    Tracking,
    cost::{EmptyProgram, Measuring, RunTime},
};
use vm_tests::{
    After, BlockDevice, Load, LoopDisk, LoopSpec, Method, Target, WriteLog, Writer, ZramDisk,
};

use crate::bench::{Bench, MIB, open_direct, spec_of, write};

/// A window of one measurement. The median over several is told: others use the machine too.
const WINDOW: Duration = Duration::from_millis(50);
const WINDOWS: u32 = 20;

/// Net nanoseconds a run of each program, while 4 KiB blocks are written. `between` is called
/// between the windows.
fn measure(
    bench: &Bench,
    device: &BlockDevice,
    tracking: &mut Tracking,
    between: fn(&mut Tracking),
) -> Result<Vec<(String, f64)>> {
    let log = Arc::new(WriteLog::create(&bench.rig.fresh("log"), 2_000_000)?);
    let load = Load {
        method: Method::Ring,
        seed: 1,
        smallest: ByteLen(4096),
        largest: ByteLen(4096),
        after: After::Elapsed(WINDOW * (WINDOWS + 4)),
    };
    let class = spec_of(device, 1)?.class;
    let empty = EmptyProgram::attach(class)?;
    let writer = Writer::start(&Target::whole(0, device), 1, load, &log)?;
    let began = Instant::now();
    let mut windows = Vec::new();
    let mut clocks = Vec::new();
    while began.elapsed() < WINDOW * WINDOWS {
        between(tracking);
        let before = (empty.run_time()?, tracking.programs()?);
        thread::sleep(WINDOW);
        let after = (empty.run_time()?, tracking.programs()?);
        let clock = per_run(before.0, after.0);
        clocks.push(vec![clock]);
        let programs = before.1.iter().zip(&after.1);
        windows.push(
            programs
                .map(|(before, after)| per_run(before.run_time, after.run_time) - clock)
                .collect::<Vec<_>>(),
        );
    }
    writer.finish()?;
    println!("measuring alone takes {:.1} ns a run", median(&clocks, 0));
    let programs = tracking.programs()?.into_iter().enumerate();
    Ok(programs.map(|(index, program)| (program.name, median(&windows, index))).collect())
}

fn per_run(before: RunTime, after: RunTime) -> f64 {
    let spent = RunTime { time: after.time - before.time, runs: after.runs - before.runs };
    spent.nanoseconds_per_run().unwrap_or(f64::NAN)
}

fn median(windows: &[Vec<f64>], program: usize) -> f64 {
    let mut values: Vec<f64> = windows.iter().map(|window| window[program]).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn sweep(tracking: &mut Tracking) {
    tracking.poll_ring(&mut |_| ());
    tracking.disks().for_each(|disk| disk.harvest(&mut |_, _| ()));
}

fn compare(bench: &Bench, device: &BlockDevice) -> Result<()> {
    let _measuring = Measuring::start()?;
    let mut tracking = bench.load()?;
    tracking.add_disk(&spec_of(device, 1)?)?;
    // The first pass sets the bits.
    measure(bench, device, &mut tracking, |_| ())?;
    let hot = measure(bench, device, &mut tracking, |_| ())?;
    let cold = measure(bench, device, &mut tracking, sweep)?;
    for ((name, hot), (_, cold)) in hot.iter().zip(&cold) {
        println!("{}: {name}: net hot {hot:.1} ns, cold {cold:.1} ns", device.name());
        assert!(!(*hot > 1000.0 || *cold > 2000.0), "far beyond what was ever measured");
    }
    Ok(())
}

#[test]
fn on_a_request_based_disk() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&bench.rig, LoopSpec::new(ByteLen(16 * MIB)))?;
    compare(&bench, &disk)
}

#[test]
fn on_a_bio_based_disk() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let disk = ZramDisk::create(&bench.rig, ByteLen(16 * MIB))?;
    compare(&bench, &disk)
}

/// How long a harvest takes of disks with a few chunks marked, as at a cut.
#[test]
fn harvests() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    for (id, len) in (1..).zip([16 * MIB, 4096 * MIB, 16 * 1024 * MIB]) {
        // Sparse: only what is written takes memory.
        let zram = ZramDisk::create(&bench.rig, ByteLen(len))?;
        let mut tracking = Tracking::open_or_load(&bench.pins())?.0;
        let slot = tracking.add_disk(&spec_of(&zram, id)?)?;
        let disk = tracking.disk(slot).expect("just added").clone();
        let file = open_direct(&zram)?;
        let mut times = Vec::new();
        for round in 0..25 {
            let step = disk.spec().geometry.chunks() / 256;
            for i in 0..256 {
                let start = Sector((i * step + round % step) * 8);
                write(&file, Extent { start, sectors: 8 }, 1)?;
            }
            let began = Instant::now();
            let mut words = 0;
            disk.harvest(&mut |_, _| words += 1);
            times.push(began.elapsed());
            assert!(words > 0, "something was marked");
        }
        times.sort_unstable();
        println!("{} MiB: median {:?}, most {:?}", len / MIB, times[12], times[24]);
        assert!(times[12] < Duration::from_millis(50), "far beyond what was ever measured");
        tracking.remove_disk(slot)?;
    }
    Ok(())
}
