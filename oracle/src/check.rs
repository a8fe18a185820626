//! The point-in-time check.
//!
//! A point is valid if there is an instant T in the claimed window such that every unit's content
//! is the last of some real-time-respecting order of: all writes completed before T, any subset of
//! those in flight at T, none issued after T. Whether that is so for one unit at one T does not
//! depend on other units; so T is feasible where it is in every unit's set of instants
//! (`explain.rs`). Intervals are closed: a write that completes at T itself counts as in flight.

use crate::{
    Content, Counterexample, History, Instants, Observed, Window,
    chain::check_chains,
    counterexample::{Story, Witness},
    explain::{Explanation, explain},
    layout::Place,
};

/// What became of a point.
#[derive(Debug)]
pub enum Verdict {
    /// It is the state at any one of these instants, all within the claimed window.
    Valid(Instants),
    /// It is the state at no instant of the window.
    Invalid(Box<Counterexample>),
}

impl Verdict {
    /// The feasible instants, or the counterexample as an error.
    pub fn into_result(self) -> Result<Instants, Box<Counterexample>> {
        match self {
            Self::Valid(instants) => Ok(instants),
            Self::Invalid(counterexample) => Err(counterexample),
        }
    }
}

/// The chain rule first, which no clock can mislead, then the check.
pub fn judge(history: &History, observed: &Observed, window: Window) -> Verdict {
    match check_chains(history, observed) {
        Ok(_) => check(history, observed, window),
        Err(counterexample) => Verdict::Invalid(counterexample),
    }
}

/// Whether a point's content is the state at some instant of `window`, over all disks.
///
/// Linear in the units; a unit costs a search among its writes.
pub fn check(history: &History, observed: &Observed, window: Window) -> Verdict {
    let mut feasible = Instants::of([window]);
    let mut found = Vec::new();
    for (place, block, content) in contents(history, observed) {
        if history.entries(place, block).is_empty() && history.initial(place, block) == content {
            continue;
        }
        found.clear();
        explain(history, (place, block), content, window, &mut found);
        feasible.keep(&instants(&found));
        if feasible.is_empty() {
            return Verdict::Invalid(Box::new(blame(history, observed, window)));
        }
    }
    Verdict::Valid(feasible)
}

/// Every unit of a point, by the place of its disk and its block.
pub(crate) fn contents<'a>(
    history: &'a History,
    observed: &'a Observed,
) -> impl Iterator<Item = (Place, usize, Content)> {
    let layout = history.layout();
    let blocks = |place| (0..layout.blocks(place)).map(move |block| (place, block));
    let units = (0..layout.disks().len()).flat_map(blocks);
    units.map(|(place, block)| (place, block, observed.content(place, block)))
}

pub(crate) fn instants(found: &[Explanation]) -> Instants {
    Instants::of(found.iter().map(|explanation| explanation.when))
}

/// The smallest set of units, nearly always two, that no instant of the window suits.
fn blame(history: &History, observed: &Observed, window: Window) -> Counterexample {
    let story = |unit| Story { history, observed, unit };
    let mut found = Vec::new();
    let mut when = |(place, block, content)| {
        found.clear();
        explain(history, (place, block), content, window, &mut found);
        instants(&found)
    };
    let (mut latest, mut earliest) = (None, None);
    for (place, block, content) in contents(history, observed) {
        let Some(hull) = when((place, block, content)).hull() else {
            return story((place, block)).never_in(window);
        };
        let unit = (place, block);
        if latest.is_none_or(|(at, _)| hull.earliest > at) {
            latest = Some((hull.earliest, unit));
        }
        if earliest.is_none_or(|(at, _)| hull.latest < at) {
            earliest = Some((hull.latest, unit));
        }
    }
    let units = match (latest, earliest) {
        (Some((from, late)), Some((to, early))) if from > to => vec![early, late],
        _ => core(history, observed, window, when),
    };
    let witness = |unit| Witness::Unit(Box::new(story(unit).witness(window)));
    Counterexample::NoInstant { witnesses: units.into_iter().map(witness).collect() }
}

/// Units whose instants have none in common, none of which can be left out.
///
/// Only where several writes explain one content can it take more than two.
fn core(
    history: &History,
    observed: &Observed,
    window: Window,
    mut when: impl FnMut((Place, usize, Content)) -> Instants,
) -> Vec<(Place, usize)> {
    let mut core: Vec<((Place, usize), Instants)> = Vec::new();
    let common = |of: &[((Place, usize), Instants)]| {
        let mut common = Instants::of([window]);
        of.iter().for_each(|(_, instants)| common.keep(instants));
        common
    };
    while !common(&core).is_empty() {
        let mut left = common(&core);
        let closes = contents(history, observed).find_map(|(place, block, content)| {
            let instants = when((place, block, content));
            left.keep(&instants);
            left.is_empty().then_some(((place, block), instants))
        });
        core.push(closes.expect("the point is not feasible"));
    }
    let mut at = 0;
    while at < core.len() {
        let dropped = core.remove(at);
        if !common(&core).is_empty() {
            core.insert(at, dropped);
            at += 1;
        }
    }
    core.into_iter().map(|(unit, _)| unit).collect()
}
