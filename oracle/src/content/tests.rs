use blocks::{ChunkSize, Geometry};

use super::*;
use crate::Fill;

const BLOCK: usize = 8 * SECTOR;

fn layout() -> Layout {
    Layout::new(7, &[(3, Geometry::new(64, 4096, ChunkSize::DEFAULT).unwrap())])
}

fn write(run: u64, sector: u64, number: u64, blocks: usize) -> Vec<u8> {
    let mut bytes = vec![0; blocks * BLOCK];
    let stamp =
        Stamp { run, sector, write: number, disk: 3, stream: 1, fill: Fill::Random, ..NOTHING };
    stamp.stamp(&mut bytes);
    bytes
}

/// The contents of the blocks of a disk of zeroes after `bytes` were put at its third block.
fn seen(bytes: &[u8]) -> Vec<Content> {
    let mut disk = vec![0; 8 * BLOCK];
    disk[2 * BLOCK..2 * BLOCK + bytes.len()].copy_from_slice(bytes);
    let observed = Observed::read(&layout(), |_, extent, buffer: &mut [u8]| {
        let start = usize::try_from(extent.start.bytes()).unwrap();
        buffer.copy_from_slice(&disk[start..start + buffer.len()]);
        Ok::<_, ()>(())
    });
    observed.unwrap().disks[0].clone()
}

fn opacity(bytes: &[u8]) -> Opacity {
    match seen(bytes)[2] {
        Content::Opaque { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn writes_and_zeroes_are_told_apart() {
    let contents = seen(&write(7, 16, 5, 2));
    let (stream, write) = (1, 5);
    let mut expected = [Content::Zeroes; 8];
    expected[2] = Content::Write { stream, write, index: 0 };
    expected[3] = Content::Write { stream, write, index: 8 };
    assert_eq!(contents, expected);
}

#[test]
fn what_is_not_in_its_place_or_not_whole_is_opaque() {
    assert_eq!(opacity(&write(8, 16, 5, 1)), Opacity::Foreign);
    assert_eq!(opacity(&write(7, 24, 5, 1)), Opacity::Misplaced);
    assert_eq!(opacity(&[9; BLOCK]), Opacity::Unstamped);

    let good = write(7, 16, 5, 1);
    let other = write(7, 16, 6, 1);
    for sector in 1..8 {
        let mut torn = good.clone();
        torn[sector * SECTOR..].copy_from_slice(&other[sector * SECTOR..]);
        assert_eq!(opacity(&torn), Opacity::TornBlock);
        torn[sector * SECTOR..].fill(0);
        assert_eq!(opacity(&torn), Opacity::TornBlock);
        let mut torn = good.clone();
        torn[sector * SECTOR + 100..].copy_from_slice(&other[sector * SECTOR + 100..]);
        assert_eq!(opacity(&torn), Opacity::TornSector);
        let mut damaged = good.clone();
        damaged[sector * SECTOR + 20] ^= 1;
        assert_eq!(opacity(&damaged), Opacity::Damaged);
    }
}

#[test]
fn equal_bytes_have_equal_fingerprints() {
    assert_eq!(seen(&[9; BLOCK]), seen(&[9; BLOCK]));
    assert_ne!(seen(&[9; BLOCK]), seen(&[8; BLOCK]));
}
