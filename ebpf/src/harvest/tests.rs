use std::{sync::atomic::Ordering::SeqCst, thread};

use blocks::Bitmap;

use super::*;
use crate::{
    limits::COARSE_CHUNKS,
    shape::{coarse_words_of, words_of},
};

fn zeroes(words: u64) -> Vec<AtomicU64> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

struct Owned {
    dirty: Vec<AtomicU64>,
    coarse: Vec<AtomicU64>,
    pending: Vec<AtomicU64>,
    chunks: u64,
}

impl Owned {
    fn new(chunks: u64) -> Self {
        let words = words_of(chunks);
        let coarse = zeroes(coarse_words_of(chunks));
        Self { dirty: zeroes(words), coarse, pending: zeroes(words), chunks }
    }

    fn bitmaps(&self) -> Bitmaps<'_> {
        Bitmaps {
            dirty: &self.dirty,
            coarse: &self.coarse,
            pending: &self.pending,
            chunks: self.chunks,
        }
    }

    fn harvest(&self) -> Vec<(u64, u64)> {
        let mut words = Vec::new();
        self.bitmaps().harvest(&mut |index, bits| words.push((index, bits)));
        words
    }

    fn pending(&self) -> Vec<u64> {
        self.pending.iter().map(|word| word.load(SeqCst)).collect()
    }
}

#[test]
fn bits_move_from_dirty_to_pending_and_stay_there() {
    let disk = Owned::new(130);
    disk.dirty[0].store(0b101, SeqCst);
    disk.dirty[2].store(0b11, SeqCst);
    assert_eq!(disk.harvest(), [(0, 0b101), (2, 0b11)]);
    assert_eq!(disk.harvest(), []);
    disk.dirty[0].store(0b10, SeqCst);
    assert_eq!(disk.harvest(), [(0, 0b10)]);
    assert_eq!(disk.pending(), [0b111, 0, 0b11]);
}

#[test]
fn a_coarse_bit_is_all_of_its_chunks_within_the_disk() {
    let disk = Owned::new(u64::from(COARSE_CHUNKS) + 65);
    disk.coarse[0].store(0b10, SeqCst);
    assert_eq!(disk.harvest(), [(64, u64::MAX), (65, 1)]);
    assert_eq!(disk.pending()[..64], [0; 64]);
    disk.coarse[0].store(0b01, SeqCst);
    assert_eq!(disk.harvest().len(), 64);
}

#[test]
fn filling_respects_the_end_of_the_disk() {
    let disk = Owned::new(70);
    disk.bitmaps().fill_pending();
    assert_eq!(disk.pending(), [u64::MAX, 0b11_1111]);
}

#[test]
fn a_bit_is_in_a_bitmap_at_every_step() {
    // At the hand-out, the bit must already be safe in pending and gone from dirty: a process
    // killed right there loses nothing, and one killed before it finds it again.
    let disk = Owned::new(64);
    disk.dirty[0].store(1, SeqCst);
    disk.bitmaps().harvest(&mut |_, _| {
        assert_eq!(disk.pending(), [1]);
        assert_eq!(disk.dirty[0].load(SeqCst), 0);
    });
}

#[test]
fn marks_made_during_a_harvest_are_not_wiped() {
    let disk = Owned::new(64 * 16);
    let rounds = 20_000;
    let mut seen = Bitmap::new(disk.chunks);
    let mut note = |(index, bits)| seen.insert_word(index, bits);
    thread::scope(|scope| {
        let marker = scope.spawn(|| {
            for i in 0..rounds {
                disk.dirty[i % 16].fetch_or(1 << (i / 16 % 64), SeqCst);
            }
        });
        while !marker.is_finished() {
            disk.harvest().into_iter().for_each(&mut note);
        }
    });
    disk.harvest().into_iter().for_each(&mut note);
    assert_eq!(seen, Bitmap::full(disk.chunks));
}
