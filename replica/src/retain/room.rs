//! Making room for an epoch that does not fit: rounds are merged, then points are dropped, the
//! oldest first, never one that is always kept, and never in silence.

use std::collections::BTreeSet;

use blocks::{ByteLen, Epoch};

use super::{Choice, RetainError, Step};
use crate::{DiskPoint, disk::DiskShared};

/// What was done to make room.
#[derive(Debug, Default)]
pub(crate) struct Relief {
    /// Points that were dropped, oldest first.
    pub(crate) dropped: Vec<DiskPoint>,
    /// Whether it was enough.
    pub(crate) is_enough: bool,
}

impl DiskShared {
    /// Makes `wanted` bytes fit the quota, if there is one.
    pub(crate) fn make_room_in_quota(&self, wanted: ByteLen) -> Relief {
        self.relieve(|| {
            let needed = self.registry.bytes().0.saturating_add(wanted.0);
            self.registry.quota().is_none_or(|quota| needed <= quota.0)
        })
    }

    /// Gives back at least `wanted` bytes of what the deltas of this disk take.
    pub(crate) fn free(&self, wanted: ByteLen) -> Relief {
        let before = self.pending_bytes();
        self.relieve(|| self.pending_bytes().0.saturating_add(wanted.0) <= before.0)
    }

    fn pending_bytes(&self) -> ByteLen {
        ByteLen(self.books().pending.iter().map(|delta| delta.len.0).sum())
    }

    /// Does steps until it is enough or nothing is left to be done. A step that fails ends it: it
    /// may have needed room itself.
    fn relieve(&self, is_enough: impl Fn() -> bool) -> Relief {
        let mut relief = Relief::default();
        while !is_enough() {
            match self.relief_step() {
                Ok(Some(dropped)) => relief.dropped.extend(dropped),
                Ok(None) | Err(_) => return relief,
            }
        }
        relief.is_enough = true;
        relief
    }

    /// Does the next step that gives room back, and tells what it dropped; nothing if there is
    /// none.
    fn relief_step(&self) -> Result<Option<Vec<DiskPoint>>, RetainError> {
        let folding = self.lock_folding();
        // What costs no point first; then the oldest point that may go.
        let mut keep: BTreeSet<Epoch> = self.books().points().iter().map(|p| p.epoch).collect();
        let through = keep.last().copied().unwrap_or(Epoch::NONE);
        loop {
            match self.retain_step(&folding, Choice { keep: &keep, through })? {
                Step::Folded { dropped, .. } | Step::Merged { dropped, .. } => {
                    return Ok(Some(dropped));
                }
                Step::Done if keep.pop_first().is_none() => return Ok(None),
                Step::Done => {}
            }
        }
    }
}
