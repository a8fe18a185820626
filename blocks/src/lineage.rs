//! The lines of history that a disk's content went through.
//!
//! ```text
//!   G1 --1--2--3--4--5            the source goes on
//!               \
//!                G2 --4--5--6     the replica was promoted at epoch 3
//! ```
//!
//! A [`Generation`] names one line. It changes where history forks, and epochs go on counting: so a
//! position is a generation and an epoch, and of two histories the newest generation that both went
//! through says up to where they are one.
//!
//! Invariant: from the newest line to the oldest, the epochs through which they went do not rise.

use crate::{Epoch, Generation};

/// A line that a history has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ancestor {
    /// The line.
    pub generation: Generation,
    /// The last epoch of it that went into the next line; later ones are not part of this history.
    pub through: Epoch,
}

/// The lines of a history: the present one, and those it came through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lineage {
    current: Generation,
    /// Newest first.
    past: Vec<Ancestor>,
}

/// Past lines that are remembered. Of older ones it is no longer known that they were.
pub const ANCESTORS_MAX: usize = 16;

/// Past lines in an order that no history can have, or too many.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("lines of history that can't have followed each other, or more than {ANCESTORS_MAX}")]
pub struct LineageError;

/// Where two histories part: the newest line that both went through, and how far each did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Common {
    /// The line.
    pub generation: Generation,
    /// Through which epoch of it this history went on in another line; `None`: it is still in it.
    pub ours: Option<Epoch>,
    /// The same of the other history.
    pub theirs: Option<Epoch>,
}

impl Lineage {
    /// A history that begins.
    pub const fn begin(generation: Generation) -> Self {
        Self { current: generation, past: Vec::new() }
    }

    /// A history as it was written down, past lines newest first.
    pub fn new(current: Generation, past: Vec<Ancestor>) -> Result<Self, LineageError> {
        let falls = past.is_sorted_by(|newer, older| newer.through >= older.through);
        if falls && past.len() <= ANCESTORS_MAX {
            Ok(Self { current, past })
        } else {
            Err(LineageError)
        }
    }

    /// The line it is in.
    pub const fn current(&self) -> Generation {
        self.current
    }

    /// The lines it came through, newest first.
    pub fn past(&self) -> &[Ancestor] {
        &self.past
    }

    /// The history that goes on in the line `next` after epoch `through` of this one, which is its
    /// newest. The oldest line may be forgotten.
    #[must_use]
    pub fn fork(&self, next: Generation, through: Epoch) -> Self {
        let left = Ancestor { generation: self.current, through };
        let past = std::iter::once(left).chain(self.past.iter().copied());
        Self { current: next, past: past.take(ANCESTORS_MAX).collect() }
    }

    /// Whether an epoch of this history may be of this line. It is of the oldest line that went
    /// through it; where that may have been forgotten, of any.
    pub fn may_hold(&self, epoch: Epoch, generation: Generation) -> bool {
        let oldest = self.past.last().filter(|_| self.past.len() == ANCESTORS_MAX);
        if oldest.is_some_and(|oldest| epoch <= oldest.through) {
            return true;
        }
        self.generation_of(epoch) == generation
    }

    /// The line in which an epoch of this history was made, as far as it is remembered.
    pub fn generation_of(&self, epoch: Epoch) -> Generation {
        let through = self.past.iter().rev().find(|line| epoch <= line.through);
        through.map_or(self.current, |line| line.generation)
    }

    /// Where this history and another part; nothing if they have no line in common.
    pub fn common(&self, other: &Self) -> Option<Common> {
        self.lines().find_map(|(generation, ours)| {
            let (_, theirs) = other.lines().find(|(theirs, _)| *theirs == generation)?;
            Some(Common { generation, ours, theirs })
        })
    }

    /// The lines, newest first, and through which epoch each was left.
    fn lines(&self) -> impl Iterator<Item = (Generation, Option<Epoch>)> {
        let past = self.past.iter().map(|line| (line.generation, Some(line.through)));
        std::iter::once((self.current, None)).chain(past)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u8) -> Generation {
        Generation([n; 16])
    }

    #[test]
    fn two_histories_part_where_the_newest_line_of_both_was_left() {
        let old = Lineage::begin(line(1));
        let promoted = old.fork(line(2), Epoch(3));
        let other = old.fork(line(3), Epoch(5));
        let common = |ours, theirs| Some(Common { generation: line(1), ours, theirs });
        assert_eq!(old.common(&old), common(None, None));
        assert_eq!(old.common(&promoted), common(None, Some(Epoch(3))));
        assert_eq!(promoted.common(&old), common(Some(Epoch(3)), None));
        assert_eq!(promoted.common(&other), common(Some(Epoch(3)), Some(Epoch(5))));
        let later = promoted.fork(line(4), Epoch(9));
        let expected = Common { generation: line(2), ours: Some(Epoch(9)), theirs: None };
        assert_eq!(later.common(&promoted), Some(expected));
        assert_eq!(old.common(&Lineage::begin(line(9))), None);
    }

    #[test]
    fn an_epoch_is_of_the_line_that_made_it() {
        let history = Lineage::begin(line(1)).fork(line(2), Epoch(3)).fork(line(1), Epoch(6));
        let made = [1, 3, 4, 6, 7].map(|epoch| history.generation_of(Epoch(epoch)));
        assert_eq!(made, [line(1), line(1), line(2), line(2), line(1)]);
        assert!(history.may_hold(Epoch(4), line(2)) && !history.may_hold(Epoch(4), line(1)));
    }

    #[test]
    fn old_lines_are_forgotten_and_then_nothing_is_said_against_their_epochs() {
        let count = u8::try_from(ANCESTORS_MAX).unwrap() + 3;
        let forks = (1..=count).map(|n| (line(n + 1), Epoch(10 * u64::from(n))));
        let begun = Lineage::begin(line(1));
        let history = forks.fold(begun, |history, (next, through)| history.fork(next, through));
        assert_eq!(history.past().len(), ANCESTORS_MAX);
        assert_eq!(Lineage::new(history.current(), history.past().to_vec()), Ok(history.clone()));
        assert!(history.may_hold(Epoch(5), line(1)) && history.may_hold(Epoch(40), line(200)));
        assert!(!history.may_hold(Epoch(41), line(1)));
    }

    #[test]
    fn lines_that_cannot_have_followed_each_other_are_none() {
        let left = |n, through| Ancestor { generation: line(n), through: Epoch(through) };
        assert_eq!(Lineage::new(line(3), vec![left(2, 4), left(1, 5)]), Err(LineageError));
        assert_eq!(Lineage::new(line(3), vec![left(2, 4); ANCESTORS_MAX + 1]), Err(LineageError));
        assert!(Lineage::new(line(3), vec![left(2, 4), left(1, 4)]).is_ok());
    }
}
