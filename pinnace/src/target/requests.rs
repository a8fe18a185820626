//! Answers to what the target is asked over its admin socket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use wire::Token;

use super::assignments::Assignments;
use super::points::Points;
use super::promotion;
use super::status::Overview;
use super::tokens::{Tokens, Validity};
use crate::admin::target::{Request, Response};
use crate::admin::{Answered, Caller};
use crate::identity::hex;
use crate::pki::Fingerprint;

/// What answers are made from.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) overview: Overview,
    pub(super) tokens: Arc<Mutex<Tokens>>,
    pub(super) authority: Fingerprint,
    pub(super) assignments: Assignments,
    pub(super) points: Points,
}

impl Requests {
    pub(super) fn answer(
        &self,
        request: Request,
        caller: &mut Caller<'_>,
    ) -> Result<Answered<Response>> {
        let response = match request {
            Request::Status => Response::Status(self.overview.status()?),
            Request::CreateToken { ttl_seconds, uses } => self.create_token(ttl_seconds, uses)?,
            Request::ListTokens => Response::Tokens(self.tokens().list(Timestamp::now())),
            Request::Assign { machine, disk, device } => {
                Response::Done(self.assignments.assign(&machine, &disk, &device)?)
            }
            Request::Promote { disk } => {
                let Overview { replicas, peers, .. } = &self.overview;
                Response::Done(promotion::promote(replicas, peers, &disk)?)
            }
            Request::RevokeToken { id } => {
                self.tokens().revoke(&id)?;
                Response::Done(format!("token {id} no longer enrols"))
            }
            Request::Point(request) => {
                let Answered { answer, held } = self.points.answer(request, caller)?;
                return Ok(Answered { answer: Response::Point(answer), held });
            }
        };
        Ok(response.into())
    }

    fn create_token(&self, ttl_seconds: u64, uses: u32) -> Result<Response> {
        let now = Timestamp::now();
        let ttl = jiff::SignedDuration::from_secs(i64::try_from(ttl_seconds)?);
        let expires = now.checked_add(ttl).context("a token can't live that long")?;
        let token = Token::generate(self.authority)?;
        self.tokens().add(token.id.0, token.secret.expose(), Validity { now, expires, uses })?;
        Ok(Response::Token {
            token: URL_SAFE_NO_PAD.encode(token.to_bytes().as_slice()),
            id: hex(&token.id.0),
            expires,
        })
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
