//! Seals of cuts: an epoch whose content is an image in memory, of one instant.

use blocks::{Bitmap, Coverage, MonotonicNs, SealedEpoch};

use super::{DiskTracker, Flight, Harvest};

impl DiskTracker {
    /// Whether the disk can take part in a cut: it follows, and nothing is in flight.
    ///
    /// The latter keeps pending bits apart. What a cut harvests is pending and known to nobody but
    /// the cut; an acknowledgement that came meanwhile could drop those bits.
    pub fn can_cut(&self) -> bool {
        self.coverage() == Coverage::Complete && !self.in_pass() && self.in_flight.is_empty()
    }

    /// The chunks that a cut must read although it does not harvest them. Until the cut has ended,
    /// nobody else harvests the disk, and nothing is sealed.
    pub fn begin_cut(&self) -> Bitmap {
        self.active.clone()
    }

    /// Seals a verified cut of the instant `at`, whose image holds `chunks`: everything from
    /// [`Self::begin_cut`], and all that was harvested since. An empty one makes an epoch too; the
    /// point needs one to be the state after.
    ///
    /// Answers with nothing, and makes the chunks dirty again, if the disk has stopped following
    /// since.
    pub fn seal_cut(&mut self, at: MonotonicNs, chunks: Bitmap) -> Option<SealedEpoch> {
        if !self.can_cut() {
            self.handle_harvest(&Harvest { started: at, chunks });
            return None;
        }
        // What the ring has told of since and the image does not hold was written after T.
        self.active.subtract(&chunks);
        self.last_harvest = self.last_harvest.max(at);
        self.sweep_due = false;
        let oldest_dirty = self.oldest_dirty.take();
        if !self.active.is_empty() {
            self.note_dirty(at);
        }
        let epoch = self.next_epoch;
        self.next_epoch = epoch.next();
        let coverage = Coverage::Complete;
        self.in_flight.push_back(Flight { epoch, chunks: chunks.clone(), coverage, oldest_dirty });
        Some(SealedEpoch::seal(epoch, chunks, coverage, true))
    }
}
