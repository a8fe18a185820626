//! Enrolment, the target's side: a token is exchanged for a certificate.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use jiff::Timestamp;
use quinn::Connection;
use wire::close::Detail;
use wire::enroll::{Der, EnrollAnswer, EnrollRequest, Enrolled};
use wire::message::{MessageDecoder, VersionRange};
use wire::{Reason, close};

use super::machines::{Machine, Machines};
use super::tokens::{TokenError, Tokens};
use crate::identity::hex;
use crate::pki::{self, Authority};

/// A request holds a certificate request of at most 8 KiB, and little else.
const REQUEST_MAX: usize = 16 << 10;

/// What admits machines.
pub(crate) struct Enroller {
    pub(crate) authority: Authority,
    pub(crate) tokens: Arc<Mutex<Tokens>>,
    pub(crate) machines: Machines,
    pub(crate) target: blocks::MachineId,
}

impl Enroller {
    /// Serves one connection: one request, one answer.
    pub(crate) async fn serve(&self, connection: &Connection) -> Result<()> {
        let (mut send, mut receive) = connection.accept_bi().await?;
        let bytes = receive.read_to_end(REQUEST_MAX).await?;
        let mut decoder = MessageDecoder::new();
        decoder.push(&bytes);
        let envelope = decoder.next_message()?.context("a request that is cut off")?;
        let request = EnrollRequest::decode(&envelope)?;
        let answer = self.answer(&request);
        send.write_all(&answer.encode()).await?;
        send.finish()?;
        // The answer has arrived once the peer closes.
        connection.closed().await;
        Ok(())
    }

    fn answer(&self, request: &EnrollRequest) -> EnrollAnswer {
        let refused = |reason: Reason, detail: &str| EnrollAnswer::Refused {
            code: close::CloseCode::from(reason),
            detail: Detail::lossy(detail),
        };
        if request.versions.common(VersionRange::SUPPORTED).is_none() {
            return refused(Reason::VersionMismatch, "");
        }
        match self.admit(request) {
            Ok(Ok(chain)) => EnrollAnswer::Enrolled(Enrolled { target: self.target, chain }),
            Ok(Err(error)) => {
                tracing::warn!(MACHINE = %request.machine, %error, "enrolment refused");
                let reason = match error {
                    TokenError::Unknown => Reason::TokenInvalid,
                    TokenError::Used => Reason::TokenUsed,
                    TokenError::Expired => Reason::TokenExpired,
                };
                refused(reason, "`pinnace token create` on the target makes a new one.")
            }
            Err(error) => {
                tracing::warn!(MACHINE = %request.machine, "enrolment failed: {error:#}");
                refused(Reason::RequestInvalid, &format!("{error:#}"))
            }
        }
    }

    /// The token is used up first: of two that race for its last use, one gets a certificate.
    fn admit(
        &self,
        request: &EnrollRequest,
    ) -> Result<Result<Vec<Der<{ wire::enroll::CERTIFICATE_LEN_MAX }>>, TokenError>> {
        let now = Timestamp::now();
        let redeemed = {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.redeem(request.token.0, request.secret.expose(), now)?
        };
        if let Err(error) = redeemed {
            return Ok(Err(error));
        }
        let name = request.machine.to_string();
        let chain = self.authority.issue_machine(request.csr.as_bytes(), &name, pki::LIFETIME)?;
        let machine = Machine {
            hostname: request.hostname.as_str().to_owned(),
            certificate_sha256: hex(&pki::fingerprint(&chain[0])),
            enrolled: now,
        };
        self.machines.add(request.machine, &machine)?;
        tracing::info!(MACHINE = %request.machine, hostname = machine.hostname, "enrolled");
        let chain = chain.into_iter().map(|der| Der::new(der.to_vec()));
        Ok(Ok(chain.collect::<Result<_, _>>()?))
    }
}
