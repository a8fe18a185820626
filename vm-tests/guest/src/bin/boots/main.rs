//! Boots of a machine whose root disk is protected: each in its way, and what the agent makes of it.
//!
//! After an orderly stop with the programs attached early there must be a delta only. After anything
//! else (no early attachment, a power cut, another system in between, a boot that came to nothing)
//! there must be a comparison. Either way the replica must become what the disk is. One taken for the
//! other fails the run.

mod machine;
mod site;

use std::{process::ExitCode, time::Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use vm_tests::Rig;

use machine::{Early, Machine, Names, RootDisk};
use site::{Found, Site};

/// Boots a machine with a protected root disk in every way, and judges what comes of it.
#[derive(Parser)]
struct Cli {
    /// How often each kind of boot is made.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// What the root disk is.
    #[arg(long, value_enum, default_value_t = RootDisk::Virtio)]
    root: RootDisk,
}

/// How the machine stopped before a boot, and how it boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An orderly stop; attached early.
    Orderly,
    /// The same, with the disks in the other order, hence under other names.
    Renamed,
    /// An orderly stop; not attached early.
    WithoutHook,
    /// QEMU is killed while files are written; attached early.
    PowerCut,
    /// An orderly stop, then a boot of a system without Pinnace that writes; attached early.
    OtherSystem,
    /// An orderly stop, then a boot that is attached early and cut before an agent runs; attached
    /// early.
    CameToNothing,
}

impl Kind {
    /// Those of one round.
    fn of_round(round: u32) -> Vec<Self> {
        let with_hook = if round.is_multiple_of(2) { Self::Orderly } else { Self::Renamed };
        let mut kinds = vec![with_hook, Self::WithoutHook, Self::PowerCut];
        // They take a boot more, and are made as often as there are names to tell.
        if round.is_multiple_of(5) {
            kinds.extend([Self::OtherSystem, Self::CameToNothing]);
        }
        kinds
    }

    fn expected(self) -> Found {
        match self {
            Self::Orderly | Self::Renamed => Found::Delta,
            _ => Found::Comparison,
        }
    }

    fn names(self) -> Names {
        if self == Self::Renamed { Names::Exchanged } else { Names::Usual }
    }
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
    let began = Instant::now();
    let mut machine = Machine::make(&rig, cli.root).context("making the machine")?;
    let mut site = Site::begin(machine.boot(Early::Off, Names::Usual)?, cli.root.name())?;
    machine.update_initramfs(&site.plan()?)?;
    eprintln!("protected, and its replica is identical ({} s)", began.elapsed().as_secs());
    let (mut deltas, mut comparisons) = (0, 0);
    for round in 0..cli.rounds {
        for kind in Kind::of_round(round) {
            let began = Instant::now();
            site =
                boot(&machine, site, kind).with_context(|| format!("round {round}, {kind:?}"))?;
            match kind.expected() {
                Found::Delta => deltas += 1,
                Found::Comparison => comparisons += 1,
            }
            eprintln!("{round} {kind:?}: as it must be ({} s)", began.elapsed().as_secs());
        }
    }
    site.cut()?;
    println!(
        "{deltas} boots with a delta only, {comparisons} with a comparison; none for the other"
    );
    Ok(())
}

/// Stops the machine, boots it again, and looks what the agent makes of it.
fn boot(machine: &Machine, site: Site, kind: Kind) -> Result<Site> {
    match kind {
        Kind::PowerCut => site.cut()?,
        _ => site.stop()?,
    }
    match kind {
        Kind::OtherSystem => site::write_as_another(machine.boot(Early::Off, Names::Usual)?)?,
        Kind::CameToNothing => machine.boot(Early::On, Names::Usual)?.kill()?,
        _ => {}
    }
    let early = if kind == Kind::WithoutHook { Early::Off } else { Early::On };
    let mut site = Site::start(machine.boot(early, kind.names())?)?;
    let found = site.found()?;
    ensure!(
        found == kind.expected(),
        "{found:?} instead of {:?}\n{}",
        kind.expected(),
        site.logs()
    );
    site.prove_identical()?;
    Ok(site)
}
