//! Certificates that open nothing.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use blocks::MachineId;
use quinn::ConnectionError;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use vm_tests::{Rig, Site, wait_until};
use wire::Reason;

use crate::bystander::{Bystander, PATIENCE, site};
use crate::enrolment::{Machine, token};
use crate::stranger::{Credentials, Stranger, credentials, machine};

const HOUR: Duration = Duration::from_secs(3600);

/// What somebody with the keys of an authority in `pki` could issue.
struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn issue(issuer: &Issuer<'_, KeyPair>, name: &str, not_after: SystemTime) -> Result<Issued> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (SystemTime::now() - 48 * HOUR).into();
    params.not_after = not_after.into();
    let key = KeyPair::generate()?;
    Ok(Issued { certificate: params.signed_by(&key, issuer)?, key })
}

fn authority(pki: &Path) -> Result<Issuer<'static, KeyPair>> {
    let key = KeyPair::from_pem(&std::fs::read_to_string(pki.join("ca.key"))?)?;
    let certificate = CertificateDer::from_pem_file(pki.join("ca.pem"))?;
    Ok(Issuer::from_ca_cert_der(&certificate, key)?)
}

impl Issued {
    fn credentials(&self) -> Result<Credentials> {
        let key = PrivateKeyDer::from_pem_slice(self.key.serialize_pem().as_bytes())?;
        Ok(Some((vec![self.certificate.der().clone()], key)))
    }
}

fn connect(site: &Site, credentials: Credentials) -> Result<Stranger> {
    Stranger::connect(site.relay.address(), &site.store().join("pki/ca.pem"), credentials)
}

/// Fails unless the target ends the connection in TLS, before a word was said.
fn fails_in_tls(site: &Site, credentials: Credentials) -> Result<()> {
    let ended = match connect(site, credentials) {
        Ok(stranger) => stranger.ended()?,
        Err(error) => error.downcast::<ConnectionError>()?,
    };
    let crypto = matches!(&ended, ConnectionError::ConnectionClosed(close)
        if close.error_code.to_string().contains("cryptographic"));
    ensure!(crypto, "it ended otherwise: {ended:?}");
    Ok(())
}

#[test]
fn nobody_comes_in_without_the_certificate_made_for_him() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    let site = site(&rig, None)?;
    bystander.begin(&rig, &site)?;
    let other = Machine::new(&rig)?;
    let enrolled = other.enroll(&site, &token(&site, &[])?)?;
    ensure!(enrolled.status.success(), "{enrolled:?}");

    let not_authenticated = |credentials: Credentials, whose: &str| {
        // The target may be faster than the client's first stream.
        let ended = match connect(&site, credentials) {
            Ok(stranger) => stranger.ended(),
            Err(error) => error.downcast::<ConnectionError>(),
        };
        match ended.context(whose.to_owned())? {
            ConnectionError::ApplicationClosed(close)
                if close.error_code == Reason::NotAuthenticated.number().into() =>
            {
                anyhow::Ok(())
            }
            other => bail!("{whose}: {other:?}"),
        }
    };
    not_authenticated(None, "no certificate")?;
    let later = SystemTime::now() + HOUR;
    let ca = authority(&site.store().join("pki"))?;
    let unknown = issue(&ca, &MachineId([7; 16]).to_string(), later)?;
    not_authenticated(unknown.credentials()?, "a machine that never enrolled")?;
    let unnamed = issue(&ca, "no identity", later)?;
    not_authenticated(unnamed.credentials()?, "no identity in the certificate")?;
    let name = machine(&other.state)?.to_string();
    let second = issue(&ca, &name, later)?;
    not_authenticated(second.credentials()?, "another certificate for the same machine")?;
    // Enrolling again makes a copy of the old certificate worthless.
    let stolen = credentials(&other.state)?;
    let enrolled = other.enroll(&site, &token(&site, &[])?)?;
    ensure!(enrolled.status.success(), "{enrolled:?}");
    not_authenticated(stolen, "a certificate that was replaced")?;

    let expired = issue(&ca, &name, SystemTime::now() - HOUR)?;
    fails_in_tls(&site, expired.credentials()?)?;
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let foreign = Issuer::new(params, KeyPair::generate()?);
    fails_in_tls(&site, issue(&foreign, &name, later)?.credentials()?)?;

    let mut welcome = connect(&site, credentials(&other.state)?)?;
    welcome.introduce(machine(&other.state)?)?;
    bystander.end(&site)
}

#[test]
fn an_expired_certificate_is_named_and_a_new_one_carries_on() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    let mut site = site(&rig, None)?;
    bystander.begin(&rig, &site)?;
    site.agent.stop(Duration::from_secs(10))?;
    let state = site.agent_state();
    let ca = authority(&site.store().join("pki"))?;
    let expired = issue(&ca, &machine(&state)?.to_string(), SystemTime::now() - HOUR)?;
    std::fs::write(state.join("pki/machine.pem"), expired.certificate.pem())?;
    std::fs::write(state.join("pki/machine.key"), expired.key.serialize_pem())?;
    site.agent.restart()?;
    let status = wait_until("the refusal", PATIENCE, || {
        let Ok(status) = site.status() else { return Ok(None) };
        Ok((status["link"]["state"] == "refused").then_some(status))
    })
    .with_context(|| site.logs())?;
    let reason = status["link"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("expired") && reason.contains("pinnace agent enroll"), "{reason}");
    let shown = site.agent(&["status"])?;
    ensure!(shown.contains("refuses this machine"), "{shown}");
    // A new certificate, under the same identity; what was written meanwhile is still known.
    let before = machine(&state)?;
    let address = site.relay.address().to_string();
    let agent = site.agent.id();
    let said = site.agent(&["agent", "enroll", &address, "--token", &token(&site, &[])?])?;
    ensure!(machine(&state)? == before, "enrolling again made it another machine");
    // The running agent is told; it would not have asked again by itself.
    ensure!(said.contains("the agent connects") && site.agent.id() == agent, "{said}");
    bystander.end(&site)
}
