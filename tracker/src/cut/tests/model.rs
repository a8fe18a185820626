//! Disks of a few chunks, writers that issue, land and complete in any order, and an executor that
//! carries out what the cut says, one small step at a time between theirs.
//!
//! A write lands at some moment between its issue and its completion; a read sees the disk at some
//! moment between its own. A note in the conflict table comes with the issue, a dirty bit with the
//! completion.

use super::*;

/// A wrong executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    None,
    /// The conflict table is not asked.
    NoLook,
    /// The time is taken, and then the table is flipped.
    InstantBeforeFlip,
    /// The dirty bits are taken, and then the table is flipped.
    HarvestBeforeFlip,
    /// The table is asked when a read is issued, not when it has completed.
    LookBeforeRead,
    /// Dirty bits are cleared when their chunk has been read.
    ClearedAfterRead,
    /// That a program was skipped is not noticed.
    MissesIgnored,
}

/// How it went.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) verified: bool,
    pub(super) attempts: u32,
    /// A chunk whose content in the image can't have been there at T.
    pub(super) invalid: Option<String>,
    /// Whether every chunk with an acknowledged write is dirty or in what the cut gave back.
    pub(super) nothing_lost: bool,
}

/// A chunk as an index.
fn place(chunk: u64) -> usize {
    usize::try_from(chunk).unwrap()
}

const DISKS: usize = 2;
const PLACES: usize = 5;
const CHUNKS: u64 = PLACES as u64;
const WRITERS: usize = 3;
const WRITES_MAX: usize = 120;

#[derive(Clone, Copy, Debug)]
struct Write {
    disk: usize,
    chunk: u64,
    issued: u64,
    completed: Option<u64>,
    landed: bool,
}

struct Reading {
    read: Read,
    seen: Option<Vec<usize>>,
    early_look: Look,
}

pub(super) struct Model<'c> {
    choose: &'c mut dyn FnMut(usize) -> usize,
    mistake: Mistake,
    now: u64,
    writes: Vec<Write>,
    /// The write whose content a chunk holds; 0 is none.
    content: [[usize; PLACES]; DISKS],
    dirty: [u64; DISKS],
    notes: [u64; DISKS],
    misses: u64,
    /// The write each writer has under way.
    under_way: [Option<usize>; WRITERS],
    image: [[Option<usize>; PLACES]; DISKS],
    readings: Vec<Reading>,
}

impl<'c> Model<'c> {
    pub(super) fn run(
        choose: &'c mut dyn FnMut(usize) -> usize,
        freeze: Freeze,
        mistake: Mistake,
    ) -> Report {
        let first = Write { disk: 0, chunk: 0, issued: 0, completed: Some(0), landed: true };
        let mut model = Self {
            choose,
            mistake,
            now: 1,
            writes: vec![first],
            content: Default::default(),
            dirty: [0; DISKS],
            notes: [0; DISKS],
            misses: 0,
            under_way: [None; WRITERS],
            image: Default::default(),
            readings: Vec::new(),
        };
        for _ in 0..20 {
            model.write();
        }
        // Some of it was harvested before, as by a sweep.
        let mut known = [0; DISKS];
        if (model.choose)(2) == 0 {
            known = std::mem::take(&mut model.dirty);
        }
        model.others();
        let limits = CutLimits {
            attempts: 30,
            time: Duration::ZERO,
            depth: 3,
            run: ByteLen(2 * 4096),
            pause: Duration::ZERO,
            ..CutLimits::default()
        };
        let disks = known.map(|bits| {
            let mut disk = disk(CHUNKS, &[]);
            disk.dirty.insert_word(0, bits);
            disk
        });
        let mut cut = Cut::new(limits, freeze, disks.into(), 1, MonotonicNs(model.now));
        model.drive(&mut cut);
        model.report(cut)
    }

    fn drive(&mut self, cut: &mut Cut) {
        let mut taken_early = None;
        loop {
            self.others();
            match cut.poll(MonotonicNs(self.now)) {
                Step::Flip(_) => taken_early = self.flip(cut),
                Step::Harvest => self.harvest(cut, taken_early.take()),
                Step::Read(read) => {
                    let early_look = self.look(read);
                    self.readings.push(Reading { read, seen: None, early_look });
                    if (self.choose)(3) == 0 {
                        self.complete(cut);
                    }
                }
                Step::Wait => self.complete(cut),
                Step::Check => {
                    let misses =
                        if self.mistake == Mistake::MissesIgnored { 0 } else { self.misses };
                    cut.handle_check(misses, false, MonotonicNs(self.now));
                }
                Step::Pause(_) => {}
                Step::Done => return,
            }
        }
    }

    fn flip(&mut self, cut: &mut Cut) -> Option<[u64; DISKS]> {
        let misses = if self.mistake == Mistake::MissesIgnored { 0 } else { self.misses };
        let early_instant = self.now;
        let mut early = None;
        if self.mistake == Mistake::HarvestBeforeFlip {
            early = Some(std::mem::take(&mut self.dirty));
        }
        self.others();
        self.notes = [0; DISKS];
        self.now += 1;
        let instant =
            if self.mistake == Mistake::InstantBeforeFlip { early_instant } else { self.now };
        cut.handle_flip(misses, at(instant));
        early
    }

    fn harvest(&mut self, cut: &mut Cut, early: Option<[u64; DISKS]>) {
        for disk in 0..DISKS {
            self.others();
            let bits = match (early, self.mistake) {
                (Some(early), _) => early[disk],
                (None, Mistake::ClearedAfterRead) => self.dirty[disk],
                (None, _) => std::mem::take(&mut self.dirty[disk]),
            };
            cut.handle_dirty(disk, 0, bits);
            cut.handle_harvested(disk);
        }
    }

    /// One of the reads under way sees the disk, and maybe completes.
    fn complete(&mut self, cut: &mut Cut) {
        if self.readings.is_empty() {
            return;
        }
        let which = (self.choose)(self.readings.len());
        let Read { id, disk, chunks } = self.readings[which].read;
        let range = chunks.start.0..chunks.end.0;
        let seen = range.clone().map(|chunk| self.content[disk][place(chunk)]).collect();
        self.readings[which].seen.get_or_insert(seen);
        self.others();
        let Reading { read, seen, early_look } = self.readings.remove(which);
        for (chunk, seen) in range.zip(seen.into_iter().flatten()) {
            self.image[disk][place(chunk)] = Some(seen);
            if self.mistake == Mistake::ClearedAfterRead {
                self.dirty[disk] &= !(1 << chunk);
            }
        }
        let look = match self.mistake {
            Mistake::NoLook => Look::Clear,
            Mistake::LookBeforeRead => early_look,
            _ => self.look(read),
        };
        cut.handle_read(id, look, MonotonicNs(self.now));
    }

    fn look(&self, read: Read) -> Look {
        let mut chunks = read.chunks.start.0..read.chunks.end.0;
        let noted = chunks.any(|chunk| self.notes[read.disk] >> chunk & 1 == 1);
        if noted { Look::Conflict } else { Look::Clear }
    }

    /// What the writers do meanwhile.
    fn others(&mut self) {
        self.now += 1;
        for _ in 0..(self.choose)(3) {
            self.write();
        }
    }

    /// One writer gets one step further: issues, lands, or completes.
    fn write(&mut self) {
        self.now += 1;
        let writer = (self.choose)(WRITERS);
        let Some(under_way) = self.under_way[writer] else {
            return self.issue(writer);
        };
        let write = &mut self.writes[under_way];
        let chunk = place(write.chunk);
        if !write.landed {
            write.landed = true;
            self.content[write.disk][chunk] = under_way;
        } else {
            write.completed = Some(self.now);
            self.dirty[write.disk] |= 1 << write.chunk;
            self.under_way[writer] = None;
        }
    }

    fn issue(&mut self, writer: usize) {
        // Writers rest now and then, and stop in the end.
        if (self.choose)(3) > 0 || self.writes.len() >= WRITES_MAX {
            return;
        }
        let disk = (self.choose)(DISKS);
        let chunk = (self.choose)(PLACES) as u64;
        let write = Write { disk, chunk, issued: self.now, completed: None, landed: false };
        self.under_way[writer] = Some(self.writes.len());
        self.writes.push(write);
        if (self.choose)(40) == 0 {
            self.misses += 1;
        } else {
            self.notes[disk] |= 1 << chunk;
        }
    }

    fn report(&self, cut: Cut) -> Report {
        let Finished { outcome, disks, attempts } = cut.finish();
        let back = |disk: usize, chunk| disks[disk].chunks.contains(ChunkIndex(chunk));
        let lost = self.writes[1..].iter().any(|write| {
            let dirty = self.dirty[write.disk] >> write.chunk & 1 == 1;
            write.completed.is_some() && !dirty && !back(write.disk, write.chunk)
        });
        let invalid = match &outcome {
            Outcome::Verified(verified) => self.invalid(verified.at.monotonic.0),
            _ => None,
        };
        let verified = matches!(outcome, Outcome::Verified(_));
        Report { verified, attempts, invalid, nothing_lost: !lost }
    }

    /// A chunk that shows what no crash at `t` could have left.
    fn invalid(&self, t: u64) -> Option<String> {
        let all = (0..DISKS).flat_map(|disk| (0..CHUNKS).map(move |chunk| (disk, chunk)));
        all.into_iter().find_map(|(disk, chunk)| {
            // What was never read is as the replica had it: nothing was written there.
            let held = self.image[disk][place(chunk)].unwrap_or(0);
            let shown = self.writes[held];
            let overwritten = (1..).zip(&self.writes[1..]).find(|(id, other)| {
                let same = other.disk == disk && other.chunk == chunk && *id != held;
                let after = shown.completed.is_some_and(|completed| other.issued > completed);
                same && after && other.completed.is_some_and(|completed| completed <= t)
            });
            let too_new = shown.issued > t;
            (too_new || overwritten.is_some()).then(|| {
                format!("disk {disk} chunk {chunk} at {t}: {shown:?}, and {overwritten:?}")
            })
        })
    }
}
