//! What the hooks of the initramfs call; see `docs/boot.md`.
//!
//! ```text
//! early-attach [PLAN [PINS]]
//! ```
//!
//! Says what became of each disk, a line each, on standard error. It ends with 0 also if a disk will
//! have to be compared: only a failure to do anything at all ends with 1, and no boot should stop at
//! that either.

use std::{env, error::Error, fs, io, path::Path, process::ExitCode};

use early_attach::{Outcome, attach};
use ebpf_object::pins::DEFAULT_DIRECTORY;
use tracker::last::Plan;

/// Where the hooks put what the agent wrote.
const PLAN: &str = "/etc/pinnace/early-attach.plan";

/// No plan is longer: 128 lines.
const PLAN_LEN_MAX: u64 = 16 << 10;

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let plan = arguments.next().unwrap_or_else(|| PLAN.to_owned());
    let pins = arguments.next().unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned());
    match run(Path::new(&plan), Path::new(&pins)) {
        Ok(outcomes) => {
            outcomes.iter().for_each(tell);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("pinnace: nothing was attached: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Path, pins: &Path) -> Result<Vec<Outcome>, Box<dyn Error>> {
    if fs::metadata(plan)?.len() > PLAN_LEN_MAX {
        return Err(io::Error::other("the plan is too long").into());
    }
    let plan: Plan = fs::read_to_string(plan)?.parse()?;
    Ok(attach(&plan, pins)?)
}

fn tell(outcome: &Outcome) {
    match &outcome.result {
        Ok(name) => eprintln!("pinnace: {name} is tracked from here on"),
        Err(refusal) => {
            let why = with_causes(refusal);
            eprintln!("pinnace: disk {} will be compared: {why}", outcome.disk);
        }
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
