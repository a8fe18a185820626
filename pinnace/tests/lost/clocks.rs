//! Clocks that jump: neither what is marked nor what is shipped rests on one.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vm_tests::{Daemon, DaemonSpec, Rig, wait_until};

use crate::subject::{PATIENCE, PINNACE, ensure_never_compared, number, site, use_disk, zram};

/// The agent's monotonic clock is a day ahead of the kernel's, then behind it, by time namespaces;
/// so no mark has a time that the agent could make sense of.
#[test]
fn an_agent_whose_clock_jumps_loses_nothing() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = zram(&rig, 36)?;
    let mut site = site(&rig, "")?;
    site.protect(&disk, PATIENCE)?;
    let writers = use_disk(&rig, &disk, 36)?;
    site.wait_for_epochs(disk.name(), 2, PATIENCE)?;
    for offset in ["86400", "-600", "0"] {
        site.agent.stop(Duration::from_secs(20))?;
        let (monotonic, boot) = (format!("--monotonic={offset}"), format!("--boottime={offset}"));
        let config = site.agent_state().with_file_name("agent.toml");
        let namespace = ["--time", &monotonic, &boot, "--fork", "--kill-child"];
        let agent = [PINNACE, "agent", "run", "--config", &config.to_string_lossy()];
        let mut shifted = Daemon::start(
            &rig,
            DaemonSpec {
                name: format!("shifted-{offset}"),
                program: "unshare".into(),
                arguments: namespace.into_iter().chain(agent).map(Into::into).collect(),
                variables: Vec::new(),
            },
        )?;
        let log = || shifted.log().unwrap_or_default();
        site.wait_for_agent().with_context(log)?;
        let carried_on = wait_until("deltas under another clock", PATIENCE, || {
            Ok((number(&site.disk(disk.name())?, "/sent/epochs") >= 3).then_some(()))
        });
        carried_on.with_context(log)?;
        let log = log();
        ensure!(!log.contains("has a gap") && !log.contains("panicked"), "{log}");
        shifted.kill_9()?;
        wait_until("its end", PATIENCE, || Ok(site.status().is_err().then_some(())))?;
        site.agent.restart()?;
        site.wait_for_agent()?;
    }
    writers.stop()?;
    site.prove(&disk, PATIENCE)?;
    ensure_never_compared(&site)
}
