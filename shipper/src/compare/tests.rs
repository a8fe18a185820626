#![expect(clippy::cast_possible_truncation, reason = "positions on a small disk")]

use std::sync::Arc;

use super::*;
use crate::plan::{Plan, PlanLimits};
use blocks::{Bitmap, ChunkIndex, ChunkRange, ChunkSize, Coverage, Epoch, GapReason, SealedEpoch};
use proptest::prelude::*;

/// 40 compare blocks and a short one.
const SECTORS: u64 = 40 * BLOCK_SECTORS + 11;

fn geometry() -> Geometry {
    Geometry::new(SECTORS, 512, ChunkSize::DEFAULT).unwrap()
}

fn comparison(chunks: &[u64]) -> Plan {
    let mut bitmap = Bitmap::new(geometry().chunks());
    for chunk in chunks {
        let range = ChunkRange { start: ChunkIndex(*chunk), end: ChunkIndex(chunk + 1) };
        bitmap.insert_range(range);
    }
    let gap = Coverage::Gap(GapReason::Requested);
    let sealed = SealedEpoch::seal(Epoch(1), bitmap, gap, true);
    Plan::new(Arc::new(sealed), geometry(), PlanLimits::default())
}

fn load(batch: &Batch, disk: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0xEE; 1 << 20];
    for read in &batch.reads {
        let from = read.extent.start.bytes() as usize;
        buffer[read.range()].copy_from_slice(&disk[from..from + read.range().len()]);
    }
    buffer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_left_out_is_equal_and_what_is_kept_is_in_an_unequal_block(
        chunks in prop::collection::btree_set(0..geometry().chunks(), 1..200),
        changed in prop::collection::btree_set(0..SECTORS, 0..30),
    ) {
        let replica = vec![1u8; SECTORS as usize * 512];
        let mut disk = replica.clone();
        for sector in &changed {
            disk[*sector as usize * 512 + 7] = 2;
        }
        let chunks: Vec<u64> = chunks.into_iter().collect();
        let mut kept = std::collections::BTreeSet::new();
        for batch in comparison(&chunks) {
            let hashes: Vec<BlockHash> = blocks_of(&batch)
                .map(|block| extent_of(block, &geometry()))
                .map(|extent| hash_of(&replica[extent.start.bytes() as usize..][..extent.len().0 as usize]))
                .collect();
            for piece in changed_pieces(&batch, &load(&batch, &disk), &hashes, &geometry()) {
                kept.extend(piece.extent.start.0..piece.extent.end().0);
            }
        }
        for sector in 0..SECTORS {
            let block = sector / BLOCK_SECTORS;
            let differs = changed.range(block * BLOCK_SECTORS..(block + 1) * BLOCK_SECTORS).next();
            let expected = chunks.contains(&(sector / 8)) && differs.is_some();
            prop_assert_eq!(kept.contains(&sector), expected, "sector {}", sector);
        }
    }

    #[test]
    fn ranges_are_bounded_and_hold_what_is_near(
        blocks in prop::collection::btree_set(0u64..20_000, 1..300),
    ) {
        let blocks: Vec<u64> = blocks.into_iter().collect();
        let mut next = 0;
        while next < blocks.len() {
            let range = next_range(blocks[next], blocks.iter().copied());
            prop_assert_eq!(range.first, blocks[next]);
            prop_assert!((1..=HASHES_PER_REQUEST).contains(&range.count));
            let end = range.first + u64::from(range.count);
            next = blocks.partition_point(|block| *block < end);
            prop_assert_eq!(blocks[next - 1], end - 1, "a range ends at a needed block");
        }
    }
}

#[test]
fn a_whole_disk_is_asked_for_in_full_requests() {
    let range = next_range(5, 0..1 << 20);
    assert_eq!(range, BlockRange { first: 5, count: HASHES_PER_REQUEST });
}
