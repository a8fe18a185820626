//! An input read as decisions: what happens next, and with which values.
//!
//! When the bytes run out every decision is the first of its choices, so any input can be cut.

use arbitrary::Unstructured;

pub(crate) struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// Whether anything is left to decide by.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.int_in_range(0..=end - 1).unwrap_or(0)
    }

    /// The same as an index or a length.
    pub(crate) fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("it is below a usize")
    }

    /// Usually a number below `usual`; sometimes any at all, often one at an edge.
    pub(crate) fn number(&mut self, usual: u64) -> u64 {
        match self.below(16) {
            0 => self.0.arbitrary().unwrap_or(0),
            1 => u64::MAX - self.below(4),
            2 => (1 << self.below(64)) - self.below(2),
            _ => self.below(usual),
        }
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) + 1 == times
    }

    /// One of some.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// Up to `len` bytes.
    pub(crate) fn bytes(&mut self, len: u64) -> &'a [u8] {
        let wanted = usize::try_from(self.below(len + 1)).expect("lengths of inputs are small");
        self.0.bytes(wanted.min(self.0.len())).unwrap_or_default()
    }
}
