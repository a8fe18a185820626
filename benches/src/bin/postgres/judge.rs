//! Whether a recovered database is what it was at the cut, by what its clients know.

use std::collections::BTreeSet;
use std::fmt;

use blocks::MonotonicNs;

use crate::clients::Transaction;

/// How a database compares with the log of its clients.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Transactions acknowledged before the cut.
    pub(crate) due: usize,
    /// Those of them that are not there.
    pub(crate) missing: usize,
    /// Rows that are there, and were issued after the cut or never.
    pub(crate) early: usize,
}

impl Found {
    pub(crate) fn is_right(&self) -> bool {
        self.due > 0 && self.missing == 0 && self.early == 0
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { due, missing, early } = self;
        write!(f, "{due} due, {missing} missing, {early} too early")
    }
}

/// Holds the rows of a database against the log. What was under way at the cut may be there.
pub(crate) fn judge(log: &[Transaction], rows: &[u64], cut: MonotonicNs) -> Found {
    let rows: BTreeSet<u64> = rows.iter().copied().collect();
    let is_due = |one: &&Transaction| one.acknowledged.is_some_and(|when| when < cut);
    let due: Vec<&Transaction> = log.iter().filter(is_due).collect();
    let missing = due.iter().filter(|one| !rows.contains(&one.id)).count();
    let possible = log.iter().filter(|one| one.issued <= cut).map(|one| one.id);
    let possible: BTreeSet<u64> = possible.collect();
    Found { due: due.len(), missing, early: rows.difference(&possible).count() }
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
        let cut = MonotonicNs(40);
        assert!(judge(&LOG, &[1], cut).is_right());
        assert!(judge(&LOG, &[1, 2], cut).is_right());
    }

    #[test]
    fn what_is_missing_early_or_unknown_is_counted() {
        let found = |rows: &[u64]| judge(&LOG, rows, MonotonicNs(55));
        assert_eq!(found(&[1]), Found { due: 2, missing: 1, early: 0 });
        assert_eq!(found(&[1, 2, 3, 9]), Found { due: 2, missing: 0, early: 2 });
    }
}
