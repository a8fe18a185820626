//! A view under any cache, any number of readers, and while history goes on, against a model that
//! knows of each sector only which epoch wrote it last.

use std::{collections::BTreeSet, thread};

use blocks::{ByteLen, Epoch, EpochKind, Geometry, Sector};
use numbers::Random;
use wire::{
    CheckedFrame, Codec, Content, EpochEnd, EpochLink, EpochSummary, FrameExtent, FrameSpec,
    Sealer, Sequence,
};

use super::source::{point, spec};
use crate::{Disk, DiskSpec, Step, Store, View};

const SECTORS: u64 = 48 << 11;
const EPOCHS: u64 = 24;
/// Frames of an epoch, and extents of each: together they are all over the disk.
const FRAMES: u64 = 3;
const EXTENTS: u64 = 24;
/// The point that is read.
const READ: u64 = 18;

/// For each sector the epoch that wrote it last; zeroes are of epoch 0.
type Model = Vec<u32>;

/// A source of scattered epochs.
struct Source {
    spec: DiskSpec,
    sealer: Sealer,
    random: Random,
    model: Model,
    /// What the disk holds after each epoch, from 0 on.
    past: Vec<Model>,
}

/// Numbers that look random and are the same in each run.
mod numbers {
    pub(super) struct Random(pub(super) u64);

    impl Random {
        pub(super) fn below(&mut self, limit: u64) -> u64 {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }
}

/// The content of a sector that an epoch wrote.
fn fill(sector: u64, epoch: u32, bytes: &mut [u8]) {
    let word = if epoch == 0 { 0 } else { u64::from(epoch) << 40 | sector };
    bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&word.to_le_bytes()));
}

fn content(model: &Model, offset: u64, len: usize) -> Vec<u8> {
    let (first, end) = (offset / 512, (offset + len as u64).div_ceil(512));
    let mut bytes = vec![0; usize::try_from((end - first) * 512).unwrap()];
    for (sector, bytes) in (first..end).zip(bytes.chunks_exact_mut(512)) {
        fill(sector, model[usize::try_from(sector).unwrap()], bytes);
    }
    let skipped = usize::try_from(offset - first * 512).unwrap();
    bytes[skipped..skipped + len].to_vec()
}

impl Source {
    fn new() -> Self {
        let geometry = Geometry::new(SECTORS, 512, spec().geometry.chunk()).unwrap();
        let spec = DiskSpec { geometry, ..spec() };
        let sealer = Sealer::new(&spec.key, spec.id, spec.generation).unwrap();
        let model = vec![0; usize::try_from(SECTORS).unwrap()];
        Self { spec, sealer, random: Random(0x5eed), past: vec![model.clone()], model }
    }

    /// Sends the next epoch, which makes a point.
    fn send(&mut self, disk: &Disk) {
        let epoch = Epoch(self.past.len() as u64);
        let kind = if epoch == Epoch(1) { EpochKind::Seed } else { EpochKind::Delta };
        let link = EpochLink { kind, epoch, follows: Epoch(epoch.0 - 1) };
        let mut incoming = disk.begin(link).unwrap();
        let mut summary = EpochSummary { completes: true, ..EpochSummary::default() };
        let groups = self.groups();
        for (sequence, extents) in (0..).map(Sequence).zip(&groups) {
            let frame = self.seal(link, sequence, extents);
            summary.frames += 1;
            summary.data_bytes += u64::from(frame.header().plain_len);
            summary.zero_bytes += frame.zero_bytes();
            incoming.append(frame).unwrap();
        }
        let end = EpochEnd { summary, point: Some(point(epoch.0, 1)) };
        let end = self.sealer.seal_end(link, Sequence(u64::MAX), end).unwrap();
        incoming.append(CheckedFrame::parse(end).unwrap()).unwrap();
        incoming.commit().unwrap();
        self.past.push(self.model.clone());
    }

    /// Extents that ascend over all frames, with no regard for pages; some are neighbours.
    fn groups(&mut self) -> Vec<Vec<FrameExtent>> {
        let slot = SECTORS / (FRAMES * EXTENTS);
        let mut extent = |number: u64| {
            let sectors = 1 + self.random.below(40);
            let skipped = if number.is_multiple_of(5) {
                slot - sectors
            } else {
                self.random.below(slot - 40)
            };
            let is_zero = self.random.below(6) == 0;
            FrameExtent {
                start: Sector(number * slot + skipped),
                sectors: u32::try_from(sectors).unwrap(),
                content: if is_zero { Content::Zeroes } else { Content::Data },
            }
        };
        (0..FRAMES)
            .map(|frame| (0..EXTENTS).map(|n| extent(frame * EXTENTS + n)).collect())
            .collect()
    }

    fn seal(
        &mut self,
        link: EpochLink,
        sequence: Sequence,
        extents: &[FrameExtent],
    ) -> CheckedFrame {
        let mut data = Vec::new();
        for extent in extents {
            let is_zero = extent.content == Content::Zeroes;
            let written = if is_zero { 0 } else { u32::try_from(link.epoch.0).unwrap() };
            for sector in extent.start.0..extent.extent().end().0 {
                self.model[usize::try_from(sector).unwrap()] = written;
            }
            if !is_zero {
                let len = usize::try_from(extent.data_len()).unwrap();
                data.extend(content(&self.model, extent.start.bytes(), len));
            }
        }
        let payload = zstd::bulk::compress(&data, 1).unwrap();
        let spec = FrameSpec { link, sequence, codec: Codec::Zstd, extents };
        CheckedFrame::parse(self.sealer.seal(&spec, &payload).unwrap()).unwrap()
    }
}

/// Reads `count` pieces, from places that `place` names, and holds them against the model.
fn read(view: &View, model: &Model, pieces: impl Iterator<Item = (u64, usize)>) {
    let mut bytes = Vec::new();
    for (offset, len) in pieces {
        bytes.resize(len, 0xaa);
        view.read_at(offset, &mut bytes).unwrap();
        assert!(bytes == content(model, offset, len), "{len} bytes from {offset}");
    }
}

/// All of the disk in order, some requests overtaking others.
fn in_order(len: u64) -> impl Iterator<Item = (u64, usize)> {
    let count = SECTORS * 512 / len;
    let swapped = move |n: u64| if n % 4 == 1 && n + 1 < count { n + 1 } else { n };
    (0..count).map(move |n| {
        let n = if n % 4 == 2 { n - 1 } else { swapped(n) };
        (n * len, usize::try_from(len).unwrap())
    })
}

fn at_random(seed: u64, count: usize) -> impl Iterator<Item = (u64, usize)> {
    let mut random = Random(seed);
    std::iter::repeat_with(move || {
        let len = 1 + random.below(30_000);
        (random.below(SECTORS * 512 - len), usize::try_from(len).unwrap())
    })
    .take(count)
}

fn store() -> (tempfile::TempDir, Store, Disk, Source) {
    let directory = tempfile::tempdir().unwrap();
    let dir = directory.path().join("store");
    Store::init(&dir).unwrap();
    let store = Store::open(&dir).unwrap();
    let mut source = Source::new();
    let disk = store.open_disk(&source.spec).unwrap();
    (0..EPOCHS).for_each(|_| source.send(&disk));
    (directory, store, disk, source)
}

#[test]
fn any_cache_any_readers_and_retention_beside_them_change_nothing() {
    let (_directory, store, disk, mut source) = store();
    // No page, one, some, a part of what is needed, all of it.
    let caches = [0, 4200, 100_000, 1 << 20, 64 << 20];
    let views = caches.map(|bytes| {
        store.set_view_cache(ByteLen(bytes));
        disk.history().view(Epoch(READ)).unwrap()
    });
    let model = source.past[usize::try_from(READ).unwrap()].clone();
    thread::scope(|scope| {
        for (seed, view) in (1..).zip(&views) {
            let model = &model;
            scope.spawn(move || read(view, model, in_order(256 << 10)));
            scope.spawn(move || read(view, model, in_order(1 << 20)));
            scope.spawn(move || read(view, model, at_random(seed, 40)));
        }
        let history = disk.history();
        for round in 0..6 {
            source.send(&disk);
            let keep = BTreeSet::from([Epoch(READ - round), Epoch(READ + 1 + round)]);
            while history.retain_step(&keep, Epoch(u64::MAX)).unwrap() != Step::Done {}
        }
    });
    // Nothing but what it shows holds the point.
    assert!(disk.history().points().iter().any(|point| point.epoch == Epoch(READ)));
    let newest = disk.history().points().last().unwrap().epoch;
    let view = disk.history().view(newest).unwrap();
    read(&view, source.past.last().unwrap(), in_order(1 << 20));
}

#[test]
fn who_reads_in_order_has_each_frame_decoded_once_if_the_cache_suffices() {
    let (_directory, store, disk, source) = store();
    let model = &source.past[usize::try_from(READ).unwrap()];
    // What a frame still holds of what comes, of every delta, is some 3 MiB at most.
    for cache in [4 << 20, 64 << 20] {
        store.set_view_cache(ByteLen(cache));
        let view = disk.history().view(Epoch(READ)).unwrap();
        read(&view, model, in_order(256 << 10));
        let (decoded, shown) = view.decoded();
        assert_eq!(decoded, shown, "with a cache of {cache} bytes");
    }
}

#[test]
fn threads_that_read_the_same_have_each_frame_decoded_once() {
    let (_directory, _store, disk, source) = store();
    let model = &source.past[usize::try_from(READ).unwrap()];
    let view = disk.history().view(Epoch(READ)).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| read(&view, model, in_order(64 << 10)));
        }
    });
    let (decoded, shown) = view.decoded();
    assert_eq!(decoded, shown);
}
