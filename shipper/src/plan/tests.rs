use std::{collections::BTreeSet, sync::Arc};

use blocks::{
    Bitmap, ChunkIndex, ChunkRange, ChunkSize, Coverage, Epoch, GapReason, Geometry, SealedEpoch,
    Sector,
};
use proptest::prelude::*;

use super::*;

const KINDS: [Coverage; 3] = [
    Coverage::Complete,
    Coverage::Gap(GapReason::NeverReplicated),
    Coverage::Gap(GapReason::Requested),
];

fn disk() -> impl Strategy<Value = Geometry> {
    (12u32..=20, 1u64..3000, prop_oneof![Just(512u32), Just(4096)]).prop_map(
        |(log2, blocks, logical_block)| {
            let sectors = blocks * u64::from(logical_block) / 512;
            let chunk = ChunkSize::from_bytes(1 << log2).unwrap();
            Geometry::new(sectors, logical_block, chunk).unwrap()
        },
    )
}

/// Runs of chunks, as a share of the disk, so that any disk has some.
fn dirty() -> impl Strategy<Value = Vec<(u16, u16)>> {
    prop::collection::vec((any::<u16>(), 0u16..400), 0..40)
}

fn bitmap(geometry: &Geometry, runs: &[(u16, u16)]) -> Bitmap {
    let mut chunks = Bitmap::new(geometry.chunks());
    for (at, len) in runs {
        let start = geometry.chunks() * u64::from(*at) / (1 << 16);
        let end = start + 1 + u64::from(*len) * geometry.chunks() / 4000;
        chunks.insert_range(ChunkRange { start: ChunkIndex(start), end: ChunkIndex(end) });
    }
    chunks
}

fn plan(geometry: Geometry, chunks: Bitmap, coverage: Coverage, bridge: u64) -> Plan {
    let sealed = SealedEpoch::seal(Epoch(3), chunks, coverage, true);
    Plan::new(Arc::new(sealed), geometry, PlanLimits { bridge: ByteLen(bridge) })
}

fn check_batch(batch: &Batch, geometry: &Geometry, kind: EpochKind) {
    let block = u64::from(geometry.logical_block());
    let compare = COMPARE_BLOCK.0 / 512;
    assert!(!batch.reads.is_empty() && !batch.pieces.is_empty());
    assert!(batch.read_bytes() <= BATCH_BYTES);
    let [first, last] = [&batch.pieces[0], &batch.pieces[batch.pieces.len() - 1]];
    let span = last.extent.end().bytes() - first.extent.start.bytes();
    let before_last = batch.shipped_bytes().0 - last.extent.len().0;
    assert!(span <= 64 << 20 || before_last < 64 << 10, "{batch}");
    for read in &batch.reads {
        assert!(geometry.holds(read.extent) && !read.extent.is_empty());
        assert_eq!((read.extent.start.bytes() % block, read.extent.len().0 % block), (0, 0));
        assert_eq!(read.at % BUFFER_ALIGN, 0);
        assert!(read.range().end as u64 <= BATCH_BYTES.0);
        if kind == EpochKind::Compare {
            let end = read.extent.end().0;
            assert_eq!(read.extent.start.0 % compare, 0);
            assert!(end % compare == 0 || end == geometry.sectors());
        }
    }
    for pair in batch.reads.windows(2) {
        assert!(pair[0].extent.end() <= pair[1].extent.start);
        assert!(pair[0].range().end <= pair[1].at);
    }
    for pair in batch.pieces.windows(2) {
        assert!(pair[0].extent.end() <= pair[1].extent.start);
    }
    for piece in &batch.pieces {
        let within = |read: &&Placed| read.overlap(piece.extent) == Some(*piece);
        assert_eq!(batch.reads.iter().filter(within).count(), 1, "{piece:?} in {batch}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn batches_ship_exactly_the_dirty_chunks(
        geometry in disk(),
        runs in dirty(),
        coverage in prop::sample::select(&KINDS),
        bridge in prop_oneof![Just(0u64), Just(32 << 10), Just(4 << 20)],
    ) {
        let chunks = bitmap(&geometry, &runs);
        let plan = plan(geometry, chunks.clone(), coverage, bridge);
        let mut shipped = BTreeSet::new();
        let mut end = Sector(0);
        for (sequence, batch) in (0..).zip(plan.clone()) {
            check_batch(&batch, &geometry, plan.kind());
            prop_assert_eq!(batch.sequence, sequence);
            prop_assert!(end <= batch.pieces[0].extent.start, "batches ascend");
            end = batch.pieces.last().unwrap().extent.end();
            for piece in &batch.pieces {
                shipped.extend(piece.extent.start.0..piece.extent.end().0);
            }
        }
        let wanted: BTreeSet<u64> = chunks
            .runs()
            .map(|run| geometry.extent_of(run))
            .flat_map(|extent| extent.start.0..extent.end().0)
            .collect();
        prop_assert_eq!(plan.covered().0, wanted.len() as u64 * 512);
        prop_assert_eq!(plan.totals().shipped, plan.covered());
        prop_assert_eq!(shipped, wanted);
    }
}

const SMALL: Geometry = match Geometry::new(8 * 1000 + 3, 512, ChunkSize::DEFAULT) {
    Ok(geometry) => geometry,
    Err(_) => panic!("a valid geometry"),
};

fn small(runs: &[(u64, u64)], coverage: Coverage, bridge: u64) -> Plan {
    let mut chunks = Bitmap::new(SMALL.chunks());
    for (start, end) in runs {
        chunks.insert_range(ChunkRange { start: ChunkIndex(*start), end: ChunkIndex(*end) });
    }
    plan(SMALL, chunks, coverage, bridge)
}

#[test]
fn a_whole_disk_is_read_in_full_buffers() {
    let plan = small(&[(0, 1001)], KINDS[1], 32 << 10);
    let reads: Vec<_> =
        plan.clone().map(|batch| (batch.reads.len(), batch.read_bytes().0)).collect();
    assert_eq!(reads, [(1, 1 << 20), (1, 1 << 20), (1, 1 << 20), (1, (1000 - 768) * 4096 + 1536)]);
    assert_eq!(
        plan.to_string(),
        "seed epoch 3: 3.9 MiB to ship in 4 batches, by 4 reads of 3.9 MiB"
    );
}

#[test]
fn sparse_epochs_are_cut_where_a_batch_would_span_too_much() {
    let chunks_per_mib = 256;
    let geometry = Geometry::new(16 << 21, 512, ChunkSize::DEFAULT).unwrap();
    let batches_of = |distance: u64, count: u64| {
        let mut chunks = Bitmap::new(geometry.chunks());
        for n in 0..count {
            let start = ChunkIndex(n * distance);
            chunks.insert_range(ChunkRange { start, end: ChunkIndex(start.0 + 1) });
        }
        let batches = plan(geometry, chunks, KINDS[0], 0);
        batches.map(|batch| batch.shipped_bytes().0 >> 12).collect::<Vec<_>>()
    };
    assert_eq!(batches_of(16 * chunks_per_mib, 40), [16, 16, 8], "64 KiB are enough");
    assert_eq!(batches_of(chunks_per_mib, 200), [64, 64, 64, 8], "64 MiB are as wide as can be");
    assert_eq!(batches_of(2, 300), [256, 44], "the buffer is full");
}

#[test]
fn short_gaps_are_read_over_and_long_ones_are_not() {
    let plan = small(&[(0, 1), (9, 10), (19, 20), (1000, 1001)], KINDS[0], 32 << 10);
    let batches: Vec<_> = plan.collect();
    let shown: Vec<_> = batches.iter().map(Batch::to_string).collect();
    assert_eq!(shown, ["batch 0: read 0+80 152+8 8000+3; ship 0+8 72+8 152+8 8000+3"]);
}

#[test]
fn a_gap_never_splits_from_what_comes_after_it() {
    // 250 chunks, then a gap that fits the buffer while the run after it does not.
    let batches: Vec<_> = small(&[(0, 250), (256, 260)], KINDS[0], 32 << 10).collect();
    assert_eq!(batches[0].to_string(), "batch 0: read 0+2000 2048+32; ship 0+2000 2048+32");
    let tail: Vec<_> = small(&[(0, 253), (256, 260)], KINDS[0], 32 << 10).collect();
    assert_eq!(tail[0].to_string(), "batch 0: read 0+2024 2048+24; ship 0+2024 2048+24");
    assert_eq!(tail[1].to_string(), "batch 1: read 2072+8; ship 2072+8");
}

#[test]
fn comparisons_read_whole_blocks_and_ship_chunks() {
    let batches: Vec<_> = small(&[(17, 18), (1000, 1001)], KINDS[2], 1 << 20).collect();
    assert_eq!(batches[0].to_string(), "batch 0: read 128+128 7936+67; ship 136+8 8000+3");
}

#[test]
fn nothing_dirty_is_no_batch() {
    assert_eq!(small(&[], KINDS[0], 0).next(), None);
}

#[test]
fn the_kind_of_a_plan_is_the_kind_of_its_epoch() {
    let kinds = KINDS.map(|coverage| small(&[(0, 1)], coverage, 0).kind());
    assert_eq!(kinds, [EpochKind::Delta, EpochKind::Seed, EpochKind::Compare]);
}
