//! How much of a disk a frame should span: a rule for those who make frames. Nobody checks it.
//!
//! A frame is opened as a whole. Whoever reads a point in order has to keep, or decode again, what a
//! frame holds of places that come later. With this rule that is at most half of 64 MiB for all
//! deltas together where they are dense, and half of 64 KiB for each delta where it is sparse.

use blocks::{ByteLen, Extent};

/// A frame that would span more than this is ended, if it holds enough.
const SPAN_MAX: ByteLen = ByteLen(64 << 20);

/// What is enough: of smaller frames what surrounds the data begins to count.
const FILLED_MIN: ByteLen = ByteLen(64 << 10);

/// Whether a frame that holds `filled` bytes of data should end before `span`, which reaches from its
/// first sector to the end of what would be added.
pub fn should_end_before(span: Extent, filled: ByteLen) -> bool {
    filled >= FILLED_MIN && span.len() > SPAN_MAX
}
