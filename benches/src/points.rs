//! Recovery points: opening one, reading it over NBD, and taking deltas in.
//!
//! Everything is on the file system of the checkout, since a disk in memory has no medium to be slow.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use blocks::ByteLen;
use nbd::RawFile;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use replica::VIEW_CACHE_DEFAULT;
use tempfile::TempDir;
use vm_tests::Rig;

use crate::record::{Bar, Series, Unit, Verdict};
use crate::{Findings, Rounds, forget_files, on_a_medium, rival};

mod serve;
mod store;

use serve::{Viewed, data_of_disk, data_of_view, rate_in_order, rate_over_nbd};
use store::{Cut, Replica};

pub(crate) const NAME: &str = "points";
const DISK: ByteLen = ByteLen(16 << 30);
/// What of the base is written, and read.
const WRITTEN: ByteLen = ByteLen(4 << 30);
const DELTAS: u64 = 1000;
/// Blocks of 4 KiB in each of them, anywhere on the disk.
const BLOCKS: u64 = 1000;
/// Of so many deltas one makes a point.
const POINT_EVERY: u64 = 10;
/// A delta that covers the beginning of the disk, and what of that view is read.
const LARGE: ByteLen = ByteLen(1 << 30);

/// What no shipper makes, and is measured without a promise.
const FULL: &str = "full frames";

/// Rates over NBD, in MiB a second, a figure a round.
#[derive(Default)]
struct Rates {
    raw: Temperatures,
    view: Temperatures,
    /// A mebibyte at a time in order and without NBD, from the page cache.
    raw_plain: Vec<f64>,
    view_plain: Vec<f64>,
}

/// From the medium, and from the page cache.
#[derive(Default)]
struct Temperatures {
    cold: Vec<f64>,
    warm: Vec<f64>,
}

/// Seconds, a figure a round.
#[derive(Default)]
struct Times {
    open_cold: Vec<f64>,
    open_warm: Vec<f64>,
    commit: Vec<f64>,
    dd: Vec<f64>,
}

/// Measures it.
pub(crate) fn measure(rig: &Rig, rounds: Rounds) -> Result<Findings> {
    // A view has a descriptor for each delta.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let (mut times, mut large) = (Times::default(), Rates::default());
    let mut store = Scattered::create(Cut::AsShipped)?;
    for round in rounds.numbers() {
        store.open(&mut times)?;
        rounds.say(round, &[("open", &times.open_cold), ("again", &times.open_warm)]);
    }
    let shipped = store.read(rig, WRITTEN, rounds, "frames as shipped")?;
    for round in rounds.numbers() {
        store.ingest(round as u64, &mut times)?;
        rounds.say(round, &[("commit", &times.commit), ("dd", &times.dd)]);
        store.read_once(rig, LARGE, &mut large)?;
        large.say(rounds, round, "one large delta");
    }
    drop(store);
    let full = {
        let store = Scattered::create(Cut::Full)?;
        store.read(rig, WRITTEN, rounds, "frames as full as can be")?
    };
    Ok(findings(times, [("as shipped", shipped), (FULL, full), ("one large delta", large)]))
}

/// A disk with deltas of scattered blocks.
struct Scattered {
    directory: TempDir,
    replica: Replica,
}

impl Scattered {
    fn create(cut: Cut) -> Result<Self> {
        let directory = on_a_medium(NAME)?;
        let mut replica = Replica::create(&directory.path().join("store"), DISK)?;
        replica.seed(WRITTEN).context("filling the base")?;
        for _ in 0..DELTAS {
            replica.scatter(BLOCKS, POINT_EVERY, cut).context("making a delta")?;
        }
        Ok(Self { directory, replica })
    }

    /// Opens the newest point and reads its first bytes, from the medium and once more.
    fn open(&self, times: &mut Times) -> Result<()> {
        forget_files(self.directory.path())?;
        for seconds in [&mut times.open_cold, &mut times.open_warm] {
            let began = Instant::now();
            let view = self.replica.view(VIEW_CACHE_DEFAULT)?;
            view.read_at(0, &mut [0; 512])?;
            seconds.push(began.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn read(&self, rig: &Rig, len: ByteLen, rounds: Rounds, what: &str) -> Result<Rates> {
        let mut rates = Rates::default();
        for round in rounds.numbers() {
            self.read_once(rig, len, &mut rates)?;
            rates.say(rounds, round, what);
        }
        Ok(rates)
    }

    /// Reads the beginning of the base and of the newest point, by turns.
    fn read_once(&self, rig: &Rig, len: ByteLen, rates: &mut Rates) -> Result<()> {
        let directory = self.directory.path();
        let base = self.replica.base();
        let raw = || {
            let disk = RawFile::open(&base)?;
            let data = data_of_disk(&disk, len)?;
            rate_over_nbd(rig, disk, len, data)
        };
        let view = || {
            let view = self.replica.view(VIEW_CACHE_DEFAULT)?;
            let data = data_of_view(&view, len)?;
            rate_over_nbd(rig, Viewed(view), len, data)
        };
        forget_files(directory)?;
        rates.raw.cold.push(raw()?);
        rates.raw.warm.push(raw()?);
        forget_files(directory)?;
        rates.view.cold.push(view()?);
        rates.view.warm.push(view()?);
        let file = File::open(&base)?;
        rates
            .raw_plain
            .push(rate_in_order(len, |offset, bytes| Ok(file.read_exact_at(bytes, offset)?))?);
        let plain = self.replica.view(VIEW_CACHE_DEFAULT)?;
        rates
            .view_plain
            .push(rate_in_order(len, |offset, bytes| Ok(plain.read_at(offset, bytes)?))?);
        Ok(())
    }

    /// Takes a large delta in, beside `dd conv=fsync` of the same bytes.
    fn ingest(&mut self, seed: u64, times: &mut Times) -> Result<()> {
        let sealed = self.replica.seal_large(LARGE, 100 + seed)?;
        let [from, to] = ["sealed", "copy"].map(|name| self.directory.path().join(name));
        let mut file = File::create(&from)?;
        sealed.frames.iter().try_for_each(|frame| file.write_all(frame.bytes()))?;
        file.sync_all()?;
        times.dd.push(rival::dd_synced(&from, &to)?.as_secs_f64());
        remove(&[&from, &to])?;
        let began = Instant::now();
        self.replica.commit(sealed)?;
        times.commit.push(began.elapsed().as_secs_f64());
        Ok(())
    }
}

fn remove(files: &[&Path]) -> Result<()> {
    files.iter().try_for_each(std::fs::remove_file).context("removing what was copied")
}

impl Rates {
    fn say(&self, rounds: Rounds, round: usize, what: &str) {
        eprintln!("  {what}, MiB/s");
        rounds.say(
            round,
            &[
                ("raw cold", &self.raw.cold),
                ("view cold", &self.view.cold),
                ("raw warm", &self.raw.warm),
                ("view warm", &self.view.warm),
                ("raw plain", &self.raw_plain),
                ("view plain", &self.view_plain),
            ],
        );
    }
}

fn findings(times: Times, rates: [(&str, Rates); 3]) -> Findings {
    let Times { open_cold, open_warm, commit, dd } = times;
    let seconds = |label: &str, values| Series::new(label, Unit::Seconds, values);
    let [open_cold, open_warm] = [
        seconds("opening a point with 1,000 deltas, to its first byte, from the medium", open_cold),
        seconds("the same, from the page cache", open_warm),
    ];
    let mut verdicts = vec![Verdict::new(
        "to the first byte of a point with 1,000 deltas",
        Unit::Seconds,
        &open_cold.values,
        Bar::AtMost(1.0),
    )];
    let mut series = vec![open_cold, open_warm];
    for (what, rates) in rates {
        let speed = |label: String, values| Series::new(&label, Unit::MebibytesPerSecond, values);
        let pairs = [
            ("over NBD, from the medium", rates.raw.cold, rates.view.cold),
            ("over NBD, from the page cache", rates.raw.warm, rates.view.warm),
        ];
        for (how, raw, view) in pairs {
            let raw = speed(format!("{what}: the raw base {how}"), raw);
            let view = speed(format!("{what}: the view {how}"), view);
            let ratio = view.over(&raw);
            let compared = format!("{what}: view over raw base, {how}");
            if what == FULL {
                series.push(Series::new(&compared, Unit::Ratio, ratio));
            } else {
                verdicts.push(Verdict::new(&compared, Unit::Ratio, &ratio, Bar::AtLeast(0.5)));
            }
            series.extend([raw, view]);
        }
        series.push(speed(format!("{what}: the raw base by pread"), rates.raw_plain));
        series.push(speed(format!("{what}: the view by one thread, in order"), rates.view_plain));
    }
    let commit = seconds("a delta of 1 GiB of disk, to durable", commit);
    let dd = seconds("dd conv=fsync of the same bytes", dd);
    let ratio = dd.over(&commit);
    verdicts.push(Verdict::new("dd over delta", Unit::Ratio, &ratio, Bar::AtLeast(0.7)));
    series.extend([commit, dd]);
    Findings { series, verdicts }
}
