//! How large the maps of a disk are, and where the programs look for them.

use blocks::Slot;

use crate::limits::{COARSE_CHUNKS, SHEET_WORDS_LOG2, SHEETS_LOG2};

/// Words of a sheet of a dirty bitmap.
pub const SHEET_WORDS: u64 = 1 << SHEET_WORDS_LOG2;

/// Most words in a bitmap: 1 GiB of bits.
pub const WORDS_MAX: u64 = 1 << (SHEET_WORDS_LOG2 + SHEETS_LOG2);

/// Words a bitmap of `chunks` chunks needs.
pub const fn words_of(chunks: u64) -> u64 {
    chunks.div_ceil(64)
}

/// Words a coarse bitmap of `chunks` chunks needs.
pub const fn coarse_words_of(chunks: u64) -> u64 {
    words_of(chunks.div_ceil(COARSE_CHUNKS as u64))
}

/// How many sheets a dirty bitmap of `chunks` chunks has.
///
/// # Panics
/// If they have more than [`WORDS_MAX`] words.
pub fn sheets_of(chunks: u64) -> u32 {
    let sheets = words_of(chunks).div_ceil(SHEET_WORDS);
    u32::try_from(sheets).expect("at most WORDS_MAX words, which the caller checked")
}

/// What a sheet of the dirty bitmap is pinned as.
pub fn sheet_name(index: u32) -> String {
    format!("dirty_{index}")
}

/// Under which key the programs look for a sheet of a dirty bitmap.
pub const fn sheet_key(slot: Slot, index: u32) -> u32 {
    slot.0 << SHEETS_LOG2 | index
}
