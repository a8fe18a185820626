//! What `cargo xtask reliability` measures: whether recovery points are one instant under load, and
//! whether anything is lost when agents end.
//!
//! Real processes on real disks, made for the purpose. Everything is judged by what the writers
//! logged outside of the disks, from the target's store and nothing else. What is found is kept as
//! JSON, one file a measurement, and the tables of the document are written from those files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use benches::{document, figures};
use clap::Parser;
use vm_tests::Rig;

mod contended;
mod database;
mod files;
mod findings;
mod judge;
mod lives;
mod mistakes;
mod overload;
mod stage;
mod steady;

use findings::{Findings, Record};

const COMMAND: &str = "cargo xtask reliability";

/// Make recovery points under load, and judge every one.
#[derive(Parser)]
struct Options {
    /// Only this measurement; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = MEASUREMENTS.map(|of| of.name))]
    only: Vec<String>,
    /// Points of each measurement (or kills, or upgrades), in place of its own number.
    #[arg(long, value_name = "N")]
    points: Option<usize>,
    /// Where the figures are kept.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/reliability"))]
    figures: PathBuf,
    /// The document whose tables are written.
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reliability.md"))]
    report: PathBuf,
}

struct Measurement {
    name: &'static str,
    points: usize,
    measure: fn(&Rig, usize) -> Result<Findings>,
}

const MEASUREMENTS: [Measurement; 7] = [
    Measurement { name: steady::NAME, points: 300, measure: steady::measure },
    Measurement { name: contended::NAME, points: 1000, measure: contended::measure },
    Measurement { name: overload::NAME, points: 20, measure: overload::measure },
    Measurement { name: mistakes::NAME, points: 60, measure: mistakes::measure },
    Measurement { name: database::NAME, points: 20, measure: database::measure },
    Measurement { name: lives::KILLS, points: 1000, measure: lives::kills },
    Measurement { name: lives::UPGRADES, points: 100, measure: lives::upgrades },
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
    for of in MEASUREMENTS.iter().filter(|of| wanted(of.name)) {
        eprintln!("{}", of.name);
        let found = (of.measure)(&rig, options.points.unwrap_or(of.points));
        let kept = found.and_then(|found| keep(&found.at(of.name), &options.figures));
        match kept {
            Ok(true) => {}
            Ok(false) => failed.push(of.name),
            Err(error) => {
                eprintln!("  failed: {error:#}");
                failed.push(of.name);
            }
        }
    }
    write_report(options)?;
    ensure!(failed.is_empty(), "not measured, or below a bar: {}", failed.join(", "));
    Ok(())
}

/// Keeps a record, and shows it; whether every bar was met.
fn keep(record: &Record, directory: &Path) -> Result<bool> {
    for row in &record.rows {
        eprintln!("  {}: {}", row.what, row.found);
    }
    for verdict in &record.verdicts {
        let met = if verdict.met { "met" } else { "MISSED" };
        eprintln!("  {}: {met} ({}; {})", verdict.what, verdict.found, verdict.bar);
    }
    figures::write(directory, &record.name, record)?;
    Ok(record.is_met())
}

fn write_report(options: &Options) -> Result<()> {
    let mut tables = String::new();
    for of in &MEASUREMENTS {
        if let Some(record) = figures::read::<Record>(&options.figures, of.name)? {
            tables.push_str(&record.tables());
        }
    }
    document::write(&options.report, COMMAND, &tables)
}
