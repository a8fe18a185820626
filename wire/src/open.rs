//! Opening: from a checked frame to its authentic data, still coded.
//!
//! Decompression is the caller's: the frame says with authority how long the data is, so it can
//! be bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use blocks::{DiskId, Generation};

use crate::frame::{CheckedFrame, Codec, EpochEnd, FrameExtent, SessionSalt, SummaryError};
use crate::key::{DataKey, NotAuthentic, SessionKey};

#[cfg(test)]
mod tests;

/// Session keys kept at hand; when there would be more, all are dropped and derived again.
const SESSIONS_MAX: usize = 64;

/// Opens the frames of one disk, of any session and generation. Shared by worker threads.
pub struct Opener {
    key: DataKey,
    sessions: Mutex<HashMap<Session, Arc<SessionKey>>>,
}

/// What a session key is derived from, beside the data key.
type Session = (SessionSalt, DiskId, Generation);

/// The authentic data of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedFrame {
    /// How the data is coded.
    pub codec: Codec,
    /// What it belongs to.
    pub extents: Vec<FrameExtent>,
    /// The data, still coded.
    pub payload: Vec<u8>,
}

/// Why a frame was not opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// The tag does not match: another key sealed it, or it was changed since.
    #[error("a frame is not authentic: sealed with another key, or changed since")]
    NotAuthentic,
    /// A content frame where the end of an epoch was expected.
    #[error("a frame of content where the end of an epoch was expected")]
    NotTheEnd,
    /// An authentic end frame without a meaning: sealed by another version.
    #[error(transparent)]
    Summary(#[from] SummaryError),
}

impl Opener {
    /// An opener of the frames of the disk that `key` belongs to.
    pub fn new(key: &DataKey) -> Self {
        Self { key: key.clone(), sessions: Mutex::default() }
    }

    /// Opens a frame into a buffer of its own.
    pub fn open(&self, frame: &CheckedFrame) -> Result<OpenedFrame, OpenError> {
        let mut payload = Vec::new();
        self.open_into(frame, &mut payload)?;
        Ok(OpenedFrame { codec: frame.header().codec, extents: frame.extents().to_vec(), payload })
    }

    /// Opens a frame into `payload`, whose content is replaced and whose memory is used again.
    /// After an error `payload` holds nothing of the frame.
    pub fn open_into(&self, frame: &CheckedFrame, payload: &mut Vec<u8>) -> Result<(), OpenError> {
        self.session(frame).open(frame, payload).map_err(|NotAuthentic| OpenError::NotAuthentic)
    }

    /// Opens the end frame of an epoch.
    pub fn open_end(&self, frame: &CheckedFrame) -> Result<EpochEnd, OpenError> {
        if !frame.header().is_end() {
            return Err(OpenError::NotTheEnd);
        }
        Ok(EpochEnd::decode(&self.open(frame)?.payload)?)
    }

    fn session(&self, frame: &CheckedFrame) -> Arc<SessionKey> {
        let header = frame.header();
        let session = (header.salt, header.disk, header.generation);
        // A poisoned lock guards a cache all the same.
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(&session) {
            sessions.clear();
        }
        let derive = || Arc::new(SessionKey::derive(&self.key, &session.0, session.1, session.2));
        Arc::clone(sessions.entry(session).or_insert_with(derive))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener(..)")
    }
}
