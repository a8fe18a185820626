//! What runs in a guest: its first process, and the cases that it is asked to run.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use vm_guest::{cell, serve};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = if std::process::id() == 1 { serve::first_process() } else { run(&arguments) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["cell", case] => {
            let case: cell::Case = serde_json::from_str(case).context("reading the case")?;
            println!("{}", serde_json::to_string(&cell::run(&case)?)?);
            Ok(())
        }
        ["serve"] => serve::serve(),
        ["race", how] => cell::run_race(how),
        _ => bail!("usage: guest serve | guest cell CASE | guest race right|issue-only|read-first"),
    }
}
