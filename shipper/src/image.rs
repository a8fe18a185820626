//! The content of a cut: blocks of several disks in memory, as they were at one instant.

use std::collections::HashMap;
use std::sync::Arc;

use blocks::{ByteLen, ChunkIndex, ChunkRange, Extent, Geometry};
use memmap2::{Advice, MmapMut};

/// The image of all disks of a cut. Each chunk is in it once, at its own place.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) memory: MmapMut,
    disks: Vec<ImageOfDisk>,
    /// Bytes of the memory that are given out.
    used: usize,
}

#[derive(Debug)]
struct ImageOfDisk {
    geometry: Geometry,
    /// Where the bytes of a chunk begin.
    places: HashMap<u64, usize>,
}

impl Image {
    pub(crate) fn new(memory: ByteLen) -> std::io::Result<Self> {
        let len = usize::try_from(memory.0).map_err(std::io::Error::other)?;
        Ok(Self { memory: MmapMut::map_anon(len)?, disks: Vec::new(), used: 0 })
    }

    /// Forgets what it held, and has room for these disks. So much of it is likely to be needed:
    /// the kernel gives those pages now and not while time is short.
    pub(crate) fn begin(&mut self, geometries: impl Iterator<Item = Geometry>, likely: ByteLen) {
        self.used = 0;
        self.disks =
            geometries.map(|geometry| ImageOfDisk { geometry, places: HashMap::new() }).collect();
        let likely = usize::try_from(likely.0).unwrap_or(usize::MAX).min(self.memory.len());
        // It works without, with a fault for each page.
        let _ = self.memory.advise_range(Advice::PopulateWrite, 0, likely);
    }

    /// The places of a range of chunks, as pieces that lie in one: the extent on the disk, and the
    /// offset in memory. Nothing if there is no room.
    pub(crate) fn place(&mut self, disk: usize, range: ChunkRange) -> Option<Vec<(Extent, usize)>> {
        let ImageOfDisk { geometry, places } = &mut self.disks[disk];
        let chunk_bytes = usize::try_from(geometry.chunk().bytes()).ok()?;
        let mut pieces: Vec<(Extent, usize)> = Vec::new();
        for chunk in range.start.0..range.end.0 {
            let at = match places.get(&chunk) {
                Some(at) => *at,
                None if self.used + chunk_bytes <= self.memory.len() => {
                    let at = self.used;
                    self.used += chunk_bytes;
                    places.insert(chunk, at);
                    at
                }
                None => return None,
            };
            let next = ChunkRange { start: ChunkIndex(chunk), end: ChunkIndex(chunk + 1) };
            let extent = geometry.extent_of(next);
            match pieces.last_mut() {
                Some((before, place)) if *place + bytes(*before) == at => {
                    before.sectors += extent.sectors;
                }
                _ => pieces.push((extent, at)),
            }
        }
        Some(pieces)
    }
}

/// One disk of an image, to ship from. The memory is free for another cut once the last is dropped.
#[derive(Clone, Debug)]
pub struct DiskImage {
    pub(crate) image: Arc<Image>,
    pub(crate) disk: usize,
}

impl DiskImage {
    /// Copies an extent of whole chunks out, if the image holds them all.
    pub fn copy(&self, extent: Extent, out: &mut [u8]) -> bool {
        let ImageOfDisk { geometry, places } = &self.image.disks[self.disk];
        let mut rest = out;
        let range = geometry.chunks_of(extent);
        for chunk in range.start.0..range.end.0 {
            let one = ChunkRange { start: ChunkIndex(chunk), end: ChunkIndex(chunk + 1) };
            let len = bytes(geometry.extent_of(one));
            let (Some(at), true) = (places.get(&chunk), len <= rest.len()) else { return false };
            let (part, later) = rest.split_at_mut(len);
            part.copy_from_slice(&self.image.memory[*at..*at + len]);
            rest = later;
        }
        rest.is_empty()
    }
}

fn bytes(extent: Extent) -> usize {
    usize::try_from(extent.len().0).expect("an extent in memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use blocks::{ChunkSize, Sector};

    #[test]
    fn a_chunk_keeps_its_place_and_neighbours_are_one_piece() {
        let geometry = Geometry::new(8 * 9 + 3, 512, ChunkSize::DEFAULT).unwrap();
        let range = |start, end| ChunkRange { start: ChunkIndex(start), end: ChunkIndex(end) };
        let mut image = Image::new(ByteLen(10 * 4096)).unwrap();
        image.begin([geometry].into_iter(), ByteLen(4096));
        let first = image.place(0, range(4, 6)).unwrap();
        assert_eq!(first, [(Extent { start: Sector(32), sectors: 16 }, 0)]);
        let around = image.place(0, range(3, 7)).unwrap();
        let places: Vec<usize> = around.iter().map(|(_, at)| *at).collect();
        assert_eq!(places, [8192, 0, 12288], "4 and 5 stay where they are");
        assert_eq!(image.place(0, range(9, 10)).unwrap()[0].0.sectors, 3, "the last is short");

        image.memory[..8192].fill(7);
        let image = DiskImage { image: Arc::new(image), disk: 0 };
        let mut out = [0; 8192];
        assert!(image.copy(first[0].0, &mut out) && out.iter().all(|byte| *byte == 7));
        assert!(!image.copy(Extent { start: Sector(0), sectors: 16 }, &mut out));
    }

    #[test]
    fn no_more_is_placed_than_fits() {
        let geometry = Geometry::new(80, 512, ChunkSize::DEFAULT).unwrap();
        let mut image = Image::new(ByteLen(2 * 4096)).unwrap();
        image.begin([geometry].into_iter(), ByteLen(0));
        let range = |start, end| ChunkRange { start: ChunkIndex(start), end: ChunkIndex(end) };
        assert!(image.place(0, range(0, 3)).is_none());
    }
}
