//! What `cargo xtask bench` measures, held against what is promised.
//!
//! Each benchmark compares things in one run on one device: they take turns, round after round,
//! and a verdict is on the median of the rounds' ratios. What is found is kept as JSON, one file a
//! benchmark, and the tables of the report are written from those files and from nothing else.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tempfile::TempDir;
use vm_tests::Rig;

mod content;
mod database;
mod delta;
mod initial;
mod installation;
mod memory;
mod points;
mod record;
mod report;
mod resync;
mod rival;
mod tracking;

use benches::{figures, machine::Machine};
use record::{Record, Series, Verdict};

/// Measure Pinnace, against other tools where there are any.
#[derive(Parser)]
struct Options {
    /// Only this benchmark; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = BENCHMARKS.map(|benchmark| benchmark.name))]
    only: Vec<String>,
    /// Rounds of each benchmark, in place of its own number.
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Where the figures are kept.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"))]
    figures: PathBuf,
    /// The document whose tables are written.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance.md"))]
    report: PathBuf,
}

/// A new directory on the file system of the checkout, for what needs a medium: a disk in memory has
/// none to be slow.
pub(crate) fn on_a_medium(name: &str) -> Result<TempDir> {
    const WHERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench");
    std::fs::create_dir_all(WHERE).with_context(|| format!("making {WHERE}"))?;
    TempDir::with_prefix_in(format!("{name}-"), WHERE).context("making a directory")
}

/// Drops what the page cache holds of all files under a directory; they are durable.
pub(crate) fn forget_files(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            forget_files(&entry.path())?;
        } else {
            let file = std::fs::File::open(entry.path())?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
    }
    Ok(())
}

/// What a benchmark has to say.
pub(crate) struct Findings {
    pub(crate) series: Vec<Series>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// How often things take turns.
#[derive(Clone, Copy)]
pub(crate) struct Rounds(usize);

impl Rounds {
    pub(crate) fn numbers(self) -> std::ops::Range<usize> {
        0..self.0
    }

    /// Shows the newest figures.
    pub(crate) fn say(self, round: usize, figures: &[(&str, &[f64])]) {
        let last = |values: &[f64]| values.last().copied().unwrap_or(f64::NAN);
        let words = figures.iter().map(|(name, values)| format!("{name} {:.3}", last(values)));
        eprintln!("  {}/{}: {}", round + 1, self.0, words.collect::<Vec<_>>().join(", "));
    }
}

struct Benchmark {
    name: &'static str,
    rounds: usize,
    measure: fn(&Rig, Rounds) -> Result<Findings>,
}

const BENCHMARKS: [Benchmark; 7] = [
    Benchmark { name: initial::NAME, rounds: 5, measure: initial::measure },
    Benchmark { name: delta::NAME, rounds: 5, measure: delta::measure },
    Benchmark { name: resync::NAME, rounds: 3, measure: resync::measure },
    Benchmark { name: tracking::NAME, rounds: 4, measure: tracking::measure },
    Benchmark { name: memory::NAME, rounds: 1, measure: memory::measure },
    Benchmark { name: points::NAME, rounds: 3, measure: points::measure },
    Benchmark { name: database::NAME, rounds: 5, measure: database::measure },
];

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let Some(rig) = Rig::start()? else { bail!("there is nothing to measure without devices") };
    let wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut failed = Vec::new();
    for benchmark in BENCHMARKS.iter().filter(|benchmark| wanted(benchmark.name)) {
        eprintln!("{}", benchmark.name);
        let rounds = Rounds(options.runs.unwrap_or(benchmark.rounds));
        let measured = (benchmark.measure)(&rig, rounds);
        let kept = measured.and_then(|found| keep(benchmark.name, found, &options.figures));
        if let Err(error) = kept {
            eprintln!("  failed: {error:#}");
            failed.push(benchmark.name);
        }
    }
    write_report(options)?;
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

fn keep(name: &str, findings: Findings, directory: &Path) -> Result<()> {
    let Findings { series, verdicts } = findings;
    let record = Record { name: name.into(), machine: Machine::here(), series, verdicts };
    for verdict in &record.verdicts {
        eprintln!("  {}", report::line(verdict));
    }
    figures::write(directory, &record.name, &record)
}

fn write_report(options: &Options) -> Result<()> {
    let mut records = Vec::new();
    for benchmark in &BENCHMARKS {
        records.extend(figures::read::<Record>(&options.figures, benchmark.name)?);
    }
    report::write(&options.report, &records)
}
