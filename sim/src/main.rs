//! `sim`: runs seeds, replays one, or shows that deliberate mistakes are noticed.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sim::{Keep, OnFailure};

#[derive(Parser)]
#[command(name = "sim", about = "Deterministic simulation of the whole pipeline")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Replay one seed.
    Run {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Print everything that happened.
        #[arg(long)]
        trace: bool,
    },
    /// Run many seeds on all processors.
    Seeds {
        /// How many.
        #[arg(long, default_value_t = 5000)]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// End at the first failure.
        #[arg(long)]
        stop: bool,
    },
    /// Make each deliberate mistake in turn, and show at which seed it was noticed.
    #[cfg(feature = "mutants")]
    Mutants {
        /// Seeds after which a mistake counts as unnoticed.
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// Only this one.
        #[arg(long)]
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { seed, trace } => replay(seed, trace),
        Command::Seeds { seeds, from, stop } => many(from..from + seeds, stop),
        #[cfg(feature = "mutants")]
        Command::Mutants { seeds, only } => mutants(seeds, only.as_deref()),
    }
}

fn replay(seed: u64, trace: bool) -> ExitCode {
    let outcome = sim::run(seed, if trace { Keep::Lines } else { Keep::Hash });
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!(
        "seed {seed}: {} events, {} replicas checked, faults: {}, trace {:016x}",
        outcome.events,
        outcome.replicas_checked,
        outcome.faults.join(", "),
        outcome.hash
    );
    match outcome.failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            println!("FAILED: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn many(seeds: std::ops::Range<u64>, stop: bool) -> ExitCode {
    let on_failure = if stop { OnFailure::Stop } else { OnFailure::GoOn };
    let summary = sim::run_many(seeds, None, on_failure);
    // In the words that `cargo xtask figures` gathers.
    println!("figure: simulated runs: {}", summary.runs);
    println!("figure: crashes and other faults in them: {}", summary.faults.values().sum::<u64>());
    println!("figure: replicas checked whole: {}", summary.replicas_checked);
    println!("figure: points checked: {}", summary.points_checked);
    println!("figure: views of points read whole: {}", summary.views_checked);
    println!("figure: simulated runs that failed: {}", summary.failed.len());
    summary.faults.iter().for_each(|(fault, count)| println!("  {count:>8} {fault}"));
    for (seed, failure) in &summary.failed {
        println!("seed {seed} FAILED: {failure}");
    }
    if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(feature = "mutants")]
fn mutants(seeds: u64, only: Option<&str>) -> ExitCode {
    let mut unnoticed = 0;
    for mutant in blocks::Mutant::ALL {
        let name = format!("{mutant:?}");
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let summary = sim::run_many(0..seeds, Some(mutant), OnFailure::Stop);
        if let Some((seed, failure)) = summary.failed.first_key_value() {
            println!("{name:<22} noticed at seed {seed:>4}: {failure}");
        } else {
            unnoticed += 1;
            println!("{name:<22} NOT NOTICED in {seeds} seeds");
        }
    }
    if unnoticed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
