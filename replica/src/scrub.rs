//! Verifying what is at rest, with the key, a piece at a time.
//!
//! Every byte of catalogue, key and deltas is under a checksum, and every frame must open under the
//! disk's key too. A base has neither: what it should hold only a comparison with the source can
//! tell. What is found damaged is remembered while the disk is open, so that no view of a point that
//! needs it is opened; a view that is open refuses it when it comes to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::{MutexGuard, PoisonError},
};

use blocks::{ByteLen, Epoch};
use wire::{CheckedFrame, SessionSalt};

use crate::{
    DiskPoint, History, MustReopenError,
    catalog::{Catalog, CatalogError},
    content::{ContentError, Scratch, open_and_decode},
    delta::{DeltaError, DeltaFile, FrameNumber},
    disk::{DiskShared, Pending},
    key_store::{self, KeyError},
    view::{LayerFault, Layers},
};

/// Where a scrub goes on: at a frame of the first delta that is not older than an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScrubCursor {
    epoch: Epoch,
    frame: FrameNumber,
}

/// A text that is no cursor.
#[derive(Debug, thiserror::Error)]
#[error("a cursor of a scrub is two numbers: EPOCH:FRAME")]
pub struct CursorError;

/// What a piece of a scrub did.
#[derive(Debug, Default)]
pub struct Scrubbed {
    /// How much was read.
    pub bytes: ByteLen,
    /// Where to go on; nothing if all is done.
    pub next: Option<ScrubCursor>,
    /// What does not verify.
    pub damage: Vec<Damaged>,
}

/// Something at rest that does not verify.
#[derive(Debug)]
pub struct Damaged {
    /// What it is.
    pub part: DamagedPart,
    /// The points that need it, and are lost.
    pub points: Vec<DiskPoint>,
}

/// What does not verify, and why.
#[derive(Debug, thiserror::Error)]
pub enum DamagedPart {
    /// The catalogue. What is open is not affected.
    #[error("the catalogue: {0}")]
    Catalog(#[source] CatalogError),
    /// The key. What is open is not affected.
    #[error("the key: {0}")]
    Key(#[source] KeyError),
    /// A delta as a whole.
    #[error("the delta of epoch {epoch}: {source}")]
    Delta {
        /// Its epoch.
        epoch: Epoch,
        /// What is wrong.
        source: DeltaError,
    },
    /// A frame of a delta.
    #[error("frame {frame} of the delta of epoch {epoch}: {source}")]
    Frame {
        /// The epoch of the delta.
        epoch: Epoch,
        /// Its place in the delta.
        frame: FrameNumber,
        /// What is wrong.
        source: LayerFault,
    },
}

/// Frames that were found damaged, by the epoch of their delta.
#[derive(Debug, Default)]
pub(crate) struct Damage(BTreeMap<Epoch, BTreeSet<FrameNumber>>);

impl History {
    /// Verifies the next `budget` bytes or a little more, from a cursor on; the default one begins
    /// at the beginning. Whoever calls it decides how often.
    pub fn scrub(&self, from: ScrubCursor, budget: ByteLen) -> Result<Scrubbed, MustReopenError> {
        let disk = &self.shared;
        let mut scrubbed = Scrubbed::default();
        if from == ScrubCursor::default() {
            disk.scrub_records(&mut scrubbed);
        }
        let mut cursor = from;
        loop {
            let delta = {
                let books = disk.books();
                books.check_health()?;
                books.pending.iter().copied().find(|delta| delta.link.epoch >= cursor.epoch)
            };
            let Some(delta) = delta else { return Ok(scrubbed) };
            if delta.link.epoch > cursor.epoch {
                cursor = ScrubCursor { epoch: delta.link.epoch, frame: 0 };
            }
            if scrubbed.bytes >= budget {
                scrubbed.next = Some(cursor);
                return Ok(scrubbed);
            }
            cursor = disk.scrub_delta(&delta, cursor.frame, budget, &mut scrubbed);
        }
    }
}

impl DiskShared {
    fn scrub_records(&self, scrubbed: &mut Scrubbed) {
        let (storage, disk) = (self.storage.as_ref(), self.identity.0);
        let mut found = |part| scrubbed.damage.push(Damaged { part, points: Vec::new() });
        if let Err(error) = Catalog::peek(storage, &self.paths, disk) {
            found(DamagedPart::Catalog(error));
        }
        if let Err(error) = key_store::load(storage, disk) {
            found(DamagedPart::Key(error));
        }
    }

    /// Verifies a delta from a frame on, until the budget is used; returns where to go on.
    fn scrub_delta(
        &self,
        pending: &Pending,
        from: FrameNumber,
        budget: ByteLen,
        scrubbed: &mut Scrubbed,
    ) -> ScrubCursor {
        let epoch = pending.link.epoch;
        let next_delta = ScrubCursor { epoch: epoch.next(), frame: 0 };
        let opened = self.open_for_scrub(pending);
        let (delta, salt) = match opened {
            Ok(opened) => opened,
            Err(source) => {
                // Merged or folded and removed since it was found in the books.
                if self.books().pending.contains(pending) {
                    let part = DamagedPart::Delta { epoch, source };
                    scrubbed.damage.push(Damaged { part, points: self.points_from(epoch) });
                }
                return next_delta;
            }
        };
        let mut scratch = Scratch::new();
        for (frame, at) in (0..).zip(delta.frames()).skip(from as usize) {
            if scrubbed.bytes >= budget {
                return ScrubCursor { epoch, frame };
            }
            scrubbed.bytes.0 += u64::from(at.len);
            let read = delta.read_content(at).map_err(LayerFault::from);
            let verified = read.and_then(|read| {
                self.verify_frame(&read, salt, delta.extents_of(frame), &mut scratch)
            });
            if let Err(source) = verified {
                self.damage().0.entry(epoch).or_default().insert(frame);
                let part = DamagedPart::Frame { epoch, frame, source };
                scrubbed.damage.push(Damaged { part, points: self.points_lost(epoch, frame) });
            }
        }
        // Index, point, trailer and end frame were read to open it.
        let content: u64 = delta.frames().iter().map(|at| u64::from(at.len)).sum();
        scrubbed.bytes.0 += delta.len().0 - content;
        next_delta
    }

    fn open_for_scrub(&self, pending: &Pending) -> Result<(DeltaFile, SessionSalt), DeltaError> {
        let path = self.paths.delta(pending.link.epoch);
        let delta = DeltaFile::open(self.storage.as_ref(), &path)?;
        if delta.name().link != pending.link {
            return Err(DeltaError::Foreign);
        }
        let salt = delta.authentic_salt(&self.taker.opener)?;
        Ok((delta, salt))
    }

    fn verify_frame(
        &self,
        frame: &CheckedFrame,
        salt: SessionSalt,
        listed: Option<&[wire::FrameExtent]>,
        scratch: &mut Scratch,
    ) -> Result<(), LayerFault> {
        if frame.header().salt != salt || listed.is_some_and(|listed| listed != frame.extents()) {
            return Err(LayerFault::Index);
        }
        if !self.taker.holds(frame) {
            return Err(ContentError::PastEnd.into());
        }
        open_and_decode(&self.taker.opener, frame, scratch)?;
        Ok(())
    }

    /// The points that can't be read without a delta.
    fn points_from(&self, epoch: Epoch) -> Vec<DiskPoint> {
        self.books().points().into_iter().filter(|point| point.epoch >= epoch).collect()
    }

    /// The points that need a frame: those of its epoch and later, until all of it is overwritten.
    fn points_lost(&self, epoch: Epoch, frame: FrameNumber) -> Vec<DiskPoint> {
        let needs = |point: &DiskPoint| {
            // A point that can't be opened is lost as well.
            self.layers_at(point.epoch, 0).map_or(true, |layers| layers.holds(epoch, frame))
        };
        self.points_from(epoch).into_iter().take_while(needs).collect()
    }

    /// The epoch of a damaged frame that is needed to read `layers`, if there is one.
    pub(crate) fn damage_in(&self, layers: &Layers) -> Option<Epoch> {
        let damage = self.damage();
        let needed = |(epoch, frames): (&Epoch, &BTreeSet<FrameNumber>)| {
            frames.iter().any(|frame| layers.holds(*epoch, *frame)).then_some(*epoch)
        };
        damage.0.iter().find_map(needed)
    }

    fn damage(&self) -> MutexGuard<'_, Damage> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for ScrubCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.frame)
    }
}

impl FromStr for ScrubCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (epoch, frame) = text.split_once(':').ok_or(CursorError)?;
        let epoch = Epoch(epoch.parse().map_err(|_| CursorError)?);
        Ok(Self { epoch, frame: frame.parse().map_err(|_| CursorError)? })
    }
}
