//! A world in which the truth is known: streams write to simulated disks, every block of a write
//! lands at an instant of its own between issue and completion, and the state at any instant can
//! be looked at.

use crate::{
    Content, Fill, History, Initial, Issue, Layout, Observed, Outcome, Random, Record, Stamp, Unit,
    WriteKind,
};
use blocks::{ChunkSize, Extent, Geometry, MonotonicNs, Sector};

pub(crate) const RUN: u64 = 77;
const BEFORE: u64 = 66;
const DISKS: [(u32, u64, u32); 2] = [(0, 24, 512), (1, 64, 4096)];

/// What a block physically holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Zeroes,
    /// Written before the run.
    Before,
    /// The stamps of the record with this index.
    Stamps(usize),
    Garbage(u64),
}

/// Something that reaches a block.
#[derive(Clone, Copy, Debug)]
struct Landing {
    at: u64,
    unit: usize,
    record: usize,
    cell: Cell,
}

/// The bytes of both disks.
pub(crate) type Image = [Vec<u8>; 2];

pub(crate) struct World {
    pub(crate) layout: Layout,
    pub(crate) records: Vec<Record>,
    /// In the order of time.
    landings: Vec<Landing>,
    pub(crate) units: Vec<Unit>,
    pub(crate) end: u64,
    /// Each stream has a part of every disk to itself.
    apart: bool,
}

impl World {
    /// Streams that write all over the disks.
    pub(crate) fn new(seed: u64) -> Self {
        Self::generate(seed, false)
    }

    /// Streams that each keep to a part of every disk, with stamped writes only and no failure.
    pub(crate) fn apart(seed: u64) -> Self {
        Self::generate(seed, true)
    }

    fn generate(seed: u64, apart: bool) -> Self {
        let geometry = |(disk, sectors, block)| {
            (disk, Geometry::new(sectors, block, ChunkSize::DEFAULT).unwrap())
        };
        let layout = Layout::new(RUN, &DISKS.map(geometry));
        let units = layout.units().collect();
        let (records, landings) = (Vec::new(), Vec::new());
        let mut world = Self { layout, records, landings, units, end: 0, apart };
        let mut random = Random::new(seed);
        // Three chains, and a stream with up to two writes in flight.
        for stream in 0..3 {
            world.chain(&mut random, stream, 16, 0);
        }
        world.chain(&mut random, 3, 8, 0);
        world.chain(&mut random, 3, 8, 100);
        // A hot block, as the tail of a log.
        world.hot(&mut random, 4);
        world.landings.sort_by_key(|landing| landing.at);
        world.end = world.landings.iter().map(|landing| landing.at).max().unwrap();
        world
    }

    pub(crate) fn history(&self) -> History {
        let before = self.observed(&self.image(0, |_| false));
        History::new(self.layout.clone(), Initial::Image(before), self.records.clone()).unwrap()
    }

    pub(crate) fn observed(&self, image: &Image) -> Observed {
        let read = |disk: u32, extent: Extent, buffer: &mut [u8]| {
            let start = usize::try_from(extent.start.bytes()).unwrap();
            buffer.copy_from_slice(&image[disk as usize][start..start + buffer.len()]);
            Ok::<_, std::convert::Infallible>(())
        };
        Observed::read(&self.layout, read).unwrap()
    }

    pub(crate) fn initial(&self) -> impl Fn(Unit) -> Content {
        let before = self.observed(&self.image(0, |_| false));
        move |unit| before.content_of(&self.layout, unit)
    }

    /// The state at `instant`.
    pub(crate) fn state(&self, instant: u64) -> Image {
        self.image(instant, |_| true)
    }

    /// The state at `instant` if only these records had ever reached a disk.
    pub(crate) fn image(&self, instant: u64, reached: impl Fn(usize) -> bool) -> Image {
        let first = |unit: &Unit| if unit.disk == 0 { Cell::Zeroes } else { Cell::Before };
        let mut cells: Vec<Cell> = self.units.iter().map(first).collect();
        for landing in self.landings.iter().take_while(|landing| landing.at <= instant) {
            if reached(landing.record) {
                cells[landing.unit] = landing.cell;
            }
        }
        let mut image =
            DISKS.map(|(_, sectors, _)| vec![0; usize::try_from(sectors * 512).unwrap()]);
        for (unit, cell) in self.units.iter().zip(cells) {
            self.render(*unit, cell, self.bytes_of(&mut image, *unit));
        }
        image
    }

    /// The bytes of a unit.
    pub(crate) fn bytes_of<'a>(&self, image: &'a mut Image, unit: Unit) -> &'a mut [u8] {
        let extent = self.layout.extent_of(unit);
        let start = usize::try_from(extent.start.bytes()).unwrap();
        let len = usize::try_from(extent.len().0).unwrap();
        &mut image[unit.disk as usize][start..start + len]
    }

    /// Records acknowledged before `instant`.
    pub(crate) fn acknowledged(&self, instant: u64) -> Vec<usize> {
        let before = |record: &Record| matches!(record.outcome, Outcome::Completed(at) if at < MonotonicNs(instant));
        (0..self.records.len()).filter(|index| before(&self.records[*index])).collect()
    }

    /// Whether a record covers a unit.
    pub(crate) fn covers(&self, record: usize, unit: Unit) -> bool {
        let (at, issue) = (self.layout.extent_of(unit), self.records[record].issue);
        issue.disk == unit.disk && issue.extent.start <= at.start && at.start < issue.extent.end()
    }

    fn render(&self, unit: Unit, cell: Cell, bytes: &mut [u8]) {
        let extent = self.layout.extent_of(unit);
        let (run, record) = match cell {
            Cell::Zeroes => return bytes.fill(0),
            Cell::Garbage(seed) => return Random::new(seed).fill(bytes),
            Cell::Before => (BEFORE, None),
            Cell::Stamps(record) => (RUN, Some(self.records[record].issue)),
        };
        let stamp = Stamp {
            run,
            disk: unit.disk,
            stream: record.map_or(0, |issue| issue.stream),
            sector: extent.start.0,
            write: record.map_or(1, |issue| issue.write),
            index: record
                .map_or(0, |issue| u32::try_from(extent.start.0 - issue.extent.start.0).unwrap()),
            fill: Fill::Random,
            acknowledged: record.map_or(0, |issue| issue.write - 1),
        };
        stamp.stamp(bytes);
    }

    /// One write after the other.
    fn chain(&mut self, random: &mut Random, stream: u32, writes: u64, above: u64) {
        let mut now = random.below(10);
        for write in above + 1..=above + writes {
            let issued = now + 1 + random.below(6);
            let completed = issued + 1 + random.below(12);
            let kind = match random.below(40) {
                _ if self.apart => WriteKind::Data,
                0 | 1 => WriteKind::Discard,
                2..5 => WriteKind::Zeroes,
                _ => WriteKind::Data,
            };
            let failed = random.below(60) == 0 && !self.apart;
            let outcome =
                if failed { Outcome::Failed } else { Outcome::Completed(MonotonicNs(completed)) };
            let (disk, extent) = self.extent(random, stream);
            let issue = Issue { disk, stream, write, extent, kind };
            self.write(random, Record { issue, issued: MonotonicNs(issued), outcome });
            now = completed;
        }
    }

    /// One block, rewritten again and again; now and then with the same bytes.
    fn hot(&mut self, random: &mut Random, stream: u32) {
        let extent = Extent { start: Sector(5), sectors: 1 };
        let mut now = 0;
        for write in 1..=24 {
            let repeat = WriteKind::Repeat { of: write - write.min(2) };
            let kind = if write % 6 == 0 { repeat } else { WriteKind::Data };
            let issued = MonotonicNs(now + 1);
            now += 3 + random.below(5);
            let issue = Issue { disk: 0, stream, write, extent, kind };
            let outcome = Outcome::Completed(MonotonicNs(now));
            self.write(random, Record { issue, issued, outcome });
        }
    }

    fn extent(&self, random: &mut Random, stream: u32) -> (u32, Extent) {
        let disk = u32::try_from(random.below(2)).unwrap();
        let (_, sectors, block) = DISKS[disk as usize];
        let per_block = u64::from(block) / 512;
        let blocks = sectors / per_block;
        let (first, blocks) =
            if self.apart { (u64::from(stream) * blocks / 4, blocks / 4) } else { (0, blocks) };
        let len = 1 + random.below(4.min(blocks));
        let start = first + random.below(blocks - len + 1);
        (disk, Extent { start: Sector(start * per_block), sectors: len * per_block })
    }

    fn write(&mut self, random: &mut Random, record: Record) {
        let number = self.records.len();
        self.records.push(record);
        let Record { issue, issued, outcome } = record;
        // What failed may still reach the medium, or a part of it, long after.
        let (latest, failed) = match outcome {
            Outcome::Completed(at) => (at.0, false),
            _ => (issued.0 + 50, true),
        };
        for unit in 0..self.units.len() {
            if !self.covers(number, self.units[unit]) || failed && random.below(2) == 0 {
                continue;
            }
            let at = issued.0 + random.below(latest - issued.0 + 1);
            let cell = match issue.kind {
                WriteKind::Data => Cell::Stamps(number),
                WriteKind::Zeroes => Cell::Zeroes,
                WriteKind::Discard if random.below(2) == 0 => Cell::Zeroes,
                WriteKind::Discard => Cell::Garbage(random.next_u64()),
                WriteKind::Repeat { of } => Cell::Stamps(self.number(issue.stream, of)),
            };
            self.landings.push(Landing { at, unit, record: number, cell });
        }
    }

    fn number(&self, stream: u32, write: u64) -> usize {
        let of = |record: &Record| (record.issue.stream, record.issue.write) == (stream, write);
        self.records.iter().position(of).unwrap()
    }
}
