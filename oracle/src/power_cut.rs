//! The rule for a disk with a volatile cache whose power is cut: the target's own store.
//!
//! Everything that completed before the issue of the last completed flush is there, or was
//! replaced; of the rest, any subset. So each unit by itself must be explained at *some* instant
//! between that issue and the cut, and no common instant is asked for.

use blocks::MonotonicNs;

use crate::{
    Counterexample, History, Observed, Outcome, Window, check::contents, counterexample::Story,
    explain::explain,
};

/// One flush of the disk's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// When, before it was.
    pub issued: MonotonicNs,
    /// How it ended. Nothing is believed of one that failed.
    pub outcome: Outcome,
}

/// Whether a disk may hold this after its power was cut at `cut`. One history is one disk's cache.
pub fn check_power_cut(
    history: &History,
    observed: &Observed,
    flushes: &[Flush],
    cut: MonotonicNs,
) -> Result<(), Box<Counterexample>> {
    let counted = |flush: &&Flush| matches!(flush.outcome, Outcome::Completed(at) if at <= cut);
    let last = flushes.iter().filter(counted).map(|flush| flush.issued).max();
    let window = Window { earliest: last.unwrap_or_default(), latest: cut };
    let mut found = Vec::new();
    for (place, block, content) in contents(history, observed) {
        found.clear();
        explain(history, (place, block), content, window, &mut found);
        if found.is_empty() {
            let story = Story { history, observed, unit: (place, block) };
            return Err(Box::new(story.never_in(window)));
        }
    }
    Ok(())
}
