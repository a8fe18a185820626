//! What failed and how it is tried again: the words of `control::retry` for the agent's shells.

use std::time::Instant;

use control::FailureClass;
use wire::{Class, CloseCode};

use crate::identity::random_bytes;

/// Why nothing of a disk is sent for a while: an epoch failed, for a reason that may pass.
pub(super) struct Held {
    pub(super) reason: String,
    pub(super) until: Instant,
}

/// How a reason on the wire is retried.
pub(super) fn class_of(code: CloseCode) -> FailureClass {
    match code.class() {
        Class::Passing => FailureClass::Passing,
        Class::Recoverable => FailureClass::Recoverable,
        Class::Permanent => FailureClass::Permanent,
    }
}

/// A number that spreads a wait. Without random numbers it is not spread.
pub(super) fn spread() -> u32 {
    random_bytes().map_or(0, u32::from_le_bytes)
}
