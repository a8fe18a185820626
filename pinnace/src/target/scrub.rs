//! Verifying what is at rest, in the background: one disk after the other, each once in a while and
//! at a set rate.
//!
//! What a pass has come to is kept in a small file, so that a target that ends goes on where it was.
//! A disk is held open for a stretch at a time, since others may need it closed.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use blocks::{ByteLen, DiskId};
use jiff::Timestamp;
use replica::{Damaged, ScrubCursor, Scrubbed, Store};
use serde::{Deserialize, Serialize};

use crate::admin::target::{DamageStatus, ScrubStatus};
use crate::config::ScrubConfig;
use crate::json_file;

/// How often is looked for a disk that is due.
const LOOK: Duration = Duration::from_secs(60);

/// When a disk that can't be had, or can't be read, is tried again.
const LATER: Duration = Duration::from_secs(600);

/// How long a disk is held open at a time.
const STRETCH: Duration = Duration::from_secs(10);

/// Pieces a second, which the rate is made of.
const PIECES: u32 = 4;

/// Reports of damage that are kept of a disk; there may be more.
const DAMAGE_MAX: usize = 100;

/// What is known of every disk. Clones are one.
#[derive(Clone)]
pub(super) struct Scrub(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    path: PathBuf,
    config: ScrubConfig,
    records: Mutex<BTreeMap<String, Record>>,
}

/// The scrub of a disk, as it is kept.
#[derive(Clone, Default, Deserialize, Serialize)]
struct Record {
    pass: Option<Pass>,
    last: Option<Whole>,
}

/// A pass under way.
#[derive(Clone, Deserialize, Serialize)]
struct Pass {
    began: Timestamp,
    /// Where it goes on.
    cursor: String,
    read_bytes: u64,
    damage: Vec<DamageStatus>,
}

/// A pass that came to its end.
#[derive(Clone, Deserialize, Serialize)]
struct Whole {
    began: Timestamp,
    ended: Timestamp,
    read_bytes: u64,
    damage: Vec<DamageStatus>,
}

impl Scrub {
    /// Reads what is known. A file that can't be read is none: everything is verified anew.
    pub(super) fn new(store: Arc<Store>, path: PathBuf, config: ScrubConfig) -> Self {
        let records = json_file::read(&path).unwrap_or_else(|error| {
            tracing::warn!("what was verified is not known, so all of it is due: {error:#}");
            None
        });
        let records: BTreeMap<_, _> = records.unwrap_or_default();
        Self(Arc::new(Shared { store, path, config, records: Mutex::new(records) }))
    }

    /// Begins, in a thread that ends with the process.
    pub(super) fn start(&self) -> Result<()> {
        if self.0.config.every.is_none() {
            return Ok(());
        }
        let shared = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("scrub".into());
        thread.spawn(move || shared.run()).context("starting the scrub")?;
        Ok(())
    }

    /// What is known of a disk, if anything.
    pub(super) fn status(&self, disk: DiskId) -> Option<ScrubStatus> {
        self.0.records().get(&disk.to_string()).map(Record::status)
    }
}

impl Shared {
    fn run(&self) {
        let mut postponed: HashMap<DiskId, Instant> = HashMap::new();
        loop {
            let Some(disk) = self.due(&postponed) else {
                std::thread::sleep(LOOK.min(self.config.every.unwrap_or(LOOK)));
                postponed.retain(|_, until| *until > Instant::now());
                continue;
            };
            if let Err(error) = self.stretch(disk) {
                tracing::warn!(DISK = %disk, "a scrub waits: {error:#}");
                postponed.insert(disk, Instant::now() + LATER);
            }
        }
    }

    /// The disk to go on with: one that was begun, or else the one that waits longest.
    fn due(&self, postponed: &HashMap<DiskId, Instant>) -> Option<DiskId> {
        let every = self.config.every?;
        let disks = self.store.disks().ok()?.into_iter().map(|listing| listing.id);
        let records = self.records();
        let due = disks.filter(|disk| !postponed.contains_key(disk)).filter_map(|disk| {
            let record = records.get(&disk.to_string()).cloned().unwrap_or_default();
            let began = record.last.map(|last| last.began);
            let waited = began.map(|began| Timestamp::now().duration_since(began).unsigned_abs());
            let is_begun = record.pass.is_some();
            let is_due = is_begun || waited.is_none_or(|waited| waited >= every);
            is_due.then_some(((!is_begun, began), disk))
        });
        due.min_by_key(|(turn, _)| *turn).map(|(_, disk)| disk)
    }

    /// Verifies a disk for a while.
    fn stretch(&self, disk: DiskId) -> Result<()> {
        let history = self.store.history(disk)?;
        let until = Instant::now() + STRETCH;
        let budget = ByteLen((self.config.rate.0 / u64::from(PIECES)).max(1));
        loop {
            let began = Instant::now();
            let cursor = self.cursor(disk);
            let scrubbed = history.scrub(cursor, budget)?;
            self.note(disk, &scrubbed);
            if scrubbed.next.is_none() || Instant::now() >= until {
                break;
            }
            let pause = duration_of(scrubbed.bytes, self.config.rate);
            std::thread::sleep(pause.saturating_sub(began.elapsed()));
        }
        self.write()
    }

    fn cursor(&self, disk: DiskId) -> ScrubCursor {
        let mut records = self.records();
        let pass = &mut records.entry(disk.to_string()).or_default().pass;
        let pass = pass.get_or_insert_with(|| Pass {
            began: Timestamp::now(),
            cursor: ScrubCursor::default().to_string(),
            read_bytes: 0,
            damage: Vec::new(),
        });
        pass.cursor.parse().unwrap_or_default()
    }

    fn note(&self, disk: DiskId, scrubbed: &Scrubbed) {
        for damaged in &scrubbed.damage {
            let points = damaged.points.len();
            tracing::error!(DISK = %disk, points, "damage at rest: {}", damaged.part);
        }
        let mut records = self.records();
        let record = records.entry(disk.to_string()).or_default();
        let Some(pass) = &mut record.pass else { return };
        pass.read_bytes += scrubbed.bytes.0;
        pass.damage.extend(scrubbed.damage.iter().map(in_words));
        pass.damage.truncate(DAMAGE_MAX);
        if let Some(next) = scrubbed.next {
            pass.cursor = next.to_string();
        } else if let Some(Pass { began, read_bytes, damage, .. }) = record.pass.take() {
            record.last = Some(Whole { began, ended: Timestamp::now(), read_bytes, damage });
        }
    }

    /// Keeps what is known, of the disks that there still are.
    fn write(&self) -> Result<()> {
        let there: Vec<_> =
            self.store.disks()?.into_iter().map(|listing| listing.id.to_string()).collect();
        // A copy, since whoever asks for a status should not wait for the file.
        let records = {
            let mut records = self.records();
            records.retain(|disk, _| there.contains(disk));
            records.clone()
        };
        json_file::write(&self.path, &records)
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn status(&self) -> ScrubStatus {
        let of_last = self.last.iter().flat_map(|last| last.damage.iter());
        let mut damage: Vec<_> = of_last.cloned().collect();
        // What is found again is no other damage.
        let found = self.pass.iter().flat_map(|pass| pass.damage.iter());
        let news: Vec<_> = found.filter(|found| !damage.contains(found)).cloned().collect();
        damage.extend(news);
        ScrubStatus {
            running: self.pass.is_some(),
            began: self.pass.as_ref().map(|pass| pass.began),
            ended: self.last.as_ref().map(|last| last.ended),
            read_bytes: match (&self.pass, &self.last) {
                (Some(pass), _) => pass.read_bytes,
                (None, Some(last)) => last.read_bytes,
                (None, None) => 0,
            },
            damage,
        }
    }
}

fn in_words(damaged: &Damaged) -> DamageStatus {
    DamageStatus {
        part: damaged.part.to_string(),
        points: damaged.points.iter().map(|point| point.record.id.to_string()).collect(),
    }
}

/// How long so many bytes take at a rate.
fn duration_of(bytes: ByteLen, rate: ByteLen) -> Duration {
    let nanos = u128::from(bytes.0) * 1_000_000_000 / u128::from(rate.0.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_by_pausing() {
        assert_eq!(duration_of(ByteLen(8 << 20), ByteLen(32 << 20)), Duration::from_millis(250));
        assert_eq!(duration_of(ByteLen(0), ByteLen(1)), Duration::ZERO);
    }

    #[test]
    fn damage_stays_known_while_the_next_pass_is_under_way() {
        let damage = |part: &str| DamageStatus { part: part.into(), points: Vec::new() };
        let at = Timestamp::UNIX_EPOCH;
        let last =
            Whole { began: at, ended: at, read_bytes: 9, damage: vec![damage("a"), damage("b")] };
        let pass = Pass {
            began: at,
            cursor: "1:0".into(),
            read_bytes: 3,
            damage: vec![damage("b"), damage("c")],
        };
        let mut record = Record { pass: Some(pass), last: Some(last) };
        let status = record.status();
        assert_eq!(status.damage, [damage("a"), damage("b"), damage("c")]);
        assert_eq!((status.running, status.read_bytes), (true, 3));
        record.pass = None;
        assert_eq!(record.status().damage, [damage("a"), damage("b")]);
        assert_eq!(record.status().read_bytes, 9);
    }
}
