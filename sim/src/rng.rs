//! All chance of a run, from its seed.

/// A generator of numbers: SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", 2014).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The bias of a remainder is far below what a simulation could show.
        self.next() % end
    }

    /// A number from `start` to before `end`.
    pub(crate) fn between(&mut self, start: u64, end: u64) -> u64 {
        start + self.below(end - start)
    }

    /// Whether something of this chance, in thousandths, happens.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// An index into something of this length, which is not zero.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// A duration whose magnitude is drawn first, so that short and long ones both occur.
    pub(crate) fn spread(&mut self, shortest: u64, longest: u64) -> u64 {
        let top = shortest.max(1) << self.below(u64::from((longest / shortest.max(1)).ilog2()) + 1);
        self.between(shortest, top.min(longest) + 1)
    }

    /// A generator of its own for one part, so that what that part draws moves no other.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// Spreads every bit of a number over all of them.
pub(crate) const fn mix(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
