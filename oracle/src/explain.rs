//! When a unit may hold what it holds.
//!
//! Content of write w may be there at T in `[issue(w), min{completion(x)}]` over all writes x on
//! the unit with `issue(x) > completion(w)`: before, w did not exist; after, x has replaced it. A
//! write that overlaps w in time bounds nothing, as either may be the last.
//! Several writes that explain the content: any of their intervals.

use blocks::MonotonicNs;

use crate::{Content, History, Window, history::Write, layout::Place, unit_index::Entry};

/// One reason for a unit's content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Explanation {
    /// The write that is the last on the unit; `None`: nothing was written yet.
    pub(crate) last: Option<u32>,
    /// When that may be so, within the window that was asked for.
    pub(crate) when: Window,
    /// The write whose completion ends it, if one does.
    pub(crate) ended_by: Option<u32>,
}

/// Everything within `window` that explains a block's `content`, appended to `found`.
pub(crate) fn explain(
    history: &History,
    (place, block): (Place, usize),
    content: Content,
    window: Window,
    found: &mut Vec<Explanation>,
) {
    let entries = history.entries(place, block);
    let issued =
        entries.partition_point(|entry| history.write(entry.write).issued <= window.latest);
    let unit = UnitWrites { history, entries: &entries[..issued] };
    // The last issue of all writes that were over before the window begins. What completed before
    // it was replaced before the window begins.
    let mut settled = None;
    for entry in unit.entries.iter().rev() {
        if settled.is_some_and(|issue| history.write(entry.latest).completed < issue) {
            return;
        }
        let write = history.write(entry.write);
        if settled.is_none() && write.completed < window.earliest {
            settled = Some(write.issued);
        }
        let replaced = settled.is_some_and(|issue| write.completed < issue);
        if !replaced && history.explains(write, block, content) {
            found.extend(unit.explanation(Some((entry.write, write)), window));
        }
    }
    if settled.is_none() && history.initial(place, block) == content {
        found.extend(unit.explanation(None, window));
    }
}

/// The writes on a unit that were issued before the window ends, by issue.
struct UnitWrites<'a> {
    history: &'a History,
    entries: &'a [Entry],
}

impl UnitWrites<'_> {
    fn explanation(&self, last: Option<(u32, &Write)>, window: Window) -> Option<Explanation> {
        let (earliest, completed) = match last {
            Some((_, write)) => (write.issued, Some(write.completed)),
            None => (MonotonicNs(0), None),
        };
        let issue = |entry: &Entry| self.history.write(entry.write).issued;
        let first = match completed {
            Some(completed) => self.entries.partition_point(|entry| issue(entry) <= completed),
            None => 0,
        };
        let mut latest = window.latest;
        let mut ended_by = None;
        for entry in &self.entries[first..] {
            let next = self.history.write(entry.write);
            // What is issued after the end can't complete before it.
            if next.issued >= latest {
                break;
            }
            if next.completed < latest {
                (latest, ended_by) = (next.completed, Some(entry.write));
            }
        }
        let when = window.meet(Window { earliest, latest });
        (!when.is_empty()).then_some(Explanation { last: last.map(|(at, _)| at), when, ended_by })
    }
}
