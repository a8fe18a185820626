//! Why a point is no instant, as a story that a person can follow.

use std::fmt;

use blocks::{Extent, MonotonicNs};

use crate::{
    Content, History, Instants, Observed, Stamp, Unit, Window,
    check::instants,
    explain::explain,
    history::{NEVER, Write},
    instants::Seconds,
    layout::Place,
};

/// Why a point is invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Counterexample {
    /// A unit holds what no write, and nothing before the first, put there.
    #[error("{} holds {content}, which nothing in the log explains{}", Where(unit, extent), Found(stranger.as_ref()))]
    Unexplained {
        /// The unit.
        unit: Unit,
        /// Its sectors.
        extent: Extent,
        /// What it holds.
        content: Content,
        /// The stamp that was found there, if it is one that does not belong there.
        stranger: Option<Stamp>,
    },
    /// There is no instant at which all of these could be true; nearly always two.
    #[error("no instant suits these together:{}", List(witnesses))]
    NoInstant {
        /// None of them can be left out.
        witnesses: Vec<Witness>,
    },
    /// A later write of a stream is shown, so an earlier one was acknowledged, and it is missing.
    #[error(
        "stream {stream} is shown up to write {shown}, which was issued after write {missing} was \
         acknowledged; but {}, which write {missing} covers, holds {content}",
        Where(unit, extent)
    )]
    BrokenChain {
        /// The stream.
        stream: u32,
        /// Its newest write that is shown.
        shown: u64,
        /// An earlier one that is not.
        missing: u64,
        /// Where it is missing.
        unit: Unit,
        /// The unit's sectors.
        extent: Extent,
        /// What is there instead.
        content: Content,
    },
}

/// One of several things that can't be true together.
#[derive(Debug)]
pub enum Witness {
    /// What a unit holds.
    Unit(Box<UnitWitness>),
    /// When the cut is claimed to have been.
    Claim(Window),
}

/// A unit's content and the writes that say when it was there.
#[derive(Debug)]
pub struct UnitWitness {
    /// The unit.
    pub unit: Unit,
    /// Its sectors.
    pub extent: Extent,
    /// What it holds.
    pub content: Content,
    /// When that may have been there.
    pub when: Instants,
    /// The write that put it there, if a single one explains it.
    pub written_by: Option<WriteLine>,
    /// The write that replaced it, if one did.
    pub replaced_by: Option<WriteLine>,
}

/// One line of the log.
#[derive(Clone, Copy, Debug)]
pub struct WriteLine {
    /// The stream.
    pub stream: u32,
    /// The number of the write.
    pub write: u64,
    /// What it covers.
    pub extent: Extent,
    /// When it was issued.
    pub issued: MonotonicNs,
    /// When it was acknowledged, if it was.
    pub acknowledged: Option<MonotonicNs>,
}

/// A unit of a point whose story is to be told.
pub(crate) struct Story<'a> {
    pub(crate) history: &'a History,
    pub(crate) observed: &'a Observed,
    pub(crate) unit: (Place, usize),
}

impl Story<'_> {
    /// The unit by itself rules out the window.
    pub(crate) fn never_in(&self, window: Window) -> Counterexample {
        let witness = self.witness(Window::ANY);
        if witness.when.is_empty() {
            return self.unexplained();
        }
        let witnesses = vec![Witness::Claim(window), Witness::Unit(Box::new(witness))];
        Counterexample::NoInstant { witnesses }
    }

    pub(crate) fn unexplained(&self) -> Counterexample {
        let (unit, extent, content) = self.facts();
        let stranger = self.observed.stranger(unit).copied();
        Counterexample::Unexplained { unit, extent, content, stranger }
    }

    pub(crate) fn broken_chain(&self, shown: &Write, missing: &Write) -> Counterexample {
        let (unit, extent, content) = self.facts();
        Counterexample::BrokenChain {
            stream: shown.stream,
            shown: shown.number,
            missing: missing.number,
            unit,
            extent,
            content,
        }
    }

    pub(crate) fn witness(&self, window: Window) -> UnitWitness {
        let (unit, extent, content) = self.facts();
        let mut found = Vec::new();
        explain(self.history, self.unit, content, window, &mut found);
        let line = |index| WriteLine::of(self.history.write(index));
        let (written_by, replaced_by) = match found.as_slice() {
            [only] => (only.last.map(line), only.ended_by.map(line)),
            _ => (None, None),
        };
        UnitWitness { unit, extent, content, when: instants(&found), written_by, replaced_by }
    }

    fn facts(&self) -> (Unit, Extent, Content) {
        let (place, block) = self.unit;
        let layout = self.history.layout();
        let unit = layout.unit(place, block);
        (unit, layout.extent_of(unit), self.observed.content(place, block))
    }
}

impl WriteLine {
    fn of(write: &Write) -> Self {
        Self {
            stream: write.stream,
            write: write.number,
            extent: History::extent(write),
            issued: write.issued,
            acknowledged: (write.completed != NEVER).then_some(write.completed),
        }
    }
}

struct Where<'a>(&'a Unit, &'a Extent);

impl fmt::Display for Where<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (sectors {} to {})", self.0, self.1.start.0, self.1.end().0)
    }
}

struct Found<'a>(Option<&'a Stamp>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(stamp) = self.0 else { return Ok(()) };
        let Stamp { run, disk, stream, sector, write, .. } = stamp;
        write!(
            f,
            "; its stamp says run {run:#x}, disk {disk}, sector {sector}, write {write} of stream \
             {stream}"
        )
    }
}

struct List<'a>(&'a [Witness]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|witness| write!(f, "\n  - {witness}"))
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(window) => write!(f, "the cut is claimed at {window}"),
            Self::Unit(witness) => witness.fmt(f),
        }
    }
}

impl fmt::Display for UnitWitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, extent, content, when, .. } = self;
        write!(f, "{} holds {content}, possible {when}", Where(unit, extent))?;
        if let Some(write) = &self.written_by {
            write!(f, ": {write}")?;
        }
        if let Some(write) = &self.replaced_by {
            write!(f, ": it was replaced by {write}")?;
        }
        Ok(())
    }
}

impl fmt::Display for WriteLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, write, extent, issued, .. } = self;
        let (start, end) = (extent.start.0, extent.end().0);
        write!(f, "write {write} of stream {stream} (sectors {start} to {end}), issued at ")?;
        write!(f, "{}, ", Seconds(*issued))?;
        match self.acknowledged {
            Some(at) => write!(f, "acknowledged at {}", Seconds(at)),
            None => f.write_str("never acknowledged"),
        }
    }
}
