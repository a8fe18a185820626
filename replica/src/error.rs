//! How errors of the store are classed, once, for those who retry or tell people.

use storage::{Failure, SlotError, StorageError};

/// What kind of trouble an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// No room, no quota, or a file size limit. Nothing is lost; it works again after room is
    /// made.
    StoreFull,
    /// The medium or the operating system failed. The disk must be opened again before anything
    /// is believed.
    StoreFailed,
    /// What is kept contradicts itself: damaged at rest, or tampered with. A person decides.
    Corrupt,
    /// The request does not fit the state of the replica, or what was sent is not what it claims
    /// to be. The store is as it was.
    Refused,
}

impl FailureClass {
    pub(crate) fn of_storage(error: &StorageError) -> Self {
        match error.failure() {
            Failure::Full => Self::StoreFull,
            Failure::Missing => Self::Corrupt,
            Failure::Broken if error.source.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::Corrupt
            }
            Failure::Broken => Self::StoreFailed,
        }
    }

    pub(crate) fn of_slot(error: &SlotError) -> Self {
        match error {
            SlotError::Storage(error) => Self::of_storage(error),
            SlotError::NoValidSlot(_) => Self::Corrupt,
            SlotError::TooLong(_) | SlotError::WriteFailedEarlier => Self::StoreFailed,
        }
    }
}
