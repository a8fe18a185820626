//! Settings that are wrong, and daemons that are not there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use vm_tests::{Daemon, DaemonSpec, LoopDisk, LoopSpec, Mounted, Rig, wait_until};

use crate::bystander::{PATIENCE, PINNACE, refused};

fn pinnace(config: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(PINNACE);
    command.args(arguments).arg("--config").arg(config);
    command.output().context("running pinnace")
}

#[test]
fn a_typo_is_named_with_its_line_and_what_is_allowed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("agent.toml");
    fs::write(&config, "# the agent\n\nintervall = \"5s\"\n")?;
    let words = ["agent.toml, line 3", "intervall", "interval", "bandwidth"];
    refused(&pinnace(&config, &["config", "check", "agent"])?, 2, &words)?;
    // The same from a command that wants the settings, and from the daemon.
    refused(&pinnace(&config, &["status"])?, 2, &words)?;
    refused(&pinnace(&config, &["agent", "run"])?, 2, &words)?;
    fs::write(&config, "interval = \"soon\"\n")?;
    let words = ["agent.toml, line 1", "\"soon\" is not a duration", "15 min"];
    refused(&pinnace(&config, &["config", "check"])?, 2, &words)?;
    fs::write(&config, "interval = \"1ms\"\n")?;
    refused(&pinnace(&config, &["config", "check"])?, 2, &["agent.toml", "at least 100ms"])?;
    fs::write(&config, "interval = \n")?;
    refused(&pinnace(&config, &["config", "check"])?, 2, &["agent.toml, line 1"])?;
    let missing = dir.path().join("missing.toml");
    refused(&pinnace(&missing, &["config", "check"])?, 2, &["missing.toml", "No such file"])?;

    let target = dir.path().join("target.toml");
    fs::write(&target, "store = \"/x\"\nlisten = \"everywhere\"\n")?;
    let words = ["target.toml", "listen", "everywhere", "ADDRESS:PORT"];
    refused(&pinnace(&target, &["config", "check", "target"])?, 2, &words)?;
    fs::write(&target, "store = \"/x\"\n[tls]\n")?;
    refused(&pinnace(&target, &["config", "check"])?, 2, &["target.toml, line 2", "tls"])?;

    fs::write(&config, "interval = \"2s\"\n")?;
    let output = pinnace(&config, &["config", "check"])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn without_a_daemon_commands_say_so() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("agent.toml");
    fs::write(&config, format!("socket = {:?}\n", dir.path().join("agent.sock")))?;
    let words = ["can't reach the daemon", "agent.sock", "is it running?"];
    for arguments in
        [&["status"][..], &["protect", "/dev/null"], &["pause"], &["disk", "show", "x"]]
    {
        refused(&pinnace(&config, arguments)?, 10, &words)?;
    }
    let config = dir.path().join("target.toml");
    fs::write(&config, format!("socket = {:?}\n", dir.path().join("target.sock")))?;
    refused(&pinnace(&config, &["target", "status"])?, 10, &["can't reach the daemon"])?;
    refused(&pinnace(&config, &["token", "create"])?, 10, &["can't reach the daemon"])
}

#[test]
fn a_target_without_a_store_names_the_command_that_makes_one() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("target.toml");
    let store = dir.path().join("store");
    let socket = dir.path().join("target.sock");
    fs::write(&config, format!("store = {store:?}\nsocket = {socket:?}\n"))?;
    refused(&pinnace(&config, &["target", "run"])?, 5, &["pinnace target init"])?;
    fs::create_dir(&store)?;
    fs::write(store.join("file"), "somebody else's")?;
    refused(&pinnace(&config, &["target", "init"])?, 6, &["is not empty"])
}

#[test]
fn an_agent_that_is_not_enrolled_says_how_to_enrol() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(blocks::ByteLen(16 << 20)))?;
    let pins = Mounted::bpf(&rig)?;
    let config = rig.fresh("agent.toml");
    let text = format!(
        "state_dir = {:?}\nsocket = {:?}\npin_dir = {:?}\n",
        rig.fresh("state"),
        rig.fresh("socket"),
        pins.path().join("pinnace")
    );
    fs::write(&config, text)?;
    let agent = Daemon::start(
        &rig,
        DaemonSpec {
            name: "agent".into(),
            program: PINNACE.into(),
            arguments: ["agent", "run", "--config", &config.to_string_lossy()]
                .map(Into::into)
                .into(),
            variables: Vec::new(),
        },
    )?;
    let status = wait_until("the agent", PATIENCE, || {
        let output = pinnace(&config, &["status"])?;
        Ok(output.status.success().then_some(output))
    })
    .with_context(|| agent.log().unwrap_or_default())?;
    let said = String::from_utf8_lossy(&status.stdout);
    ensure!(said.contains("pinnace agent enroll"), "{said}");
    let protect = pinnace(&config, &["protect", &disk.path().to_string_lossy()])?;
    refused(&protect, 5, &["not enrolled", "pinnace token create", "pinnace agent enroll"])?;
    // Two agents can't share a socket.
    let second = pinnace(&config, &["agent", "run"])?;
    refused(&second, 5, &["another daemon already listens"])
}
