//! The chain rule: linear, and no clock takes part.
//!
//! A stream that issues its write n + 1 after the acknowledgement of n is a *chain*: what a point
//! shows of it is a prefix plus at most one. If the newest write shown is n, every write below n
//! was acknowledged before n was issued, so none of them may be missing, wherever the cut was.
//!
//! Judged are units on which there were stamped writes only; what discards, zeroes and repetitions
//! leave behind has more than one reason, which the point-in-time check weighs.

use crate::{
    Content, Counterexample, History, Observed,
    check::contents,
    counterexample::Story,
    history::{Effect, Write},
    layout::Place,
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
        if history.is_mixed(place, block) {
            continue;
        }
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
        if history.initial(place, block) == content {
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
            // Where a discard left the content undefined, it may be anything.
            if history.is_mixed(place, block) {
                continue;
            }
            let story = Story { history, observed, unit: (place, block) };
            return Err(Box::new(story.unexplained()));
        };
        let at = history.stream(stream).expect("the write was found");
        if history.streams()[at].is_chain {
            let newer = newest[at].is_none_or(|shown| shown.number < write.number);
            newest[at] = if newer { Some(write) } else { newest[at] };
        }
    }
    Ok(newest)
}

struct Chains<'a> {
    history: &'a History,
    newest: Vec<Option<&'a Write>>,
}

impl<'a> Chains<'a> {
    /// A write that must be on the block or below another, and the newer one that says so.
    fn missing(
        &self,
        place: Place,
        block: usize,
        content: Content,
    ) -> Option<(&'a Write, &'a Write)> {
        match content {
            Content::Write { stream, write, .. } => {
                let at = self.history.stream(stream)?;
                let index = self.history.find(stream, write)?;
                let newest = self.newest[at]?;
                self.settled(place, block, Some((self.history.write(index), newest)))
            }
            // The initial content, or nothing that this rule can judge.
            _ if content == self.history.initial(place, block) => self.settled(place, block, None),
            _ => None,
        }
    }

    /// The first settled write of the block: of the stream of `after.0` behind it, or of any chain.
    fn settled(
        &self,
        place: Place,
        block: usize,
        after: Option<(&'a Write, &'a Write)>,
    ) -> Option<(&'a Write, &'a Write)> {
        let entries = self.history.entries(place, block);
        let from = match after {
            Some((write, _)) => entries
                .partition_point(|entry| self.history.write(entry.write).issued <= write.issued),
            None => 0,
        };
        for entry in &entries[from..] {
            let write = self.history.write(entry.write);
            let newest = match after {
                // A stream's own log is in order: what was issued after its newest is no matter.
                Some((_, newest)) if write.issued >= newest.issued => return None,
                Some((shown, newest)) if write.stream == shown.stream => Some(newest),
                Some(_) => None,
                None => self.history.stream(write.stream).and_then(|at| self.newest[at]),
            };
            if let Some(newest) = newest.filter(|newest| write.number < newest.number) {
                return Some((newest, write));
            }
        }
        None
    }
}
