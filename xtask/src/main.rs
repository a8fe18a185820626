//! Development tasks: `cargo xtask --help` lists them.
//!
//! The only door to set-up, checks, tests, the demo and benchmarks. Needs nothing but cargo and a
//! C linker itself; what a task needs beyond that, it lists, asks for, and installs.

mod bench;
mod check;
mod ci;
mod command;
mod demo;
// It lies where the measurements are, which need more than cargo to be built.
#[expect(unreachable_pub, reason = "there it is public")]
#[path = "../../benches/src/document.rs"]
mod document;
mod endurance;
mod figures;
mod fuzz;
mod machine;
mod mutants;
mod packages;
mod reliability;
mod setup;
mod sim;
mod test;
mod totals;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development tasks of Pinnace", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building, the demo and the tests need.
    Setup(Consent),
    /// Run the main job on disks made for it: protect, write, lose the machine, recover.
    Demo(Consent),
    /// Run all tests.
    Test(Consent),
    /// Check formatting, lints and licences.
    Check,
    /// Measure, against other tools where there are any.
    Bench(bench::Wanted),
    /// Make recovery points under load, and judge every one.
    Reliability(reliability::Wanted),
    /// Simulate the whole pipeline, many seeds.
    Sim(sim::Seeds),
    /// Make deliberate mistakes in the product, and show which tests notice each.
    Mutants(mutants::Mutants),
    /// Count what the tests of recovery points try: runs, crashes, failures, kills.
    Figures(figures::Figures),
    /// Search inputs that break a decoder.
    Fuzz(fuzz::Wanted),
    /// All kernels by all kinds of disks, the counts above in large numbers, a thousand kills and
    /// upgrades, long fuzzing, then new seeds of the simulation until the time is over.
    Nightly(sim::Night),
    /// Boot Debian's kernels, and check that no write to any kind of disk is missed.
    Vm(vm::Wanted),
    /// What continuous integration runs: checks, the demo, all tests.
    Ci(Consent),
}

/// Whether packages may be installed without a question.
#[derive(Args, Clone, Copy)]
struct Consent {
    /// Install missing packages without asking.
    #[arg(long)]
    yes: bool,
}

/// The task `nightly`: what takes too long for every change, the shorter before the longer.
fn nightly(wanted: &sim::Night) -> Result<()> {
    vm::in_full()?;
    endurance::run()?;
    sim::nightly(wanted)
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup(consent) => setup::run(packages::Purpose::Test, consent),
        Task::Demo(consent) => demo::run(consent),
        Task::Test(consent) => test::run(consent),
        Task::Check => check::run(),
        Task::Bench(wanted) => bench::run(&wanted),
        Task::Reliability(wanted) => reliability::run(&wanted),
        Task::Sim(wanted) => sim::run(&wanted),
        Task::Mutants(wanted) => mutants::run(&wanted),
        Task::Figures(wanted) => figures::run(&wanted),
        Task::Fuzz(wanted) => fuzz::run(&wanted),
        Task::Nightly(wanted) => nightly(&wanted),
        Task::Vm(wanted) => vm::run(&wanted),
        Task::Ci(consent) => ci::run(consent),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
