//! What protection costs a database: transactions a second of pgbench, with and without.
//!
//! The disk lies in memory, so that the processors are all there is to wait for, and whatever the
//! agent does is taken from the database. What a target does is none of the source's concern: it
//! gets what is left, and once more as much as everybody else, to show what that costs.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::postgres::{self, Server};
use blocks::ByteLen;
use vm_tests::{BlockDevice, Daemon, Filesystem, Mounted, Rig, ZramDisk};

use crate::installation::{Installation, Target};
use crate::record::{Bar, Series, Unit, Verdict};
use crate::{Findings, Rounds};

pub(crate) const NAME: &str = "postgres";
const DISK: ByteLen = ByteLen(2 << 30);
/// The interval of points is the default; it is named, since it is what is measured.
const SETTINGS: &str = "[policy]\npoint_interval = \"5s\"\n";
const CLIENTS: &str = "--client=4";
const LOAD: Duration = Duration::from_secs(11);
const WARM_UP: Duration = Duration::from_secs(4);
/// That are cut in a load at least.
const POINTS: usize = 2;
/// Of the kernel's clock for this, the same for all programs.
const TICK_MILLIS: u64 = 10;
const ARRIVAL: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(60);

/// What loads came to, a figure each.
#[derive(Default)]
struct Loads {
    /// A second.
    transactions: Vec<f64>,
    /// Of the agent and of the target, in seconds a second.
    processor: [Vec<f64>; 2],
    points: Vec<usize>,
}

/// Measures it.
pub(crate) fn measure(rig: &Rig, rounds: Rounds) -> Result<Findings> {
    let disk = ZramDisk::create(rig, DISK)?;
    Filesystem::Ext4.make(&disk)?;
    let mounted = Mounted::mount(rig, &disk, Filesystem::Ext4, "")?;
    postgres::initialise(rig, &mounted)?;
    let server = Server::start(rig, &mounted, &[])?;
    server.run("pgbench", &["--initialize", "--scale=10", "--quiet"])?;
    // What is written for the first time costs more.
    transactions(&server, WARM_UP)?;
    let [mut without, mut slow, mut at_speed] = <[Loads; 3]>::default();
    for round in rounds.numbers() {
        // Who is first takes turns too.
        for turn in 0..3 {
            match (round + turn) % 3 {
                0 => without.transactions.push(transactions(&server, LOAD)?),
                1 => slow.protected(rig, (&server, &disk), Target::Slow)?,
                _ => at_speed.protected(rig, (&server, &disk), Target::AtSpeed)?,
            }
        }
        rounds.say(
            round,
            &[
                ("without", &without.transactions),
                ("slow target", &slow.transactions),
                ("target at speed", &at_speed.transactions),
                ("agent", &slow.processor[0]),
                ("slow target's", &slow.processor[1]),
                ("agent, target at speed", &at_speed.processor[0]),
                ("target's", &at_speed.processor[1]),
            ],
        );
    }
    server.stop()?;
    Ok(findings(without, slow, at_speed))
}

impl Loads {
    /// Adds a load while the disk is protected, and points are cut.
    fn protected(
        &mut self,
        rig: &Rig,
        (server, disk): (&Server, &BlockDevice),
        target: Target,
    ) -> Result<()> {
        let installation = Installation::start_with(rig, SETTINGS, target)?;
        installation.replicate(disk.name(), LIMIT)?;
        let daemons = [&installation.agent, &installation.target];
        let times = || -> Result<[Duration; 2]> {
            Ok([processor_time(daemons[0])?, processor_time(daemons[1])?])
        };
        let (before, began, since) = (times()?, Instant::now(), jiff::Timestamp::now());
        self.transactions.push(transactions(server, LOAD)?);
        let (after, took, until) = (times()?, began.elapsed(), jiff::Timestamp::now());
        for (spent, times) in self.processor.iter_mut().zip(before.into_iter().zip(after)) {
            spent.push((times.1 - times.0).div_duration_f64(took));
        }
        // What was cut last may still be on its way.
        sleep(ARRIVAL);
        let made = installation.points()?;
        let made = made.iter().filter(|cut| (since..until).contains(*cut)).count();
        ensure!(made >= POINTS, "{made} points in {took:?}: {}", installation.status()?);
        self.points.push(made);
        installation.ask(&["unprotect", disk.name(), "--yes"]).map(drop)
    }
}

/// Transactions a second, from a state that is the same each time: all of it is on the disk, so
/// that every page is logged whole at its first change.
fn transactions(server: &Server, time: Duration) -> Result<f64> {
    server.query("CHECKPOINT")?;
    let time = format!("--time={}", time.as_secs());
    let said = server.run("pgbench", &[CLIENTS, "--jobs=2", &time])?;
    let figure = said.lines().find_map(|line| line.strip_prefix("tps = "));
    let figure = figure.and_then(|figure| figure.split(' ').next()?.parse().ok());
    figure.with_context(|| format!("pgbench counted nothing: {said}"))
}

/// What a process has had of the processors.
fn processor_time(daemon: &Daemon) -> Result<Duration> {
    let id = daemon.id().context("a daemon has ended")?;
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).context("a daemon's statistics")?;
    // The name, in parentheses, may hold anything; after it come the fields from the third on.
    let fields = stat.rsplit_once(')').context("the name of a daemon")?.1.split_whitespace();
    let ticks: Vec<u64> = fields.skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 2, "the kernel tells no times of a daemon");
    Ok(Duration::from_millis(ticks.iter().sum::<u64>() * TICK_MILLIS))
}

fn findings(without: Loads, slow: Loads, at_speed: Loads) -> Findings {
    let points = [&slow, &at_speed].map(|loads| loads.points.iter().min().copied());
    let [fewest, fewest_at_speed] = points.map(Option::unwrap_or_default);
    let series = |label: &str, values| Series::new(label, Unit::OperationsPerSecond, values);
    let share = |label: &str, values| Series::new(label, Unit::Ratio, values);
    let without = series("transactions, nothing protected", without.transactions);
    let [agent, target] = slow.processor;
    let words = format!("transactions, a point every 5 s ({fewest} a load at least), slow target");
    let protected = series(&words, slow.transactions);
    let of_slow = [
        share("processors used by the agent meanwhile", agent),
        share("by the slow target", target),
    ];
    let [agent, target] = at_speed.processor;
    let words = format!("transactions, the same ({fewest_at_speed}), agent and target at speed");
    let beside = series(&words, at_speed.transactions);
    let of_beside = [
        share("processors used by the agent meanwhile", agent),
        share("by the target at speed", target),
    ];
    let verdicts = vec![Verdict::new(
        "protected over not, shipping to a slow target",
        Unit::Ratio,
        &protected.over(&without),
        Bar::AtLeast(0.95),
    )];
    let everything =
        share("protected over not, everything on the same processors", beside.over(&without));
    let mut series = vec![without, protected];
    series.extend(of_slow);
    series.push(beside);
    series.extend(of_beside);
    series.push(everything);
    Findings { series, verdicts }
}
