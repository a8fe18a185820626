//! Tokens that enrol nobody.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use vm_tests::{Rig, Site};
use wire::{Secret, Token};

use crate::bystander::{Bystander, PINNACE, refused, site};

/// Another machine than the site's own.
pub(crate) struct Machine {
    config: PathBuf,
    /// Where it keeps its state.
    pub(crate) state: PathBuf,
}

impl Machine {
    pub(crate) fn new(rig: &Rig) -> Result<Self> {
        let (config, state) = (rig.fresh("machine.toml"), rig.fresh("machine"));
        fs::write(&config, format!("state_dir = {state:?}\n"))?;
        Ok(Self { config, state })
    }

    /// Tries to enrol with the site's target.
    pub(crate) fn enroll(&self, site: &Site, token: &str) -> Result<Output> {
        let address = site.relay.address().to_string();
        let mut command = Command::new(PINNACE);
        command.args(["agent", "enroll", &address, "--token", token]);
        command.arg("--config").arg(&self.config).output().context("running pinnace")
    }

    fn is_enrolled(&self) -> bool {
        self.state.join("identity.json").exists()
    }
}

/// A new token.
pub(crate) fn token(site: &Site, arguments: &[&str]) -> Result<String> {
    let created = site.target(&[&["token", "create"], arguments].concat())?;
    Ok(created.trim().to_owned())
}

/// A token like this one but for one part.
fn altered(token: &str, alter: impl FnOnce(&mut Token)) -> Result<String> {
    let mut parsed = Token::from_bytes(&URL_SAFE_NO_PAD.decode(token)?)?;
    alter(&mut parsed);
    Ok(URL_SAFE_NO_PAD.encode(parsed.to_bytes().as_slice()))
}

#[test]
fn a_token_enrols_once_in_time_and_only_here() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    let site = site(&rig, None)?;
    bystander.begin(&rig, &site)?;
    let machine = Machine::new(&rig)?;
    let short = token(&site, &["--ttl", "1s"])?;

    let good = token(&site, &[])?;
    for garbage in ["", "x", "not a token at all", &good[1..], &good.to_uppercase()] {
        refused(&machine.enroll(&site, garbage)?, 12, &["not a token"])?;
    }
    let wrong = altered(&good, |token| token.secret = Secret::from_bytes([0; 16]))?;
    refused(&machine.enroll(&site, &wrong)?, 12, &["refuses", "not valid here"])?;
    let unknown = altered(&good, |token| token.id.0 = [0; 8])?;
    refused(&machine.enroll(&site, &unknown)?, 12, &["refuses", "pinnace token create"])?;
    let elsewhere = altered(&good, |token| token.ca_sha256 = [0; 32])?;
    let words = ["is not the target that made this token"];
    refused(&machine.enroll(&site, &elsewhere)?, 12, &words)?;

    let revoked: Value = serde_json::from_str(&site.target(&["token", "create", "--json"])?)?;
    let (text, id) = (revoked["token"].as_str(), revoked["id"].as_str());
    let (text, id) = text.zip(id).context("a token has a text and an id")?;
    site.target(&["token", "revoke", id])?;
    refused(&machine.enroll(&site, text)?, 12, &["not valid here"])?;
    refused(&site.try_target(&["token", "revoke", id])?, 4, &["there is no token"])?;

    std::thread::sleep(Duration::from_millis(1100));
    refused(&machine.enroll(&site, &short)?, 12, &["expired"])?;
    ensure!(!machine.is_enrolled(), "it is enrolled after all");

    let enrolled = machine.enroll(&site, &good)?;
    ensure!(enrolled.status.success() && machine.is_enrolled(), "{enrolled:?}");
    refused(&Machine::new(&rig)?.enroll(&site, &good)?, 12, &["used before"])?;
    let listed = site.target(&["token", "list", "--json"])?;
    ensure!(listed.trim() == "[]", "a token is left: {listed}");
    bystander.end(&site)
}
