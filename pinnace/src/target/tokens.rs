//! Enrolment tokens: single-use by default, short-lived, kept as hashes.

use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::admin::target::TokenStatus;
use crate::exit::{Exit, Failure};
use crate::identity::hex;
use crate::json_file;

/// The tokens of one target, in one small file.
pub(crate) struct Tokens {
    path: PathBuf,
    tokens: Vec<Record>,
}

#[derive(Clone, Deserialize, Serialize)]
struct Record {
    id: String,
    /// SHA-256 of the secret, hexadecimal: the file alone enrols nobody.
    secret_sha256: String,
    expires: Timestamp,
    uses_left: u32,
}

/// Why a token does not enrol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// Never issued, revoked, or long gone.
    #[error("this target has not issued that token, or it was revoked")]
    Unknown,
    /// As often used as it may be.
    #[error("the token was used already; `pinnace token create` on the target makes another")]
    Used,
    /// Too old.
    #[error("the token has expired; `pinnace token create` on the target makes another")]
    Expired,
}

impl Tokens {
    /// Reads the tokens; a file that does not exist holds none.
    pub(crate) fn read(path: PathBuf) -> Result<Self> {
        let tokens = json_file::read(&path).context("the tokens")?.unwrap_or_default();
        Ok(Self { path, tokens })
    }

    /// Puts a new token on record. Used and expired ones are forgotten a day after their end.
    pub(crate) fn add(&mut self, id: [u8; 8], secret: &[u8], validity: Validity) -> Result<()> {
        let day = jiff::SignedDuration::from_hours(24);
        self.tokens.retain(|token| token.expires + day > validity.now);
        self.tokens.push(Record {
            id: hex(&id),
            secret_sha256: hash(secret),
            expires: validity.expires,
            uses_left: validity.uses,
        });
        self.write()
    }

    /// Uses a token up by one, durably before it is answered.
    pub(crate) fn redeem(
        &mut self,
        id: [u8; 8],
        secret: &[u8],
        now: Timestamp,
    ) -> Result<Result<(), TokenError>> {
        let id = hex(&id);
        let hash = hash(secret);
        // Hashes are compared, so the time it takes tells nothing of the secret.
        let found = self.tokens.iter_mut().find(|t| t.id == id && t.secret_sha256 == hash);
        let Some(token) = found else { return Ok(Err(TokenError::Unknown)) };
        if token.uses_left == 0 {
            return Ok(Err(TokenError::Used));
        }
        if token.expires <= now {
            return Ok(Err(TokenError::Expired));
        }
        token.uses_left -= 1;
        self.write()?;
        Ok(Ok(()))
    }

    /// Takes a token back.
    pub(crate) fn revoke(&mut self, id: &str) -> Result<()> {
        let before = self.tokens.len();
        self.tokens.retain(|token| token.id != id);
        if self.tokens.len() == before {
            return Err(Failure::new(Exit::NotFound, format!("there is no token {id}")).into());
        }
        self.write()
    }

    /// The tokens that still enrol.
    pub(crate) fn list(&self, now: Timestamp) -> Vec<TokenStatus> {
        let live = self.tokens.iter().filter(|t| t.uses_left > 0 && t.expires > now);
        live.map(|token| TokenStatus {
            id: token.id.clone(),
            expires: token.expires,
            uses_left: token.uses_left,
        })
        .collect()
    }

    fn write(&self) -> Result<()> {
        json_file::write(&self.path, &self.tokens)
    }
}

/// How long and how often a new token is good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validity {
    pub(crate) now: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) uses: u32,
}

fn hash(secret: &[u8]) -> String {
    hex(&Sha256::digest(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_enrols_as_often_as_it_may_and_no_longer_than_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.json");
        let mut tokens = Tokens::read(path.clone()).unwrap();
        let validity = Validity { now: at(0), expires: at(100), uses: 1 };
        tokens.add([1; 8], b"secret", validity).unwrap();
        tokens.add([2; 8], b"other", validity).unwrap();
        assert_eq!(tokens.redeem([1; 8], b"wrong", at(1)).unwrap(), Err(TokenError::Unknown));
        assert_eq!(tokens.redeem([1; 8], b"secret", at(1)).unwrap(), Ok(()));
        let mut tokens = Tokens::read(path).unwrap();
        assert_eq!(tokens.redeem([1; 8], b"secret", at(2)).unwrap(), Err(TokenError::Used));
        assert_eq!(tokens.redeem([2; 8], b"other", at(100)).unwrap(), Err(TokenError::Expired));
        assert_eq!(tokens.list(at(50)).len(), 1);
        tokens.revoke(&hex(&[2; 8])).unwrap();
        assert_eq!(tokens.redeem([2; 8], b"other", at(1)).unwrap(), Err(TokenError::Unknown));
        assert!(tokens.revoke("nonsense").is_err());
    }
}
