//! Every write of a run, indexed once by stream and by unit.
//!
//! Invariant: `writes` rise by (stream, number).
//!
//! After a crash of the source with a volatile cache a new history begins: what the source holds
//! after its recovery is the [`Initial`] content, and only writes issued since are records.
//! Writes that the crash reverted are then not in it, so a point that still shows one is invalid.

use blocks::{Extent, MonotonicNs, Sector};

use crate::{
    Content, Layout, Observed, Outcome, Record, Unit, WriteKind,
    layout::Place,
    unit_index::{Entry, Kinds, UnitIndex},
};

/// A completion that never came.
pub(crate) const NEVER: MonotonicNs = MonotonicNs(u64::MAX);

/// What the disks held before the first record.
#[derive(Clone, Debug)]
pub enum Initial {
    /// Zeroes.
    Zeroes,
    /// This.
    Image(Observed),
}

/// Records that can't be of one run on these disks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HistoryError {
    /// The record's disk is not in the layout.
    #[error("{0:?}: its disk is not one of the run")]
    UnknownDisk(Box<Record>),
    /// Empty, past the end, or not of whole logical blocks.
    #[error("{0:?}: not whole blocks of its disk")]
    Range(Box<Record>),
    /// Its completion precedes its issue.
    #[error("{0:?}: completed before it was issued")]
    Order(Box<Record>),
    /// Two writes of one number in one stream.
    #[error("stream {stream} has two writes {write}")]
    Twice {
        /// The stream.
        stream: u32,
        /// The number.
        write: u64,
    },
    /// The write that is repeated is unknown, no stamped one, or does not cover its repetition.
    #[error("write {write} of stream {stream} repeats what is not there")]
    Repeat {
        /// The stream.
        stream: u32,
        /// The number of the repetition.
        write: u64,
    },
}

/// One write, as the checks need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) issued: MonotonicNs,
    /// [`NEVER`] if it failed or is in flight.
    pub(crate) completed: MonotonicNs,
    pub(crate) number: u64,
    pub(crate) start: Sector,
    pub(crate) sectors: u32,
    pub(crate) stream: u32,
    pub(crate) place: u32,
    pub(crate) effect: Effect,
}

/// What a unit shows after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The stamps of the write with this index: its own, or the one it repeats.
    Stamps(u32),
    Zeroes,
    Anything,
}

/// The writes of a run.
pub struct History {
    layout: Layout,
    initial: Initial,
    writes: Vec<Write>,
    streams: Vec<Stream>,
    disks: Vec<UnitIndex>,
    acknowledgements: Vec<MonotonicNs>,
}

/// The writes of one stream are `writes[first..end]`.
pub(crate) struct Stream {
    pub(crate) number: u32,
    pub(crate) first: usize,
    pub(crate) end: usize,
    /// Every write was issued after the one before was acknowledged.
    pub(crate) is_chain: bool,
}

impl History {
    /// Indexes the records of a run, which may come in any order.
    pub fn new(
        layout: Layout,
        initial: Initial,
        records: impl IntoIterator<Item = Record>,
    ) -> Result<Self, HistoryError> {
        let mut kinds = Vec::new();
        let mut writes = Vec::new();
        for record in records {
            writes.push(checked(&layout, &record)?);
            if let WriteKind::Repeat { of } = record.issue.kind {
                kinds.push((record.issue.stream, record.issue.write, of));
            }
        }
        writes.sort_unstable_by_key(|write| (write.stream, write.number));
        let streams = streams(&writes)?;
        // A write's own index is known only now.
        for (index, write) in (0..).zip(&mut writes) {
            if matches!(write.effect, Effect::Stamps(_)) {
                write.effect = Effect::Stamps(index);
            }
        }
        let mut history = Self {
            disks: Vec::new(),
            acknowledgements: acknowledgements(&writes),
            layout,
            initial,
            writes,
            streams,
        };
        for (stream, write, of) in kinds {
            history.repeat(stream, write, of)?;
        }
        let order = history.by_issue();
        let places = 0..history.layout.disks().len();
        history.disks = places
            .map(|place| UnitIndex::new(&history.layout, place, &history.writes, &order))
            .collect();
        Ok(history)
    }

    /// The disks of the run.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How many writes there are.
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// The last acknowledgement that is not after `instant`.
    pub fn acknowledged_by(&self, instant: MonotonicNs) -> Option<MonotonicNs> {
        let before = self.acknowledgements.partition_point(|at| *at <= instant);
        before.checked_sub(1).map(|last| self.acknowledgements[last])
    }

    pub(crate) fn write(&self, index: u32) -> &Write {
        &self.writes[index as usize]
    }

    pub(crate) fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// The place of a stream among [`Self::streams`].
    pub(crate) fn stream(&self, number: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&number, |stream| stream.number).ok()
    }

    /// The index of a stream's write.
    pub(crate) fn find(&self, stream: u32, number: u64) -> Option<u32> {
        let stream = &self.streams[self.stream(stream)?];
        let writes = &self.writes[stream.first..stream.end];
        // Numbers nearly always rise by one.
        let guess = usize::try_from(number.checked_sub(writes.first()?.number)?).ok()?;
        let at = match writes.get(guess) {
            Some(write) if write.number == number => guess,
            _ => writes.binary_search_by_key(&number, |write| write.number).ok()?,
        };
        u32::try_from(stream.first + at).ok()
    }

    /// The writes on a block, by issue.
    pub(crate) fn entries(&self, place: Place, block: usize) -> &[Entry] {
        self.disks[place].entries(block)
    }

    /// Which kinds of writes reached a block.
    pub(crate) fn kinds(&self, place: Place, block: usize) -> Kinds {
        self.disks[place].kinds(block)
    }

    /// What a block held before the first record.
    pub(crate) fn initial(&self, place: Place, block: usize) -> Content {
        match &self.initial {
            Initial::Zeroes => Content::Zeroes,
            Initial::Image(image) => image.content(place, block),
        }
    }

    /// Whether a write, if it is the last on a block, makes it show `content`.
    pub(crate) fn explains(&self, write: &Write, block: usize, content: Content) -> bool {
        match (write.effect, content) {
            (Effect::Anything, _) | (Effect::Zeroes, Content::Zeroes) => true,
            (Effect::Stamps(stamps), Content::Write { stream, write: number, index }) => {
                let stamps = self.write(stamps);
                let sectors = self.layout.block_sectors(write.place as usize);
                let first = block as u64 * sectors;
                (stamps.stream, stamps.number) == (stream, number)
                    && stamps.start.0 + u64::from(index) == first
            }
            _ => false,
        }
    }

    pub(crate) fn extent(write: &Write) -> Extent {
        Extent { start: write.start, sectors: u64::from(write.sectors) }
    }

    /// Whether a write covers a unit.
    pub(crate) fn covers(&self, write: &Write, unit: Unit) -> bool {
        let at = self.layout.extent_of(unit);
        self.layout.place(unit.disk) == Some(write.place as usize)
            && write.start <= at.start
            && at.end() <= Self::extent(write).end()
    }

    /// Points a repetition at what it repeats.
    fn repeat(&mut self, stream: u32, number: u64, of: u64) -> Result<(), HistoryError> {
        let error = HistoryError::Repeat { stream, write: number };
        let (Some(index), Some(source)) = (self.find(stream, number), self.find(stream, of)) else {
            return Err(error);
        };
        let (write, original) = (*self.write(index), self.write(source));
        let (inner, outer) = (Self::extent(&write), Self::extent(original));
        let whole = original.place == write.place
            && outer.start <= inner.start
            && inner.end() <= outer.end()
            && original.effect == Effect::Stamps(source)
            && of < number;
        if !whole {
            return Err(error);
        }
        self.writes[index as usize].effect = Effect::Stamps(source);
        Ok(())
    }

    fn by_issue(&self) -> Vec<u32> {
        let count = u32::try_from(self.writes.len()).expect("fewer than 2^32 writes");
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_unstable_by_key(|index| (self.write(*index).issued, *index));
        order
    }
}

fn checked(layout: &Layout, record: &Record) -> Result<Write, HistoryError> {
    let Record { issue, issued, outcome } = *record;
    let unknown = || HistoryError::UnknownDisk(Box::new(*record));
    let place = layout.place(issue.disk).ok_or_else(unknown)?;
    let per_block = layout.block_sectors(place);
    let extent = issue.extent;
    let whole =
        extent.start.0.is_multiple_of(per_block) && extent.sectors.is_multiple_of(per_block);
    if extent.is_empty() || !whole || !layout.disks()[place].1.holds(extent) {
        return Err(HistoryError::Range(Box::new(*record)));
    }
    let completed = match outcome {
        Outcome::Completed(at) => at,
        Outcome::InFlight | Outcome::Failed => NEVER,
    };
    if completed < issued {
        return Err(HistoryError::Order(Box::new(*record)));
    }
    let range = || HistoryError::Range(Box::new(*record));
    Ok(Write {
        issued,
        completed,
        number: issue.write,
        start: extent.start,
        sectors: u32::try_from(extent.sectors).map_err(|_| range())?,
        stream: issue.stream,
        place: u32::try_from(place).expect("few disks"),
        effect: match issue.kind {
            WriteKind::Data | WriteKind::Repeat { .. } => Effect::Stamps(0),
            WriteKind::Zeroes => Effect::Zeroes,
            WriteKind::Discard => Effect::Anything,
        },
    })
}

fn streams(writes: &[Write]) -> Result<Vec<Stream>, HistoryError> {
    let mut streams = Vec::new();
    let mut first = 0;
    for writes in writes.chunk_by(|left, right| left.stream == right.stream) {
        let mut is_chain = true;
        for pair in writes.windows(2) {
            if pair[0].number == pair[1].number {
                let (stream, write) = (pair[0].stream, pair[0].number);
                return Err(HistoryError::Twice { stream, write });
            }
            is_chain &= pair[0].completed < pair[1].issued;
        }
        let end = first + writes.len();
        streams.push(Stream { number: writes[0].stream, first, end, is_chain });
        first = end;
    }
    Ok(streams)
}

fn acknowledgements(writes: &[Write]) -> Vec<MonotonicNs> {
    let completions = writes.iter().map(|write| write.completed);
    let mut acknowledged: Vec<_> = completions.filter(|at| *at != NEVER).collect();
    acknowledged.sort_unstable();
    acknowledged
}
