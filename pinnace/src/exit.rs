//! Exit codes, and errors that know theirs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a command ended, as its exit status.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    PartlyDone = 3,
    NotFound = 4,
    WrongState = 5,
    Refused = 6,
    Unreachable = 10,
    Timeout = 11,
    Authentication = 12,
    VerificationFailed = 20,
    Interrupted = 130,
}

/// An error with an exit code of its own. It crosses the admin socket as it is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// The failure inside an error, or a plain one with the error's words.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<Self>() {
            Some(failure) => Self::new(failure.exit, format!("{error:#}")),
            None => Self::new(Exit::Failed, format!("{error:#}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
