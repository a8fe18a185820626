//! The dirty bitmap: one bit a chunk.
//!
//! Held in pages of 4096 bits (16 MiB of disk at 4 KiB chunks), each empty, full, or 64 words: a
//! bitmap of a whole disk is small when little is dirty and when everything is, so that memory
//! follows the change rate and not the disk's size.
//!
//! Invariants: bits past the length are clear; a page held as words is neither empty nor full
//! (the last page is full when every bit below the length is set).

use crate::{ChunkIndex, ChunkRange};

#[cfg(test)]
mod tests;

const PAGE_WORDS: usize = 64;
const PAGE_BITS: u64 = 64 * PAGE_WORDS as u64;

/// A set of chunks of one disk.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    len: u64,
    pages: Vec<Page>,
}

#[derive(Clone, PartialEq, Eq)]
enum Page {
    Empty,
    Full,
    Words(Box<[u64; PAGE_WORDS]>),
}

impl Bitmap {
    /// An empty set over `len` chunks.
    pub fn new(len: u64) -> Self {
        Self { len, pages: vec![Page::Empty; page_count(len)] }
    }

    /// The set of all of `len` chunks.
    pub fn full(len: u64) -> Self {
        Self { len, pages: vec![Page::Full; page_count(len)] }
    }

    /// How many chunks the disk has, set or not.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no chunk is in the set.
    pub fn is_empty(&self) -> bool {
        self.pages.iter().all(|page| matches!(page, Page::Empty))
    }

    /// How many chunks are in the set.
    pub fn count(&self) -> u64 {
        let count = |(i, page): (usize, &Page)| match page {
            Page::Empty => 0,
            Page::Full => self.bits_in_page(i),
            Page::Words(words) => words.iter().map(|word| u64::from(word.count_ones())).sum(),
        };
        self.pages.iter().enumerate().map(count).sum()
    }

    /// Whether `chunk` is in the set. Chunks past the end are not.
    pub fn contains(&self, chunk: ChunkIndex) -> bool {
        chunk.0 < self.len && self.word(chunk.0 / 64) >> (chunk.0 % 64) & 1 == 1
    }

    /// Adds a range of chunks; what lies past the end is ignored.
    pub fn insert_range(&mut self, range: ChunkRange) {
        self.edit_range(range, |word, mask| word | mask, &Page::Full);
    }

    /// Removes a range of chunks.
    pub fn remove_range(&mut self, range: ChunkRange) {
        self.edit_range(range, |word, mask| word & !mask, &Page::Empty);
    }

    /// The 64 chunks from `64 * index` as a word, the lowest chunk in the lowest bit.
    pub fn word(&self, index: u64) -> u64 {
        let (page, word) = split_word(index);
        match self.pages.get(page) {
            None | Some(Page::Empty) => 0,
            Some(Page::Full) => self.full_word(index),
            Some(Page::Words(words)) => words[word],
        }
    }

    /// Adds the chunks of `bits`, numbered from `64 * index`; what lies past the end is ignored.
    pub fn insert_word(&mut self, index: u64, bits: u64) {
        let bits = bits & self.full_word(index);
        if bits != 0 {
            self.edit_word(index, |word| word | bits);
        }
    }

    /// The words that are not zero, in order, with their indices.
    pub fn words(&self) -> impl Iterator<Item = (u64, u64)> {
        let of_page = |(i, page): (usize, &Page)| {
            let first = (i * PAGE_WORDS) as u64;
            let last = if matches!(page, Page::Empty) { first } else { first + PAGE_WORDS as u64 };
            first..last
        };
        let words = self.pages.iter().enumerate().flat_map(of_page);
        words.map(|index| (index, self.word(index))).filter(|(_, word)| *word != 0)
    }

    /// Adds every chunk of `other`.
    ///
    /// # Panics
    /// If the two are of disks of different lengths.
    pub fn union_with(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "bitmaps of one disk");
        for i in 0..self.pages.len() {
            match &other.pages[i] {
                Page::Empty => {}
                Page::Full => self.pages[i] = Page::Full,
                Page::Words(words) => self.edit_page(i, |mine| {
                    mine.iter_mut().zip(words.iter()).for_each(|(mine, other)| *mine |= other);
                }),
            }
        }
    }

    /// Removes every chunk of `other`.
    ///
    /// # Panics
    /// If the two are of disks of different lengths.
    pub fn subtract(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "bitmaps of one disk");
        for i in 0..self.pages.len() {
            match &other.pages[i] {
                Page::Empty => {}
                Page::Full => self.pages[i] = Page::Empty,
                Page::Words(words) => self.edit_page(i, |mine| {
                    mine.iter_mut().zip(words.iter()).for_each(|(mine, other)| *mine &= !other);
                }),
            }
        }
    }

    /// The runs of neighbouring chunks, in order, each as long as can be.
    pub fn runs(&self) -> Runs<'_> {
        Runs { bitmap: self, next: 0 }
    }

    /// The first chunk of the set at or after `from`.
    pub fn first_from(&self, from: ChunkIndex) -> Option<ChunkIndex> {
        self.find(from.0, true).map(ChunkIndex)
    }

    /// The first chunk that is not in the set, at or after `from`.
    pub fn first_absent_from(&self, from: ChunkIndex) -> Option<ChunkIndex> {
        self.find(from.0, false).map(ChunkIndex)
    }

    /// Moves up to `limit` chunks out, the first ones at or after `from`.
    pub fn take(&mut self, from: ChunkIndex, limit: u64) -> Self {
        let mut taken = Self::new(self.len);
        let mut left = limit;
        let mut at = from.0;
        while left > 0
            && let Some(run) = self.run_from(at)
        {
            let end = run.end.0.min(run.start.0 + left);
            let part = ChunkRange { start: run.start, end: ChunkIndex(end) };
            taken.insert_range(part);
            left -= part.len();
            at = end;
        }
        self.subtract(&taken);
        taken
    }

    /// The first run that holds a chunk at or after `from`, clipped to start there.
    fn run_from(&self, from: u64) -> Option<ChunkRange> {
        let start = self.find(from, true)?;
        let end = self.find(start, false).unwrap_or(self.len);
        Some(ChunkRange { start: ChunkIndex(start), end: ChunkIndex(end) })
    }

    /// The first chunk at or after `from` that is in the set (`set`) or is not.
    fn find(&self, from: u64, set: bool) -> Option<u64> {
        let mut at = from;
        while at < self.len {
            let page = usize::try_from(at / PAGE_BITS).ok()?;
            let whole = match self.pages[page] {
                Page::Empty => Some(false),
                Page::Full => Some(true),
                Page::Words(_) => None,
            };
            if whole == Some(set) {
                return Some(at);
            }
            if whole.is_some() {
                at = (at / PAGE_BITS + 1) * PAGE_BITS;
                continue;
            }
            let word = self.word(at / 64);
            let wanted = (if set { word } else { !word }) & (u64::MAX << (at % 64));
            if wanted != 0 {
                let found = at / 64 * 64 + u64::from(wanted.trailing_zeros());
                return (found < self.len).then_some(found);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    fn edit_range(&mut self, range: ChunkRange, op: fn(u64, u64) -> u64, whole: &Page) {
        let end = range.end.0.min(self.len);
        let mut at = range.start.0;
        while at < end {
            let page_end = ((at / PAGE_BITS + 1) * PAGE_BITS).min(self.len);
            if at.is_multiple_of(PAGE_BITS) && page_end <= end {
                self.pages[split_word(at / 64).0] = whole.clone();
                at = page_end;
                continue;
            }
            let word_end = ((at / 64 + 1) * 64).min(end);
            let mask = mask_below(word_end - at) << (at % 64);
            self.edit_word(at / 64, |word| op(word, mask));
            at = word_end;
        }
    }

    fn edit_word(&mut self, index: u64, op: impl Fn(u64) -> u64) {
        let old = self.word(index);
        let new = op(old);
        if new != old {
            let (page, word) = split_word(index);
            self.edit_page(page, |words| words[word] = new);
        }
    }

    /// Edits a page as words, then gives it the one form its content has.
    fn edit_page(&mut self, page: usize, edit: impl FnOnce(&mut [u64; PAGE_WORDS])) {
        let first = (page * PAGE_WORDS) as u64;
        let mut words = match std::mem::replace(&mut self.pages[page], Page::Empty) {
            Page::Words(words) => words,
            Page::Empty => Box::new([0; PAGE_WORDS]),
            Page::Full => Box::new(std::array::from_fn(|i| self.full_word(first + i as u64))),
        };
        edit(&mut words);
        let full = || (0..).zip(words.iter()).all(|(i, word)| *word == self.full_word(first + i));
        self.pages[page] = if words.iter().all(|word| *word == 0) {
            Page::Empty
        } else if full() {
            Page::Full
        } else {
            Page::Words(words)
        };
    }

    /// The word at `index` of a full bitmap of this length.
    fn full_word(&self, index: u64) -> u64 {
        mask_below(self.len.saturating_sub(index.saturating_mul(64)).min(64))
    }

    fn bits_in_page(&self, page: usize) -> u64 {
        (self.len - page as u64 * PAGE_BITS).min(PAGE_BITS)
    }
}

impl std::fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitmap({} of {})", self.count(), self.len)
    }
}

/// The runs of a bitmap; see [`Bitmap::runs`].
pub struct Runs<'a> {
    bitmap: &'a Bitmap,
    next: u64,
}

impl Iterator for Runs<'_> {
    type Item = ChunkRange;

    fn next(&mut self) -> Option<ChunkRange> {
        let run = self.bitmap.run_from(self.next)?;
        self.next = run.end.0;
        Some(run)
    }
}

fn page_count(len: u64) -> usize {
    usize::try_from(len.div_ceil(PAGE_BITS)).expect("a page index fits a 64-bit usize")
}

fn split_word(index: u64) -> (usize, usize) {
    let index = usize::try_from(index).expect("a word index fits a 64-bit usize");
    (index / PAGE_WORDS, index % PAGE_WORDS)
}

/// The `bits` lowest bits set; `bits` is at most 64.
fn mask_below(bits: u64) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}
