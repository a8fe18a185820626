//! `pinnace agent enroll`: this machine introduces itself to a target.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blocks::MachineId;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::CertificateDer;
use wire::enroll::{Der, EnrollAnswer, EnrollRequest, Enrolled};
use wire::message::{MessageDecoder, VersionRange};
use wire::{Text, Token};

use super::link::resolve;
use super::state::{AgentState, MachineIdentity};
use crate::admin;
use crate::admin::agent::{Request, Response};
use crate::config::AgentConfig;
use crate::exit::{Exit, Failure};
use crate::identity::{hostname, random_bytes};
use crate::pki::{self, TARGET_NAME};
use crate::quic;

const PATIENCE: Duration = Duration::from_secs(15);
/// An answer holds two certificates: a few KiB.
const ANSWER_MAX: usize = 64 << 10;

/// Enrols this machine with the target at `address`, and says so in words.
///
/// Enrolling again keeps the machine's identity and gets it a new certificate.
pub(crate) fn enroll(config: &AgentConfig, address: &str, token: &str) -> Result<String> {
    let token = read_token(token)?;
    let state = AgentState::open(&config.state_dir)?;
    let before = state.identity()?;
    let machine = match &before {
        Some(identity) => identity.machine.parse().context("this machine's identity")?,
        None => MachineId(random_bytes()?),
    };
    let (key_pem, csr) = pki::machine_request(&machine.to_string())?;
    let request = EnrollRequest {
        versions: VersionRange::SUPPORTED,
        token: token.id,
        secret: token.secret.clone(),
        machine,
        hostname: Text::lossy(&hostname()),
        csr: Der::new(csr)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, ask(resolve(address)?, &token, &request))
            .await
            .map_err(|_| unreachable(address, "no answer"))?
            .map_err(|error| named(address, error))
    });
    let enrolled = asked?;
    let chain = check_chain(&enrolled, &token)?;
    pki::write_identity(&state.pki(), "machine", &chain, &key_pem)?;
    pki::write_certificate(&state.pki(), "ca", &chain[chain.len() - 1..])?;
    // Last: before this file is there, the machine is not enrolled.
    let target_id = enrolled.target.to_string();
    state.write_identity(&MachineIdentity {
        machine: machine.to_string(),
        target: address.to_owned(),
        target_id: target_id.clone(),
    })?;
    let known = before.is_some_and(|before| before.target == address);
    let agent = match admin::call(&config.socket, &Request::Retry, PATIENCE) {
        Ok(Response::Done(_)) if known => "; the agent connects",
        Ok(_) => "; restart the agent to connect",
        Err(_) => "",
    };
    Ok(format!("Machine {machine} is enrolled with target {target_id} at {address}{agent}"))
}

fn read_token(text: &str) -> Result<Token> {
    let bad = |why: String| Failure::new(Exit::Authentication, format!("not a token: {why}"));
    let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|error| bad(error.to_string()))?;
    Ok(Token::from_bytes(&bytes).map_err(|error| bad(error.to_string()))?)
}

async fn ask(address: SocketAddr, token: &Token, request: &EnrollRequest) -> Result<Enrolled> {
    let tls = pki::enroll_config(token.ca_sha256)?;
    let endpoint = quic::client_endpoint(address)?;
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    client.transport_config(quic::transport());
    let connection = endpoint.connect_with(client, address, TARGET_NAME)?.await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(&request.encode()).await?;
    send.finish()?;
    let bytes = receive.read_to_end(ANSWER_MAX).await?;
    connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    let mut decoder = MessageDecoder::new();
    decoder.push(&bytes);
    let envelope = decoder.next_message()?.context("the target gave no whole answer")?;
    match EnrollAnswer::decode(&envelope)? {
        EnrollAnswer::Enrolled(enrolled) => Ok(enrolled),
        EnrollAnswer::Refused { code, detail } => {
            let message = format!("the target refuses: {code} {}", detail.as_str());
            Err(Failure::new(Exit::Authentication, message.trim_end()).into())
        }
    }
}

/// The chain must end in the authority that the token names.
fn check_chain(enrolled: &Enrolled, token: &Token) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<CertificateDer<'static>> =
        enrolled.chain.iter().map(|der| der.as_bytes().to_vec().into()).collect();
    match chain.last() {
        Some(ca) if chain.len() > 1 && pki::fingerprint(ca) == token.ca_sha256 => Ok(chain),
        _ => Err(anyhow!("the target's answer does not hold a certificate of its authority")),
    }
}

fn unreachable(address: &str, why: &str) -> Failure {
    let message = format!("can't reach a target at {address} (UDP): {why}");
    Failure::new(Exit::Unreachable, message)
}

/// Gives an error of the connection its exit code and its words.
fn named(address: &str, error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<quinn::ConnectionError>() {
        Some(quinn::ConnectionError::TransportError(transport)) => Failure::new(
            Exit::Authentication,
            format!("{address} is not the target that made this token: {transport}"),
        )
        .into(),
        Some(other) => unreachable(address, &other.to_string()).into(),
        None => error,
    }
}
