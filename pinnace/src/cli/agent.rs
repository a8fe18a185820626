//! `pinnace agent`.

use anyhow::{Result, bail};
use clap::Subcommand;

use super::output::{json, print, table};
use super::{Format, Global, status};
use crate::agent::{Finding, Grade};
use crate::exit::{Exit, Failure};

#[derive(Subcommand)]
pub(super) enum AgentCommand {
    /// Track and ship the protected disks until stopped; tracking goes on after that
    Run,
    /// Make this machine known to a target
    Enroll {
        /// The target, as HOST:PORT
        target: String,
        /// What `pinnace token create` printed on the target
        #[arg(long)]
        token: String,
    },
    /// The agent and its connection
    Status,
    /// Close the logs of dirty chunks before the machine stops; called by the shutdown hook
    Close,
    /// Check what this machine needs, with a fix for what is missing
    Doctor,
}

pub(super) fn execute(global: &Global, command: &AgentCommand) -> Result<()> {
    match command {
        AgentCommand::Run => crate::agent::run(global.agent()?),
        AgentCommand::Enroll { target, token } => {
            let words = crate::agent::enroll(&global.agent()?, target, token)?;
            println!("{words}");
            Ok(())
        }
        AgentCommand::Status => show_agent(global),
        AgentCommand::Close => close(global),
        AgentCommand::Doctor => doctor(global),
    }
}

fn show_agent(global: &Global) -> Result<()> {
    let status = status::fetch(global)?;
    if !matches!(global.format(), Format::Table | Format::Wide) {
        return json(global.format(), &status);
    }
    println!("Machine {}", status.machine);
    println!("Target  {}", status.target.as_deref().unwrap_or("not enrolled"));
    println!("Link    {}", status.link);
    println!("Memory  {}", super::output::size(status.memory_bytes));
    println!("Disks   {}", status.disks.len());
    Ok(())
}

fn close(global: &Global) -> Result<()> {
    let mut open = 0;
    for closed in crate::agent::close(&global.agent()?)? {
        match closed.result {
            Ok(chunks) => println!("{}: closed, with {chunks} dirty chunks", closed.path),
            Err(error) => {
                open += 1;
                println!("{}: to be compared after the next start: {error:#}", closed.path);
            }
        }
    }
    if open > 0 {
        bail!(Failure::new(Exit::Refused, format!("{open} logs stay open")));
    }
    Ok(())
}

fn doctor(global: &Global) -> Result<()> {
    let findings: Vec<Finding> = crate::agent::examine(&global.agent()?);
    let failed = findings.iter().filter(|finding| finding.grade == Grade::Fail).count();
    if matches!(global.format(), Format::Table | Format::Wide) {
        let mut rows = table(&["RESULT", "CHECK", "FOUND", "FIX"]);
        for finding in &findings {
            let fix = finding.fix.clone().unwrap_or_default();
            rows.add_row([
                finding.grade.to_string(),
                finding.check.clone(),
                finding.found.clone(),
                fix,
            ]);
        }
        print(&rows);
    } else {
        json(global.format(), &findings)?;
    }
    if failed > 0 {
        bail!(Failure::new(Exit::Refused, format!("{failed} checks failed")));
    }
    Ok(())
}
