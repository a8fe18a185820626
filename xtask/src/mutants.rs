//! Deliberate mistakes, and who notices them: the simulator, the tests of the room in which each is
//! made, and real processes on real disks.
//!
//! A mistake that only one kind of test notices is one defect of that test away from passing. So at
//! least [`TWICE`] of them have to be noticed by two kinds, none by none, and the tests that notice
//! them have to pass without.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    Consent,
    command::{Ran, built, cargo, command, read, run as run_command},
    packages::Purpose,
    reliability::{self, Table},
    setup,
    test::with_devices,
};

/// What is asked of the mutants.
#[derive(Args)]
pub(crate) struct Mutants {
    #[command(flatten)]
    consent: Consent,
    /// Seeds after which the simulator counts as not noticing a mistake.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
}

/// How many mistakes have to be noticed by two kinds of tests at least.
const TWICE: usize = 10;

/// Mistakes of `blocks::Mutant`, and the tests of which room have to fail because of them.
const IN_ROOMS: [(&str, Tests); 13] = [
    ("RingOverflowIgnored", Tests::of("tracker")),
    ("AbortForgets", Tests::of("tracker")),
    ("DeficitIgnored", Tests::of("tracker")),
    ("UncleanStopIgnored", Tests::of("tracker")),
    ("PassEndsEarly", Tests::of("tracker")),
    ("ConflictIgnored", Tests::of("tracker")),
    ("SkippedProgramIgnored", Tests::of("tracker")),
    ("NonceReused", Tests::of("wire")),
    ("FlipNotSynced", Tests::of("storage")),
    ("AckBeforeSync", CRASHES),
    ("FlipBeforeName", CRASHES),
    ("FoldedOutOfOrder", CRASHES),
    ("FoldNotSynced", CRASHES),
];

/// The store at every crash of a short life.
const CRASHES: Tests = Tests { room: "replica", filter: "tests::crash::" };

/// Mistakes of the agent's cuts: how the tests of real processes call them. The model of a cut in
/// `tracker/` makes all of them but the last too.
const IN_CUTS: [(&str, &str); 6] = [
    ("NoLook", "the_table_is_not_asked"),
    ("InstantBeforeFlip", "the_instant_is_taken_before_the_flip"),
    ("HarvestBeforeFlip", "the_harvest_is_made_before_the_flip"),
    ("LookBeforeRead", "the_look_comes_before_the_read"),
    ("ClearedAfterRead", "bits_are_cleared_after_the_read"),
    ("SummaryBehindBit", "dirty_bits_are_found_by_a_summary_that_comes_after_them"),
];
const MODEL: &str = "each_mistake_makes_points_that_are_none";

/// Unit and property tests of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tests {
    room: &'static str,
    filter: &'static str,
}

impl Tests {
    const fn of(room: &'static str) -> Self {
        Self { room, filter: "" }
    }

    /// Runs them with a mistake, or without one.
    fn run(self, mistake: Option<&str>) -> Result<Ran> {
        let mut tests = cargo(&["test", "--package", self.room, "--lib"]);
        tests.args(["--features", "blocks/mutants", "--", self.filter]);
        tests.envs(mistake.map(|name| ("PINNACE_MUTANT", name)));
        read(&mut tests)
    }
}

/// Who notices a mistake, in words, by kind of test; nothing if it was not asked.
#[derive(Default)]
struct Noticed {
    simulator: Option<String>,
    room: Option<String>,
    processes: Option<String>,
}

impl Noticed {
    fn times(&self) -> usize {
        [&self.simulator, &self.room, &self.processes].into_iter().flatten().count()
    }
}

/// The task `mutants`.
pub(crate) fn run(wanted: &Mutants) -> Result<()> {
    setup::ensure_installed(Purpose::Test, wanted.consent)?;
    let mut noticed = BTreeMap::new();
    simulate(wanted.seeds, &mut noticed)?;
    ask_rooms(&mut noticed)?;
    ask_processes(&mut noticed)?;
    let twice = noticed.values().filter(|who| who.times() >= 2).count();
    let mut table = Table::new(["mistake", "simulator", "tests of the room", "real processes"]);
    for (name, Noticed { simulator, room, processes }) in &noticed {
        let cell = |who: &Option<String>| who.clone().unwrap_or_default();
        table.row(&[format!("`{name}`"), cell(simulator), cell(room), cell(processes)]);
    }
    let summary = format!("{} mistakes; noticed by two kinds of tests: {twice}.\n", noticed.len());
    reliability::write("cargo xtask mutants", &format!("{summary}\n{table}"))?;
    let unnoticed: Vec<_> = noticed.iter().filter(|(_, who)| who.times() == 0).collect();
    let unnoticed: Vec<_> = unnoticed.into_iter().map(|(name, _)| name.as_str()).collect();
    ensure!(unnoticed.is_empty(), "nobody notices {}", unnoticed.join(", "));
    ensure!(twice >= TWICE, "only {twice} of {TWICE} mistakes are noticed twice");
    Ok(())
}

/// Every mistake of `blocks::Mutant`, seed after seed.
fn simulate(seeds: u64, noticed: &mut BTreeMap<String, Noticed>) -> Result<()> {
    let build = ["build", "--release", "--package", "sim", "--features", "sim/mutants"];
    run_command(&mut cargo(&build)).context("building the simulator")?;
    let mut sim = command(built("release").join("sim"));
    let ran = read(sim.args(["mutants", "--seeds", &seeds.to_string()]))?;
    for line in ran.printed.lines() {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        let who: &mut Noticed = noticed.entry(name.into()).or_default();
        if let Some((_, rest)) = line.split_once("noticed at seed ") {
            let seed = rest.split(':').next().unwrap_or(rest);
            who.simulator = Some(format!("seed {}", seed.trim()));
        }
    }
    ensure!(noticed.len() >= IN_ROOMS.len(), "the simulator tells of {} mistakes", noticed.len());
    Ok(())
}

/// Tests that know nothing of a mistake, with it and without.
fn ask_rooms(noticed: &mut BTreeMap<String, Noticed>) -> Result<()> {
    let mut all: Vec<Tests> = IN_ROOMS.iter().map(|(_, tests)| *tests).collect();
    all.sort_unstable();
    all.dedup();
    for tests in all {
        ensure!(tests.run(None)?.succeeded, "tests of {} fail without a mistake", tests.room);
    }
    for (name, tests) in IN_ROOMS {
        let who = noticed.get_mut(name).with_context(|| format!("no mistake is called {name}"))?;
        let ran = tests.run(Some(name))?;
        who.room = ran.first_failed().map(|test| format!("`{}`: {test}", tests.room));
    }
    Ok(())
}

/// Mistakes in the cuts of a real agent, which the judge has to find; and in the model of a cut.
fn ask_processes(noticed: &mut BTreeMap<String, Noticed>) -> Result<()> {
    let mut model = cargo(&["test", "--package", "tracker", "--lib"]);
    let model = read(model.args(["--", MODEL]))?;
    let mut tests = cargo(&["test", "--package", "pinnace", "--test", "cuts"]);
    tests.args(["--features", "mutants", "--", "--nocapture"]);
    tests.args(["--test-threads=1", "mistakes::"]);
    let ran = read(with_devices(&mut tests)?)?;
    for (name, test) in IN_CUTS {
        let who = noticed.entry(format!("cut: {name}")).or_default();
        if model.passed(MODEL) && name != "SummaryBehindBit" {
            who.room = Some(format!("`tracker`: {MODEL}"));
        }
        who.processes = ran.passed(test).then(|| test.replace('_', " "));
    }
    // Whoever looks for the binary next finds one that makes no mistake.
    run_command(&mut cargo(&["build", "--package", "pinnace"])).context("building")
}
