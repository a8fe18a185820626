//! In which order and in which pieces an iteration reads.

use blocks::{ChunkIndex, ChunkRange};

use super::{CutLimits, Disk, Read};

/// The reads of everything due, numbered from `first`; the one to issue first is last. Hot chunks
/// come before cold ones, neighbours that are equally hot are one read.
pub(super) fn plan(disks: &[Disk], iteration: u32, limits: &CutLimits, first: u64) -> Vec<Read> {
    let mut found: Vec<(u32, usize, ChunkRange)> = Vec::new();
    for (index, disk) in disks.iter().enumerate() {
        let longest = (limits.run.0 / disk.geometry.chunk().bytes()).max(1);
        for run in disk.due.runs() {
            pieces(disk, run, iteration, longest, &mut |heat, piece| {
                found.push((heat, index, piece));
            });
        }
    }
    // Stable: on one disk, equally hot reads rise.
    found.sort_by_key(|(heat, _, _)| std::cmp::Reverse(*heat));
    let numbered = (first..).zip(found);
    let mut reads: Vec<Read> =
        numbered.map(|(id, (_, disk, chunks))| Read { id, disk, chunks }).collect();
    reads.reverse();
    reads
}

/// Cuts a run where it gets hotter or colder, and where it is too long.
fn pieces(
    disk: &Disk,
    run: ChunkRange,
    iteration: u32,
    longest: u64,
    out: &mut dyn FnMut(u32, ChunkRange),
) {
    let heat = |chunk| disk.heat.of(chunk, iteration);
    let mut start = run.start.0;
    let mut hot = heat(start);
    for chunk in run.start.0 + 1..=run.end.0 {
        let next = if chunk == run.end.0 { None } else { Some(heat(chunk)) };
        if next != Some(hot) || chunk - start == longest {
            out(hot, ChunkRange { start: ChunkIndex(start), end: ChunkIndex(chunk) });
            start = chunk;
            hot = next.unwrap_or(0);
        }
    }
}
