//! Reading all of a disk at a point: to see that it can be read, or to write it down.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};
use nbd::{Content, Export};

use crate::admin::points::Damage;
use crate::exit::{Exit, Failure};

/// What is read at a time.
const PIECE: u64 = 1 << 20;

/// Zeroes of this many bytes, so aligned, are left out of an image.
const BLOCK: usize = 4096;

/// Runs that are asked for at a time.
const RUNS: usize = 1024;

/// Reports of damage that are kept; the rest is only counted.
const DAMAGE_MAX: usize = 20;

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) read_bytes: u64,
    pub(super) damaged_bytes: u64,
    pub(super) damage: Vec<Damage>,
}

/// Reads every byte that is not a hole. `advance` is told how many bytes of the disk are done with,
/// holes counted, and may end it.
pub(super) fn verify(
    name: &str,
    disk: &dyn Export,
    mut advance: impl FnMut(u64) -> io::Result<()>,
) -> Result<Reading> {
    let mut reading = Reading::default();
    let mut buffer = vec![0; usize::try_from(PIECE)?];
    for_each_piece(disk, |piece, content| {
        let len = piece.end - piece.start;
        if content == Content::Data {
            reading.read_bytes += len;
            let buffer = &mut buffer[..usize::try_from(len)?];
            if let Err(error) = disk.read_at(piece.start, buffer) {
                reading.damaged_bytes += len;
                if reading.damage.len() < DAMAGE_MAX {
                    let (disk, reason) = (name.to_owned(), error.to_string());
                    reading.damage.push(Damage { disk, bytes: piece, reason });
                }
            }
        }
        Ok(advance(len)?)
    })?;
    Ok(reading)
}

/// Writes the disk into `file` as a raw image, which takes no room where the disk is zero. Returns
/// how many bytes were written.
pub(super) fn export(
    disk: &dyn Export,
    file: &File,
    mut advance: impl FnMut(u64) -> io::Result<()>,
) -> Result<u64> {
    let regular = file.metadata().context("looking at the image")?.is_file();
    ensure!(regular, Failure::new(Exit::Usage, "an image is written to a regular file"));
    file.set_len(0).and_then(|()| file.set_len(disk.len())).context("making room for the image")?;
    let mut written = 0;
    let mut buffer = vec![0; usize::try_from(PIECE)?];
    for_each_piece(disk, |piece, content| {
        if content == Content::Data {
            let bytes = &mut buffer[..usize::try_from(piece.end - piece.start)?];
            disk.read_at(piece.start, bytes)
                .map_err(|error| Failure::new(Exit::VerificationFailed, error.to_string()))?;
            for data in data_runs(bytes) {
                let offset = piece.start + data.start as u64;
                file.write_all_at(&bytes[data.clone()], offset).context("writing the image")?;
                written += data.len() as u64;
            }
        }
        Ok(advance(piece.end - piece.start)?)
    })?;
    file.sync_all().context("writing the image")?;
    Ok(written)
}

/// Goes over the whole disk in pieces that are all data or all hole.
fn for_each_piece(
    disk: &dyn Export,
    mut each: impl FnMut(Range<u64>, Content) -> Result<()>,
) -> Result<()> {
    let mut at = 0;
    while at < disk.len() {
        for run in disk.status(at..disk.len(), RUNS)? {
            let end = at + run.len;
            // A hole is one step, however long.
            let step = if run.content == Content::Data { PIECE } else { run.len };
            while at < end {
                let piece = at..end.min(at + step);
                at = piece.end;
                each(piece, run.content)?;
            }
        }
    }
    Ok(())
}

/// The stretches of `bytes` that are not zero, in whole blocks.
fn data_runs(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (i, block) in bytes.chunks(BLOCK).enumerate() {
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        let start = i * BLOCK;
        let end = start + block.len();
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use nbd::Run;

    use super::*;

    const LEN: u64 = (9 << 20) + 512;

    /// Data but for a hole in the middle; zeroes in the data; one place that can't be read.
    #[derive(Debug)]
    struct Disk {
        damaged: Option<u64>,
    }

    fn byte_at(offset: u64) -> u8 {
        let zero = (1 << 20..2 << 20).contains(&offset) || (4 << 20..6 << 20).contains(&offset);
        if zero { 0 } else { (offset / 512 % 255) as u8 + 1 }
    }

    impl Export for Disk {
        fn len(&self) -> u64 {
            LEN
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            let range = offset..offset + buffer.len() as u64;
            if self.damaged.is_some_and(|damaged| range.contains(&damaged)) {
                return Err(io::Error::other("a frame is damaged"));
            }
            let bytes = buffer.iter_mut().zip(offset..);
            bytes.for_each(|(byte, offset)| *byte = byte_at(offset));
            Ok(())
        }

        fn status(&self, range: Range<u64>, _: usize) -> io::Result<Vec<Run>> {
            let hole = 4 << 20..6 << 20;
            let (content, end) = match range.start {
                start if start < hole.start => (Content::Data, hole.start),
                start if start < hole.end => (Content::Hole, hole.end),
                _ => (Content::Data, LEN),
            };
            Ok(vec![Run { len: end.min(range.end) - range.start, content }])
        }
    }

    #[test]
    fn an_image_is_the_disk_and_takes_no_room_for_zeroes() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[9; 100], LEN + 50).unwrap();
        let mut advanced = 0;
        let disk = Disk { damaged: None };
        let written = export(&disk, &file, |len| {
            advanced += len;
            Ok(())
        });
        assert_eq!((written.unwrap(), advanced), (LEN - (3 << 20), LEN));
        let mut content = vec![0; usize::try_from(LEN).unwrap()];
        file.read_exact_at(&mut content, 0).unwrap();
        assert!((0..).zip(&content).all(|(offset, byte)| *byte == byte_at(offset)));
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), LEN, "what the file held before is gone");
        assert!(metadata.blocks() * 512 < LEN - (2 << 20));
    }

    #[test]
    fn damage_is_found_counted_and_named_and_the_rest_is_read() {
        let whole = verify("vda", &Disk { damaged: None }, |_| Ok(())).unwrap();
        assert_eq!((whole.read_bytes, whole.damaged_bytes), (LEN - (2 << 20), 0));
        let damaged = verify("vda", &Disk { damaged: Some(7 << 20) }, |_| Ok(())).unwrap();
        assert_eq!((damaged.read_bytes, damaged.damaged_bytes), (LEN - (2 << 20), 1 << 20));
        assert_eq!(damaged.damage[0].bytes, 7 << 20..8 << 20);
        assert!(damaged.damage[0].reason.contains("a frame is damaged"));
        let file = tempfile::tempfile().unwrap();
        let error = export(&Disk { damaged: Some(7 << 20) }, &file, |_| Ok(())).unwrap_err();
        assert_eq!(Failure::of(&error).exit, Exit::VerificationFailed);
    }

    #[test]
    fn whoever_waits_can_give_up() {
        let gone = |_| Err(io::ErrorKind::BrokenPipe.into());
        assert!(verify("vda", &Disk { damaged: None }, gone).is_err());
    }
}
