//! Numbers that the programs and this crate must agree on.
//!
//! Owned here and handed to the C compiler by the build script, so that each is written once.

/// The version of everything that is pinned: map types, sizes, record shapes, meanings of bits.
/// An agent that finds another version leaves it alone and says so.
pub const LAYOUT_VERSION: u32 = 4;

/// How many disks can be tracked at once.
pub const DISKS: u32 = 128;

/// Base-two logarithm of the number of buckets in the look-up table of device numbers.
pub const BUCKETS_LOG2: u32 = 9;

/// Entries in a bucket: what one look-up compares at most.
pub const WAYS: u32 = 4;

/// Base-two logarithm of the words in one half of the conflict table: 2^20 bits.
pub const CONFLICT_WORDS_LOG2: u32 = 14;

/// Base-two logarithm of the number of buckets for writes in flight to bio-based disks.
pub const IN_FLIGHT_BUCKETS_LOG2: u32 = 10;

/// Entries in such a bucket, of 32 bytes: two cache lines.
pub const IN_FLIGHT_WAYS: u32 = 4;

/// Copies of each completion program. The kernel skips a program that is re-entered on its CPU;
/// block I/O completes in three contexts (task, soft and hard interrupt), so that one of three
/// always runs.
pub const COPIES: u32 = 3;

/// Copies of the programs that see a bio at its start, or on its way to another disk. Nothing starts
/// one in a hard interrupt, and a start that was skipped all the same is found when the bio completes.
pub const COPIES_AT_START: u32 = 2;

/// Base-two logarithm of the words in a sheet of a dirty bitmap: 1 MiB, the bits of 32 GiB at 4 KiB.
pub const SHEET_WORDS_LOG2: u32 = 17;

/// Base-two logarithm of the most sheets a disk can have.
pub const SHEETS_LOG2: u32 = 10;

/// The longest range that is marked chunk by chunk, in words of the bitmap.
pub const INLINE_WORDS: u32 = 64;

/// Chunks behind one bit of the coarse bitmap: as many as [`INLINE_WORDS`] hold.
pub const COARSE_CHUNKS: u32 = 64 * INLINE_WORDS;

/// Words of the coarse bitmap that one range may touch. The block layer counts a range's bytes in
/// 32 bits, so at the smallest chunk it covers 256 coarse bits: 5 words at most.
pub const COARSE_WORDS_OF_A_RANGE: u32 = 6;

/// A driver's habit: commands of its own that transfer no data may change the disk.
pub const BARE_COMMANDS_WRITE: u32 = 1 << 0;

/// A driver's habit: a bio that must not wait, and would have to, is turned away without being in the
/// statistics. The device mapper keeps such a bio in them, md does not.
pub const TURNS_AWAY_UNCOUNTED: u32 = 1 << 1;

/// Ranges of one discard that are walked.
pub const DISCARD_RANGES: u32 = 256;
