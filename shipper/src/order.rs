//! Putting results of parallel work back in order.

use std::collections::BTreeMap;

/// Numbered items that come in any order and leave in theirs, from 0 with none left out.
///
/// It holds as many as are outstanding; bounding that is the business of whoever hands numbers out.
#[derive(Debug)]
pub(crate) struct InOrder<T> {
    next: u64,
    early: BTreeMap<u64, T>,
}

impl<T> InOrder<T> {
    pub(crate) fn new() -> Self {
        Self { next: 0, early: BTreeMap::new() }
    }

    /// The number of the item that leaves next, which is how many have left.
    pub(crate) fn next_number(&self) -> u64 {
        self.next
    }

    /// How many have come and have not left.
    pub(crate) fn waiting(&self) -> usize {
        self.early.len()
    }

    /// Takes an item in. Each number comes once.
    pub(crate) fn insert(&mut self, number: u64, item: T) {
        let twice = self.early.insert(number, item).is_some() || number < self.next;
        assert!(!twice, "item {number} came twice");
    }

    /// The next item, if it has come.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.early.remove(&self.next)?;
        self.next += 1;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_order_in_is_one_order_out(order in Just((0u64..40).collect::<Vec<_>>()).prop_shuffle()) {
            let mut items = InOrder::new();
            let mut out = Vec::new();
            for number in order {
                items.insert(number, number);
                out.extend(std::iter::from_fn(|| items.pop()));
            }
            prop_assert_eq!(out, (0..40).collect::<Vec<_>>());
            prop_assert_eq!(items.next_number(), 40);
        }
    }
}
