//! The chain rule: linear, and no clock takes part.
//!
//! A stream that issues its write n + 1 after the acknowledgement of n is a *chain*: what a point
//! shows of it is a prefix plus at most one. If the newest write shown is n, every write below n
//! was acknowledged before n was issued, so none of them may be missing, wherever the cut was.
//!
//! Not judged are units that were discarded, and zeroes where zeroes were written: they have more
//! than one reason, which the point-in-time check weighs.

use crate::{
    Content, Counterexample, History, Observed,
    check::contents,
    counterexample::Story,
    history::{Effect, Write},
    layout::Place,
    unit_index::Entry,
};

/// What the chain rule had to work with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainReport {
    /// Streams that are chains and are shown at all.
    pub chains: usize,
    /// The sum of the numbers of their newest writes shown.
    pub shown: u64,
}

/// Applies the rule to every stream that is a chain.
pub fn check_chains(
    history: &History,
    observed: &Observed,
) -> Result<ChainReport, Box<Counterexample>> {
    let newest = newest_shown(history, observed)?;
    let chains = Chains { history, newest };
    for (place, block, content) in contents(history, observed) {
        if let Some((shown, missing)) = chains.missing(place, block, content) {
            let story = Story { history, observed, unit: (place, block) };
            return Err(Box::new(story.broken_chain(shown, missing)));
        }
    }
    let mut report = ChainReport::default();
    for write in chains.newest.iter().flatten() {
        report.chains += 1;
        report.shown += write.number;
    }
    Ok(report)
}

/// The newest write shown of each chain; `None` for what is no chain or not shown.
fn newest_shown<'a>(
    history: &'a History,
    observed: &Observed,
) -> Result<Vec<Option<&'a Write>>, Box<Counterexample>> {
    let mut newest: Vec<Option<&Write>> = vec![None; history.streams().len()];
    for (place, block, content) in contents(history, observed) {
        let Content::Write { stream, write, .. } = content else { continue };
        // Where a discard left the content undefined, it may be anything.
        if history.kinds(place, block).discards || history.initial(place, block) == content {
            continue;
        }
        let unit = history.layout().unit(place, block);
        let found = history.find(stream, write).map(|index| (index, history.write(index)));
        let explains = |(index, write): &(u32, &Write)| {
            write.effect == Effect::Stamps(*index)
                && history.covers(write, unit)
                && history.explains(write, block, content)
        };
        let Some((_, write)) = found.filter(explains) else {
            let story = Story { history, observed, unit: (place, block) };
            return Err(Box::new(story.unexplained()));
        };
        let at = history.stream(stream).expect("the write was found");
        if history.streams()[at].is_chain
            && newest[at].is_none_or(|shown| shown.number < write.number)
        {
            newest[at] = Some(write);
        }
    }
    Ok(newest)
}

struct Chains<'a> {
    history: &'a History,
    newest: Vec<Option<&'a Write>>,
}

impl<'a> Chains<'a> {
    /// The newest write shown of a chain, and one below it that the block lacks.
    fn missing(
        &self,
        place: Place,
        block: usize,
        content: Content,
    ) -> Option<(&'a Write, &'a Write)> {
        let kinds = self.history.kinds(place, block);
        let entries = self.history.entries(place, block);
        if kinds.discards {
            return None;
        }
        match content {
            _ if content == self.history.initial(place, block) => {
                let ambiguous = content == Content::Zeroes && kinds.zeroes;
                if ambiguous { None } else { self.first_settled(entries) }
            }
            Content::Write { stream, write, .. } => {
                let newest = self.newest[self.history.stream(stream)?]?;
                let index = self.history.find(stream, write)?;
                let (last, behind) = self.last_of(entries, index, kinds.repeats);
                self.settled_after(last, &entries[behind..], newest)
            }
            _ => None,
        }
    }

    /// The last write of the block that makes it show the stamps of the write `index`, and where
    /// the writes issued after it begin.
    fn last_of(&self, entries: &[Entry], index: u32, repeated: bool) -> (&'a Write, usize) {
        let shows = |entry: &Entry| self.history.write(entry.write).effect == Effect::Stamps(index);
        let last = if repeated { entries.iter().rfind(|entry| shows(entry)) } else { None };
        let write = self.history.write(last.map_or(index, |entry| entry.write));
        let issued = |entry: &Entry| self.history.write(entry.write).issued;
        (write, entries.partition_point(|entry| issued(entry) <= write.issued))
    }

    /// A write behind `last` in its stream, below the newest that is shown.
    fn settled_after(
        &self,
        last: &Write,
        entries: &[Entry],
        newest: &'a Write,
    ) -> Option<(&'a Write, &'a Write)> {
        let writes = entries.iter().map(|entry| self.history.write(entry.write));
        // A stream's own log is in order: what was issued after its newest is no matter.
        let mut before = writes.take_while(|write| write.issued < newest.issued);
        before.find(|write| write.stream == last.stream).map(|write| (newest, write))
    }

    /// A write of any chain below the newest that is shown of it.
    fn first_settled(&self, entries: &[Entry]) -> Option<(&'a Write, &'a Write)> {
        entries.iter().find_map(|entry| {
            let write = self.history.write(entry.write);
            let newest = self.newest[self.history.stream(write.stream)?]?;
            (write.number < newest.number).then_some((newest, write))
        })
    }
}
