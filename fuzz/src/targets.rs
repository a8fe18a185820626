//! The functions behind the targets.

pub(crate) mod epochs;
pub(crate) mod frames;
pub(crate) mod last_logs;
pub(crate) mod logs;
pub(crate) mod messages;
pub(crate) mod nbd;
pub(crate) mod sealed;
pub(crate) mod source_session;
pub(crate) mod store;
pub(crate) mod target_session;
pub(crate) mod texts;

/// The engine begins with nothing: inputs are decisions, and any bytes are some.
pub(crate) fn none() -> Vec<Vec<u8>> {
    Vec::new()
}
