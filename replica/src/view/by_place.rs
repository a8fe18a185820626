//! A map by page number, for pages that are looked for one after the other.
//!
//! Neighbours lie together in a row, so that a run of them is one search and then a step each; and
//! there is an order, for the question which one is farthest from a reader.

use std::collections::BTreeMap;

use super::pages::PageNumber;

/// Pages in a row: a bit of a word each.
const ROW_LEN: usize = 64;
const ROW: u64 = ROW_LEN as u64;

/// What there is of some pages.
#[derive(Debug)]
pub(super) struct ByPlace<V> {
    /// None is empty.
    rows: BTreeMap<u64, Row<V>>,
    len: usize,
}

#[derive(Debug)]
struct Row<V> {
    /// A bit for each page that is here.
    here: u64,
    values: Box<[Option<V>; ROW_LEN]>,
}

/// The row of a page, and its place in it.
fn place(page: PageNumber) -> (u64, usize) {
    let at = usize::try_from(page % ROW).expect("less than a row");
    (page / ROW, at)
}

impl<V> Default for ByPlace<V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), len: 0 }
    }
}

impl<V> ByPlace<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Gets pages of which each is probably near the one before.
    pub(super) fn finder(&self) -> Finder<'_, V> {
        Finder { map: self, row: None }
    }

    /// Puts a value where there is none, or gives both to `join`.
    pub(super) fn insert(&mut self, page: PageNumber, value: V, join: impl FnOnce(&mut V, V)) {
        let (row, at) = place(page);
        let row = self.rows.entry(row).or_insert_with(Row::empty);
        match &mut row.values[at] {
            Some(there) => join(there, value),
            vacant => {
                *vacant = Some(value);
                row.here |= 1 << at;
                self.len += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, page: PageNumber) -> Option<V> {
        let (number, at) = place(page);
        let row = self.rows.get_mut(&number)?;
        let removed = row.values[at].take()?;
        row.here &= !(1 << at);
        self.len -= 1;
        if row.here == 0 {
            self.rows.remove(&number);
        }
        Some(removed)
    }

    /// The lowest page.
    pub(super) fn first(&self) -> Option<PageNumber> {
        let (number, row) = self.rows.first_key_value()?;
        Some(number * ROW + u64::from(row.here.trailing_zeros()))
    }

    /// The highest page from `start` on and below `end`, if that is given.
    pub(super) fn last_within(
        &self,
        start: PageNumber,
        end: Option<PageNumber>,
    ) -> Option<PageNumber> {
        let last = end.map_or(Some(PageNumber::MAX), |end| end.checked_sub(1))?;
        if last < start {
            return None;
        }
        let ((first_row, first_at), (last_row, last_at)) = (place(start), place(last));
        self.rows.range(first_row..=last_row).rev().find_map(|(number, row)| {
            let mut here = row.here;
            if *number == first_row {
                here &= u64::MAX << first_at;
            }
            if *number == last_row {
                here &= u64::MAX >> (ROW_LEN - 1 - last_at);
            }
            here.checked_ilog2().map(|at| number * ROW + u64::from(at))
        })
    }
}

impl<V> Row<V> {
    fn empty() -> Self {
        Self { here: 0, values: Box::new([const { None }; ROW_LEN]) }
    }
}

/// Remembers the row of the page before.
pub(super) struct Finder<'a, V> {
    map: &'a ByPlace<V>,
    row: Option<(u64, Option<&'a Row<V>>)>,
}

impl<'a, V> Finder<'a, V> {
    pub(super) fn get(&mut self, page: PageNumber) -> Option<&'a V> {
        let (number, at) = place(page);
        let row = match self.row {
            Some((known, row)) if known == number => row,
            _ => self.map.rows.get(&number),
        };
        self.row = Some((number, row));
        row?.values[at].as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(
            steps in prop::collection::vec((any::<bool>(), 0u64..400, any::<u8>()), 0..200),
            ranges in prop::collection::vec((0u64..400, prop::option::of(0u64..400)), 0..20),
        ) {
            let (mut map, mut model) = (ByPlace::default(), BTreeMap::new());
            for (inserts, page, value) in steps {
                if inserts {
                    map.insert(page, value, |there, new| *there = there.wrapping_mul(3) ^ new);
                    let join = |there: &mut u8| *there = there.wrapping_mul(3) ^ value;
                    model.entry(page).and_modify(join).or_insert(value);
                } else {
                    prop_assert_eq!(map.remove(page), model.remove(&page));
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(map.first(), model.keys().next().copied());
            }
            let mut finder = map.finder();
            for page in 0..400 {
                prop_assert_eq!(finder.get(page), model.get(&page));
            }
            for (start, end) in ranges {
                let within = |page: &&u64| **page >= start && end.is_none_or(|end| **page < end);
                let last = model.keys().rev().find(within).copied();
                prop_assert_eq!(map.last_within(start, end), last);
            }
        }
    }
}
