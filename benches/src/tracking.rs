//! What tracking costs the applications: inside the kernel a write, and in writes a second.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, ChunkSize, DiskId, Generation};
use ebpf::cost::{EmptyProgram, Measuring, RunTime};
use ebpf::{DiskClass, DiskSpec, TrackedDisk, Tracking, device};
use serde_json::Value;
use vm_tests::{BlockDevice, LoopDisk, LoopSpec, Mounted, Rig, ZramDisk};

use crate::record::{Bar, Series, Unit, Verdict};
use crate::{Findings, Rounds};

pub(crate) const NAME: &str = "tracking";
const LEN: ByteLen = ByteLen(1 << 30);
/// So small that after a moment every write hits a chunk that is marked.
const HOT: ByteLen = ByteLen(16 << 20);
/// One look at the programs' clocks. Some thousand writes: few of them hit a chunk twice in [`LEN`].
const WINDOW: Duration = Duration::from_millis(50);
const WARM_UP: Duration = Duration::from_millis(500);
/// The least that is a measurement.
const RUNS_MIN: u64 = 500;
/// A load whose windows are looked at.
const LOAD: Duration = Duration::from_secs(3);
/// How long writes are counted with the disk tracked, and without: short, and often, in one load that
/// goes on all the while, since a machine's speed drifts by more than what is looked for. Each begins
/// with nothing marked, so it has more first writes than five seconds of it would have, which is how
/// often the agent sweeps the bitmap.
const TURN: Duration = Duration::from_millis(600);
/// What attaching and detaching disturbs.
const SETTLE: Duration = Duration::from_millis(150);
const TURNS_A_ROUND: usize = 5;
/// Longer than all turns take; it is ended then.
const ENDLESS: Duration = Duration::from_secs(3600);
/// How often the ring is drained meanwhile, as the agent does.
const DRAIN_EVERY: Duration = Duration::from_millis(20);

/// Measures it.
pub(crate) fn measure(rig: &Rig, rounds: Rounds) -> Result<Findings> {
    let bpf = Mounted::bpf(rig)?;
    let pins = bpf.path().join("pinnace");
    let on_loop = LoopDisk::create(rig, LoopSpec::new(LEN))?;
    let on_zram = ZramDisk::create(rig, LEN)?;
    let on_requests = programs(&pins, &on_loop, REQUEST_HOOKS, rounds)?;
    let on_bios = programs(&pins, &on_zram, BIO_HOOKS, rounds)?;
    let bar = |what, values, most| Verdict::new(what, Unit::Nanoseconds, values, Bar::AtMost(most));
    let verdicts = vec![
        bar("the chunk is marked already", &on_requests.hot.complete, 25.0),
        bar("the chunk's first write", &on_requests.cold.complete, 60.0),
    ];
    let mut findings = Findings { series: Vec::new(), verdicts };
    findings.series.extend(on_requests.series("request"));
    findings.series.extend(on_bios.series("bio"));
    for (name, device) in [("loop", &*on_loop), ("zram", &*on_zram)] {
        // The first writes to a disk allocate what is under it.
        fio(device, LEN, LOAD)?.writes_per_second()?;
        let speeds = speeds(&pins, device, rounds)?;
        let series = |what: &str, unit, values: Vec<f64>| {
            Series::new(&format!("{name}: {what}"), unit, values)
        };
        let writes = |what, values| series(what, Unit::OperationsPerSecond, values);
        let with = writes("4 KiB random writes, tracked", speeds.tracked);
        let without = writes("4 KiB random writes, nothing attached", speeds.without);
        let what = format!("{name}: tracked over nothing attached");
        let ratio = Verdict::new(&what, Unit::Ratio, &with.over(&without), Bar::AtLeast(0.97));
        let empty = "as many programs that do nothing, over nothing attached";
        findings.series.extend([with, without, series(empty, Unit::Ratio, speeds.empty_over)]);
        findings.verdicts.push(ratio);
    }
    Ok(findings)
}

/// The programs that run when a write to a disk of a class is issued, and when it is done.
#[derive(Clone, Copy)]
struct Hooks {
    issue: &'static str,
    complete: &'static str,
}

const REQUEST_HOOKS: Hooks = Hooks { issue: "rq_issue", complete: "rq_complete" };
const BIO_HOOKS: Hooks = Hooks { issue: "bio_queue", complete: "bio_complete" };

/// What the programs on one path cost.
struct Programs {
    hot: Windows,
    cold: Windows,
}

impl Programs {
    fn series(self, path: &str) -> [Series; 4] {
        let series = |what: &str, values| {
            Series::new(&format!("{path} path, net a run: {what}"), Unit::Nanoseconds, values)
        };
        [
            series("done, the chunk is marked already", self.hot.complete),
            series("done, the chunk's first write", self.cold.complete),
            series("issued, the chunk is noted already", self.hot.issue),
            series("issued, the first since a flip", self.cold.issue),
        ]
    }
}

/// Nanoseconds a run of the programs on one path, net of an empty program's; the copies of a program
/// count as one.
fn programs(pins: &Path, device: &BlockDevice, hooks: Hooks, rounds: Rounds) -> Result<Programs> {
    let _measuring = Measuring::start()?;
    let (mut tracking, _) = Tracking::open_or_load(pins)?;
    let disk = track(&mut tracking, device)?;
    let mut conflicts = tracking.conflicts().context("nobody else takes cuts")?;
    let empty = EmptyProgram::attach(disk.spec().class)?;
    let (mut hot, mut cold) = (Windows::default(), Windows::default());
    for round in rounds.numbers() {
        hot.look((&mut tracking, &empty, hooks), fio(device, HOT, LOAD)?, |_| ())?;
        let forget = |tracking: &mut Tracking| {
            conflicts.flip();
            drain(tracking, &disk);
        };
        cold.look((&mut tracking, &empty, hooks), fio(device, LEN, LOAD)?, forget)?;
        rounds.say(round, &[("hot ns", &hot.complete), ("cold ns", &cold.complete)]);
    }
    drop(disk);
    tracking.unload()?;
    Ok(Programs { hot, cold })
}

/// Net nanoseconds a run, a figure a window.
#[derive(Default)]
struct Windows {
    complete: Vec<f64>,
    issue: Vec<f64>,
}

impl Windows {
    /// Adds the windows of a load; `before` is called before each.
    fn look(
        &mut self,
        (tracking, empty, hooks): (&mut Tracking, &EmptyProgram, Hooks),
        load: Fio,
        mut before: impl FnMut(&mut Tracking),
    ) -> Result<()> {
        sleep(WARM_UP);
        let began = Instant::now();
        while began.elapsed() + 2 * (WARM_UP + WINDOW) < LOAD {
            before(tracking);
            let look = || -> Result<_> {
                let of = |hook| spent(tracking, hook);
                Ok([empty.run_time()?, of(hooks.complete)?, of(hooks.issue)?])
            };
            let start = look()?;
            sleep(WINDOW);
            let [none, complete, issue] = difference(start, look()?);
            if none.runs >= RUNS_MIN && complete.runs >= RUNS_MIN && issue.runs >= RUNS_MIN {
                self.complete.push(per_run(complete) - per_run(none));
                self.issue.push(per_run(issue) - per_run(none));
            }
        }
        load.writes_per_second()?;
        ensure!(!self.complete.is_empty(), "too few writes reach the programs to measure them");
        Ok(())
    }
}

/// What the programs at a hook have spent.
fn spent(tracking: &Tracking, hook: &str) -> Result<RunTime> {
    let programs = tracking.programs()?.into_iter();
    let on_path = programs.filter(|program| program.name.starts_with(hook));
    let none = RunTime { time: Duration::ZERO, runs: 0 };
    Ok(on_path.fold(none, |sum, program| RunTime {
        time: sum.time + program.run_time.time,
        runs: sum.runs + program.run_time.runs,
    }))
}

fn difference<const N: usize>(start: [RunTime; N], end: [RunTime; N]) -> [RunTime; N] {
    std::array::from_fn(|i| RunTime {
        time: end[i].time - start[i].time,
        runs: end[i].runs - start[i].runs,
    })
}

fn per_run(spent: RunTime) -> f64 {
    spent.nanoseconds_per_run().unwrap_or(f64::NAN)
}

/// Writes a second. What is compared with nothing attached is compared with the mean of what was before
/// and after, so that a drift cancels out.
#[derive(Default)]
struct Speeds {
    tracked: Vec<f64>,
    /// Beside `tracked`.
    without: Vec<f64>,
    /// With as many empty programs as tracking attaches: what the way to a program costs. A ratio.
    empty_over: Vec<f64>,
}

fn speeds(pins: &Path, device: &BlockDevice, rounds: Rounds) -> Result<Speeds> {
    let mut speeds = Speeds::default();
    let _load = fio(device, LEN, ENDLESS)?;
    sleep(WARM_UP);
    let mut before = speed(device, || ())?;
    for round in rounds.numbers() {
        for _ in 0..TURNS_A_ROUND {
            let tracked = tracked_speed(pins, device)?;
            let between = speed(device, || ())?;
            let empty = empty_speed(device)?;
            let after = speed(device, || ())?;
            speeds.tracked.push(tracked);
            speeds.without.push(f64::midpoint(before, between));
            speeds.empty_over.push(empty / f64::midpoint(between, after));
            before = after;
        }
        let (with, without) = (&speeds.tracked, &speeds.without);
        let figures: [(&str, &[f64]); 3] =
            [("tracked", with), ("not", without), ("empty over", &speeds.empty_over)];
        rounds.say(round, &figures);
    }
    Ok(speeds)
}

fn tracked_speed(pins: &Path, device: &BlockDevice) -> Result<f64> {
    let (mut tracking, _) = Tracking::open_or_load(pins)?;
    track(&mut tracking, device)?;
    let speed = speed(device, || {
        tracking.poll_ring(&mut |_| ());
    })?;
    tracking.unload()?;
    Ok(speed)
}

/// With as many programs as a write to a disk of this class runs through, all of them empty.
fn empty_speed(device: &BlockDevice) -> Result<f64> {
    let class = device::probe(device.path())?.class;
    let programs = match class {
        DiskClass::RequestBased | DiskClass::Multipath => 4,
        DiskClass::BioBased => 5,
    };
    let attached = (0..programs).map(|_| EmptyProgram::attach(class));
    let attached = attached.collect::<Result<Vec<_>, _>>()?;
    let speed = speed(device, || ());
    drop(attached);
    speed
}

/// Blocks written a second during one turn.
fn speed(device: &BlockDevice, mut meanwhile: impl FnMut()) -> Result<f64> {
    let mut pass = |time: Duration| {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(DRAIN_EVERY);
            meanwhile();
        }
    };
    pass(SETTLE);
    let (began, before) = (Instant::now(), device.statistics()?);
    pass(TURN);
    let sectors = device.statistics()?.changed_since(&before);
    ensure!(sectors > 0, "fio has ended");
    Ok(sectors as f64 / 8.0 / began.elapsed().as_secs_f64())
}

fn track(tracking: &mut Tracking, device: &BlockDevice) -> Result<TrackedDisk> {
    let found = device::probe(device.path())?;
    let slot = tracking.add_disk(&DiskSpec {
        id: DiskId([7; 16]),
        generation: Generation([7; 16]),
        number: found.number,
        class: found.class,
        geometry: found.geometry(ChunkSize::DEFAULT)?,
        sequence: found.sequence,
    })?;
    tracking.disk(slot).cloned().context("a disk that was just added")
}

fn drain(tracking: &mut Tracking, disk: &TrackedDisk) {
    tracking.poll_ring(&mut |_| ());
    disk.harvest(&mut |_, _| ());
    // Nothing is shipped here, so nothing else takes the pending bits away.
    let pending: Vec<(u64, u64)> = disk.pending().collect();
    pending.into_iter().for_each(|(word, bits)| disk.drop_pending(word, bits));
}

/// A run of fio; dropped, it is killed if it still runs.
struct Fio {
    child: Child,
}

/// Random writes of 4 KiB to the first `area` of a disk.
fn fio(device: &BlockDevice, area: ByteLen, duration: Duration) -> Result<Fio> {
    let mut command = Command::new("fio");
    command.args(["--name=bench", "--rw=randwrite", "--bs=4k", "--direct=1", "--norandommap"]);
    command.args(["--ioengine=io_uring", "--iodepth=32", "--time_based", "--output-format=json"]);
    // A job that is a process of its own would outlive fio when that is killed.
    command.arg("--thread");
    command.arg(format!("--filename={}", device.path().display()));
    command.arg(format!("--size={}", area.0));
    command.arg(format!("--runtime={}", duration.as_secs()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(Fio { child: command.spawn().context("starting fio")? })
}

impl Fio {
    /// Waits for its end.
    fn writes_per_second(mut self) -> Result<f64> {
        let output = self.child.stdout.take().context("the output of fio")?;
        let report: Value = serde_json::from_reader(output).context("the report of fio")?;
        ensure!(self.child.wait().context("waiting for fio")?.success(), "fio failed");
        report["jobs"][0]["write"]["iops"].as_f64().context("fio counted no writes")
    }
}

impl Drop for Fio {
    fn drop(&mut self) {
        // Both fail only once it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
