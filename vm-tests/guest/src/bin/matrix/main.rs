//! Kernels by devices: each kernel is booted once, and asked to run a case for every kind of disk.
//!
//! The table that comes of it is `docs/kernels.md`. A write that was missed, a taint, or a case that
//! did not run to its end fails the run.

mod cases;
mod report;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use blocks::ByteLen;
use clap::Parser;
use vm_guest::{
    cell::{Case, Verdict},
    image,
};
use vm_tests::{
    Rig,
    vm::{Guest, Kernel, Series, Vm},
};

use cases::{Extent, Named};
use report::{Row, Table};

/// Boots Debian's kernels and checks that no write to any kind of disk is missed.
#[derive(Parser)]
struct Cli {
    /// Only this series (5.10, 6.1, 6.12, newest); may be repeated.
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<Series>,
    /// Only cases whose name has this in it; may be repeated.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Five times the writes, file systems on more disks, and all kernels if none is named; without
    /// it, what continuous integration runs.
    #[arg(long)]
    full: bool,
    /// Write the table there.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let vm = Vm::open(&rig)?;
    let extent = if cli.full { Extent::Full } else { Extent::Subset };
    let all = Series::ALL.into_iter().filter(|series| extent.holds(*series));
    let series = if cli.kernel.is_empty() { all.collect() } else { cli.kernel.clone() };
    let mut table = Table::new(extent, vm.userland().qemu_version());
    for series in series {
        let kernel = vm.kernel(series)?;
        eprintln!("{series}: {} ({})", kernel.release(), kernel.version());
        table.kernel(series, &kernel);
        let boots = Boots { rig: &rig, vm: &vm, series, kernel: &kernel, extent, only: &cli.only };
        boots.run(&mut table)?;
    }
    if let Some(path) = &cli.table {
        std::fs::write(path, table.to_string()).context("writing the table")?;
    }
    println!("{}", table.summary());
    if table.failed() > 0 {
        bail!("{} cells failed", table.failed());
    }
    Ok(())
}

/// The boots of one kernel.
struct Boots<'a> {
    rig: &'a Rig,
    vm: &'a Vm,
    series: Series,
    kernel: &'a Kernel,
    extent: Extent,
    only: &'a [String],
}

impl Boots<'_> {
    fn run(&self, table: &mut Table) -> Result<()> {
        for lockdown in [false, true] {
            if lockdown && self.series == Series::Bullseye {
                break;
            }
            let cases = self.extent.cases(self.series, lockdown);
            let cases: Vec<Named> = cases.into_iter().filter(|case| self.wants(case)).collect();
            if cases.is_empty() {
                continue;
            }
            let mut guest = self.boot(lockdown)?;
            for case in cases {
                let began = Instant::now();
                let row = self.cell(&mut guest, &case);
                if row.is_err() && guest.run(&["busybox", "true"], cases::LIMIT).is_err() {
                    // The case took the guest with it; the others get a new one.
                    guest = self.boot(lockdown)?;
                }
                let row = row.unwrap_or_else(|error| Row::Broken(format!("{error:#}")));
                let name = case.name();
                eprintln!("  {name:<40} {row} ({} s)", began.elapsed().as_secs());
                table.row(name, row);
            }
            guest.kill()?;
        }
        Ok(())
    }

    fn wants(&self, case: &Named) -> bool {
        let name = case.name();
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text))
    }

    fn boot(&self, lockdown: bool) -> Result<Guest> {
        let image = image::for_cases(self.rig, self.vm, self.kernel, &guest_program()?)?;
        let mut machine = self.vm.machine(self.kernel, &image)?;
        machine.disks = image::disks(self.rig, self.extent.disks())?;
        machine.memory = ByteLen(3 << 30);
        if lockdown {
            machine.command_line = "lockdown=confidentiality".to_owned();
        }
        let mut guest = self.vm.boot(self.vm.accelerator(self.kernel)?, &machine)?;
        if lockdown {
            let state = ["busybox", "cat", "/sys/kernel/security/lockdown"];
            let state = guest.check(&state, cases::LIMIT)?;
            anyhow::ensure!(state.contains("[confidentiality]"), "the lockdown is {state}");
        }
        Ok(guest)
    }

    fn cell(&self, guest: &mut Guest, case: &Named) -> Result<Row> {
        match case {
            Named::Cell { case, .. } => Ok(Row::of(self.series, case, ask(guest, case)?)),
            Named::Blind(case) => Ok(Row::control(match ask(guest, case)? {
                Verdict::Tracked(counts) => counts.missed,
                Verdict::Refused(words) => bail!("refused: {words}"),
            })),
            Named::Race(how) => {
                let said = guest.check(&["guest", "race", how], cases::LIMIT)?;
                let said: serde_json::Value = serde_json::from_str(&said)?;
                let count = |key: &str| said[key].as_u64().context("a count");
                let (writes, stale) = (count("writes")?, count("stale")?);
                Ok(if *how == "right" { Row::raced(writes, stale) } else { Row::control(stale) })
            }
        }
    }
}

/// The program that runs in guests, built beside this one.
fn guest_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("the path of this executable")?;
    let beside = this.with_file_name("guest");
    beside.is_file().then_some(beside).context("the program `guest` is not beside this one")
}

fn ask(guest: &mut Guest, case: &Case) -> Result<Verdict> {
    let case = serde_json::to_string(case)?;
    let said = guest.check(&["guest", "cell", &case], cases::LIMIT)?;
    serde_json::from_str(&said).with_context(|| format!("the guest said {said:?}"))
}
