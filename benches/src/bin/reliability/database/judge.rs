//! Whether a recovered database is what it was at the cut, by what its clients know.

use std::collections::BTreeSet;

use blocks::MonotonicNs;
use serde::Serialize;

use super::clients::Transaction;

/// How a database compares with the log of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Held {
    /// Transactions acknowledged before the cut.
    pub(super) due: usize,
    /// Those of them that are not there.
    pub(super) missing: usize,
    /// Rows that are there, and were issued after the cut or never.
    pub(super) early: usize,
}

impl Held {
    pub(super) fn is_right(&self) -> bool {
        self.due > 0 && self.missing == 0 && self.early == 0
    }
}

/// Holds the rows of a database against the log. What was under way at the cut may be there.
pub(super) fn judge(log: &[Transaction], rows: &BTreeSet<u64>, cut: MonotonicNs) -> Held {
    let is_due = |one: &&Transaction| one.acknowledged.is_some_and(|when| when < cut);
    let due: Vec<&Transaction> = log.iter().filter(is_due).collect();
    let missing = due.iter().filter(|one| !rows.contains(&one.id)).count();
    let possible = log.iter().filter(|one| one.issued <= cut).map(|one| one.id);
    let possible: BTreeSet<u64> = possible.collect();
    Held { due: due.len(), missing, early: rows.difference(&possible).count() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: [Transaction; 3] = [done(1, 10, 20), done(2, 30, 50), done(3, 60, 70)];

    const fn done(id: u64, issued: u64, acknowledged: u64) -> Transaction {
        let acknowledged = Some(MonotonicNs(acknowledged));
        Transaction { id, issued: MonotonicNs(issued), acknowledged }
    }

    #[test]
    fn what_was_under_way_may_be_there_or_not() {
        let held = |rows: &[u64]| judge(&LOG, &rows.iter().copied().collect(), MonotonicNs(40));
        assert!(held(&[1]).is_right());
        assert!(held(&[1, 2]).is_right());
    }

    #[test]
    fn what_is_missing_early_or_unknown_is_counted() {
        let held = |rows: &[u64]| judge(&LOG, &rows.iter().copied().collect(), MonotonicNs(55));
        assert_eq!(held(&[1]), Held { due: 2, missing: 1, early: 0 });
        assert_eq!(held(&[1, 2, 3, 9]), Held { due: 2, missing: 0, early: 2 });
    }
}
