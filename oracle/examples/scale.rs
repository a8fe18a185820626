//! How long the check takes at the size of a long run: `cargo run --release -p oracle --example
//! scale [WRITES] [POINTS]`, by default ten million writes to a disk of 4 GiB and 300 points.

use std::time::Instant;

use blocks::{ChunkSize, Extent, Geometry, MonotonicNs, Sector};
use oracle::{
    Content, Fill, History, Initial, Issue, Layout, Observed, Outcome, Random, Record, Stamp,
    Verdict, Window, WriteKind, judge,
};

const STREAMS: u64 = 8;
const SECTORS: u64 = 8 << 20;
const PER_BLOCK: u64 = 8;
/// From one issue to the next, and from an issue to its completion: most streams are in flight.
const GAP: u64 = 30_000;
const LATENCY: u64 = 200_000;

fn records(writes: u64) -> impl Iterator<Item = Record> {
    let mut random = Random::new(1);
    (0..writes).map(move |at| {
        let blocks = 1 << random.below(5);
        let start = Sector(random.below(SECTORS / PER_BLOCK - blocks + 1) * PER_BLOCK);
        let extent = Extent { start, sectors: blocks * PER_BLOCK };
        let stream = u32::try_from(at % STREAMS).expect("few streams");
        let (write, kind) = (at / STREAMS + 1, WriteKind::Data);
        let issued = MonotonicNs(1 + at * GAP);
        let outcome = Outcome::Completed(MonotonicNs(issued.0 + LATENCY));
        Record { issue: Issue { disk: 0, stream, write, extent, kind }, issued, outcome }
    })
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let writes: u64 = arguments.next().unwrap_or(10_000_000);
    let points: u64 = arguments.next().unwrap_or(300);
    let geometry = Geometry::new(SECTORS, 4096, ChunkSize::DEFAULT).expect("a geometry");
    let layout = Layout::new(1, &[(0, geometry)]);

    let started = Instant::now();
    let history = History::new(layout.clone(), Initial::Zeroes, records(writes));
    let history = history.expect("records of one run");
    println!("{writes} writes indexed in {:.1?}", started.elapsed());

    let mut disk = vec![Content::Zeroes; usize::try_from(SECTORS / PER_BLOCK).expect("64-bit")];
    let mut records = records(writes).peekable();
    let started = Instant::now();
    for point in 1..=points {
        let cut = MonotonicNs(writes * GAP / points * point);
        let landed = |record: &Record| record.issued.0 + LATENCY <= cut.0;
        while let Some(record) = records.next_if(landed) {
            let Issue { stream, write, extent, .. } = record.issue;
            let first = usize::try_from(extent.start.0 / PER_BLOCK).expect("64-bit");
            for block in 0..extent.sectors / PER_BLOCK {
                let index = u32::try_from(block * PER_BLOCK).expect("a short write");
                let at = first + usize::try_from(block).expect("64-bit");
                disk[at] = Content::Write { stream, write, index };
            }
        }
        let content = |block: u64| disk[usize::try_from(block).expect("64-bit")];
        let observed = Observed::from_fn(&layout, |unit| content(unit.block));
        if let Verdict::Invalid(reason) = judge(&history, &observed, Window::at(cut)) {
            panic!("point {point}: {reason}");
        }
    }
    let each = started.elapsed() / u32::try_from(points).expect("few points");
    println!("{points} points of {} blocks, {each:.1?} each", disk.len());
    decode();
}

/// Reads 256 MiB of stamped sectors.
fn decode() {
    let sectors = SECTORS / 16;
    let geometry = Geometry::new(sectors, 4096, ChunkSize::DEFAULT).expect("a geometry");
    let layout = Layout::new(1, &[(0, geometry)]);
    let mut image = vec![0; usize::try_from(sectors * 512).expect("64-bit")];
    let (sector, write, fill) = (0, 1, Fill::Random);
    let stamp =
        Stamp { run: 1, disk: 0, stream: 0, sector, write, index: 0, fill, acknowledged: 0 };
    stamp.stamp(&mut image);
    let started = Instant::now();
    let observed = Observed::read(&layout, |_, extent, buffer: &mut [u8]| {
        let start = usize::try_from(extent.start.bytes()).expect("64-bit");
        buffer.copy_from_slice(&image[start..start + buffer.len()]);
        Ok::<_, std::convert::Infallible>(())
    });
    let took = started.elapsed();
    let held = observed.expect("nothing fails").content_of(&layout, first(&layout));
    println!("256 MiB of stamps read in {took:.1?}; the first block holds {held}");
}

fn first(layout: &Layout) -> oracle::Unit {
    layout.units().next().expect("a disk has a unit")
}
