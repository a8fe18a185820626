//! A comparison that a disk needs, as it outlives the agent, and what one costs.

use std::time::Duration;

use blocks::{ByteLen, GapReason};
use control::{MinuteOfDay, ResyncWindow};
use serde::{Deserialize, Serialize};
use wire::{COMPARE_BLOCK, leaf::BlockHash};

/// A comparison that is due or under way.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct ResyncRecord {
    /// The code of the gap's reason.
    pub(crate) reason: String,
    /// When the gap was found.
    pub(crate) since: jiff::Timestamp,
    /// Somebody wants it to begin at once.
    pub(crate) asked: bool,
    /// When it began. From then on it goes on whatever the window says: half a comparison is worse
    /// than none.
    pub(crate) begun: Option<jiff::Timestamp>,
}

/// What the last comparison of a disk amounted to.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Compared {
    pub(crate) seconds: f64,
    /// Bytes of the disk that were compared.
    pub(crate) compared: u64,
    /// Bytes of frames that were sent.
    pub(crate) sent: u64,
}

/// What a verification has found to differ.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    pub(crate) found: jiff::Timestamp,
    pub(crate) bytes: u64,
    /// Where, as offset and length in bytes: the first of them.
    pub(crate) extents: Vec<(u64, u64)>,
    /// Of the bytes, those of which the replica's medium holds something else than was written.
    pub(crate) decayed_bytes: u64,
    /// What has probably led to it.
    pub(crate) cause: String,
}

/// What a comparison will amount to, as far as that is known.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Estimate {
    /// Bytes to read from the disk.
    pub(crate) read_bytes: u64,
    /// Bytes of hashes to receive.
    pub(crate) hash_bytes: u64,
    /// Bytes to send, before they are packed: what was seen to differ among the blocks looked at.
    pub(crate) send_bytes: u64,
    /// No more than this, with a confidence of 95 %.
    pub(crate) send_bytes_max: u64,
    /// How long it takes.
    pub(crate) seconds: f64,
    /// Blocks that were looked at for it.
    pub(crate) sampled_blocks: u64,
}

impl ResyncRecord {
    pub(crate) fn new(reason: GapReason) -> Self {
        let (reason, since) = (reason.code().to_owned(), jiff::Timestamp::now());
        Self { reason, since, asked: false, begun: None }
    }

    /// The same comparison, for a reason that has come since.
    pub(crate) fn because(&self, reason: GapReason) -> Self {
        Self { asked: self.asked, begun: self.begun, ..Self::new(reason) }
    }
}

/// How long it is until the window opens, by the clock on the wall.
pub(crate) fn opens_in(window: ResyncWindow) -> Option<Duration> {
    let now = jiff::Zoned::now();
    let field = |value: i8| u16::try_from(value).unwrap_or(0);
    let minute = MinuteOfDay::new(field(now.hour()), field(now.minute()))?;
    window.opens_in(minute, field(now.second()))
}

/// What a sample says of the whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Bytes that were looked at.
    pub(crate) looked_at: u64,
    /// Bytes of them that differ.
    pub(crate) differing: u64,
    /// Blocks that were looked at, and those in which something differs.
    pub(crate) blocks: u64,
    pub(crate) blocks_differing: u64,
    /// How fast the disk was read, in bytes a second.
    pub(crate) rate: f64,
}

impl Estimate {
    /// Of comparing `whole` bytes.
    ///
    /// The most is that share of blocks which would show no more than was seen in one of twenty
    /// samples (Wilson's bound; three blocks in so many when none was seen), each of them with as
    /// many bytes as were seen in a block, a leaf at least.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate")]
    #[expect(clippy::cast_sign_loss, reason = "of what is not negative")]
    pub(crate) fn of(whole: ByteLen, sample: Sample, last: Option<Compared>) -> Self {
        /// Of one side, 95 %.
        const Z: f64 = 1.645;
        let hashes = whole.0.div_ceil(COMPARE_BLOCK.0) * size_of::<BlockHash>() as u64;
        let (n, all) = (sample.blocks.max(1) as f64, whole.0 as f64);
        let share = sample.blocks_differing as f64 / n;
        let middle = share + Z * Z / (2.0 * n);
        let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        let share_max = ((middle + spread) / (1.0 + Z * Z / n)).min(1.0);
        let differing = sample.differing as f64 / sample.looked_at.max(1) as f64;
        let in_block = match sample.blocks_differing {
            0 => wire::leaf::LEAF_LEN as f64,
            some => sample.differing as f64 / some as f64,
        };
        let blocks = all / COMPARE_BLOCK.0 as f64;
        // What a comparison was seen to do counts for more than how fast a few blocks were read.
        let rate = last.map_or(sample.rate, |last| last.compared as f64 / last.seconds.max(1e-3));
        Self {
            read_bytes: whole.0,
            hash_bytes: hashes,
            send_bytes: (differing * all) as u64,
            send_bytes_max: (share_max * blocks * in_block).max(differing * all) as u64,
            seconds: all / rate.max(1.0),
            sampled_blocks: sample.blocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_in_a_sample_is_not_nothing_in_the_whole() {
        let whole = ByteLen(16 << 30);
        let looked_at = 256 * COMPARE_BLOCK.0;
        let none = Sample { looked_at, differing: 0, blocks: 256, blocks_differing: 0, rate: 1e9 };
        let estimate = Estimate::of(whole, none, None);
        assert_eq!((estimate.send_bytes, estimate.hash_bytes), (0, 8 << 20));
        // About three blocks in 256, each with a leaf.
        let leaves = estimate.send_bytes_max / 4096;
        assert!((2000..4000).contains(&leaves), "{leaves}");
        assert!((17.0..17.3).contains(&estimate.seconds), "{estimate:?}");

        let some = Sample { differing: 16 * 4096, blocks_differing: 16, ..none };
        let estimate = Estimate::of(whole, some, None);
        assert_eq!(estimate.send_bytes, (16 << 30) / 256);
        assert!(estimate.send_bytes_max > estimate.send_bytes);
        let last = Compared { seconds: 8.0, compared: 16 << 30, sent: 0 };
        assert!((7.9..8.1).contains(&Estimate::of(whole, some, Some(last)).seconds));
        let all = Sample { differing: looked_at, blocks_differing: 256, ..none };
        assert_eq!(Estimate::of(whole, all, None).send_bytes_max, 16 << 30);
    }
}
