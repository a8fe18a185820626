//! PostgreSQL under load: a database that is recovered to a point holds every transaction that was
//! acknowledged before the point's cut, and none that was issued after it.
//!
//! A server on an ext4 of a protected disk, loaded by pgbench and by clients that log outside of
//! the disk; a point every second. Points are exported and mounted, and a server is started on
//! each. The same check has to fail for cuts that are claimed to have been at another time, and
//! for images that are not one instant, or it could not fail at all.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use benches::postgres::{self, Server};
use blocks::{ByteLen, DiskId, MonotonicNs};
use replica::{PointStatus, Store};
use serde_json::json;
use vm_tests::{Filesystem, Mounted, Random, Rig, Site, SiteSpec, ZramDisk, wait_until};

use crate::findings::{Findings, share};
use crate::stage::{PATIENCE, points, protect};

mod clients;
mod judge;
mod recovery;

use clients::Transaction;
use judge::Held;
use recovery::{Point, Recovered};

pub(crate) const NAME: &str = "postgres";
const DISK: ByteLen = ByteLen(512 << 20);
const SETTINGS: &str = "[policy]\npoint_interval = \"1s\"\n";
/// Little memory and a short log: what is recovered is of all kinds of writes.
const SERVER: [&str; 3] = ["shared_buffers=16MB", "max_wal_size=64MB", "min_wal_size=32MB"];
const CLIENTS: u64 = 4;
/// How far from the truth the control claims a cut to be.
const SHIFT: u64 = 1_000_000_000;
/// The load's length beyond a second for each point: some are not chosen, so that chance has a say.
const MORE: Duration = Duration::from_secs(10);
/// Of so many points under load one is mixed with the one before it.
const MIX_EVERY: usize = 4;

/// What is left of a load.
struct Loaded {
    log: Vec<Transaction>,
    /// Transactions of pgbench, which logs nothing.
    others: String,
    /// Points cut while the clients wrote, and for longer than [`SHIFT`] before and after.
    points: Vec<Point>,
    disk: ZramDisk,
    // Last: the store lies in the site's directory.
    site: Site,
}

/// What was found of one point.
struct Trial {
    point: Point,
    recovered: Result<Recovered>,
    /// By its cut, and by one that is claimed to be earlier or later.
    held: Option<[Held; 3]>,
}

/// Measures it.
pub(crate) fn measure(rig: &Rig, wanted: usize) -> Result<Findings> {
    let loaded = load(rig, Duration::from_secs(wanted as u64) + MORE)?;
    let seed = vm_tests::monotonic_now().0;
    let mut random = Random::new(seed);
    let chosen = choose(&loaded, wanted, &mut random)?;
    let mut trials = Vec::new();
    for point in &chosen {
        let trial = loaded.trial(rig, *point)?;
        eprintln!("  {}", trial.words());
        trials.push(trial);
    }
    let mut mixtures = Vec::new();
    for pair in loaded.points.windows(2).step_by(MIX_EVERY) {
        let noticed = loaded.mixture(rig, (&pair[0], &pair[1]), &mut random)?;
        eprintln!("  mixed with the point before: {}", noticed.as_deref().unwrap_or("unnoticed"));
        mixtures.push(noticed);
    }
    let mut found = findings(&loaded, &trials, &mixtures);
    found.row("seed of the choice", seed);
    Ok(found)
}

/// Protects a disk with a database on it, and has clients write to it.
fn load(rig: &Rig, time: Duration) -> Result<Loaded> {
    let disk = ZramDisk::create(rig, DISK)?;
    Filesystem::Ext4.make(&disk)?;
    let spec = SiteSpec { agent_settings: SETTINGS.into(), ..SiteSpec::default() };
    let mut site = Site::start(rig, &spec)?;
    let mounted = Mounted::mount(rig, &disk, Filesystem::Ext4, "")?;
    postgres::initialise(rig, &mounted)?;
    let server = Server::start(rig, &mounted, &SERVER)?;
    server.run("pgbench", &["--initialize", "--quiet"])?;
    server.query(clients::TABLE)?;
    let id = protect(&site, &disk)?;
    let mut pgbench = server.client("pgbench")?;
    pgbench.args(["--no-vacuum", &format!("--client={CLIENTS}")]);
    pgbench.arg(format!("--time={}", time.as_secs()));
    pgbench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let pgbench = pgbench.spawn().context("starting pgbench")?;
    let log = clients::run(rig, &server, CLIENTS, time);
    // It ends by itself, also when its server does.
    let pgbench = pgbench.wait_with_output().context("waiting for pgbench")?;
    let log = log?;
    let said = String::from_utf8_lossy(&pgbench.stdout);
    ensure!(pgbench.status.success(), "{}", String::from_utf8_lossy(&pgbench.stderr));
    let others = said.lines().find_map(|line| line.split_once("actually processed: "));
    let others = others.context("pgbench counts its transactions")?.1.to_owned();
    server.stop()?;
    mounted.unmount()?;
    site.settle(&disk, PATIENCE)?;
    let points = under_load(&mut site, id, &log)?;
    Ok(Loaded { log, others, points, disk, site })
}

/// The points to choose from. The agent has ended then, and the target runs again.
fn under_load(site: &mut Site, id: DiskId, log: &[Transaction]) -> Result<Vec<Point>> {
    let acknowledged = || log.iter().filter_map(|transaction| transaction.acknowledged);
    let first = acknowledged().min().context("no transaction")?;
    let last = acknowledged().max().context("no transaction")?;
    site.agent.stop(PATIENCE)?;
    site.target.stop(PATIENCE)?;
    let store = Store::open(&site.store().join("replicas")).context("opening the store")?;
    let mut made = points(&store, MonotonicNs(first.0 + SHIFT))?;
    drop(store);
    made.retain(|point| {
        let usable = !matches!(point.status(), PointStatus::Retracted(_));
        let has_it = point.disks.iter().any(|(disk, _)| *disk == id);
        usable && has_it && point.record.cut.monotonic.0 + SHIFT < last.0
    });
    site.target.restart()?;
    wait_until("the target", PATIENCE, || Ok(site.target(&["point", "list"]).ok()))?;
    let record = |point: &replica::MachinePoint| point.record;
    Ok(made.iter().map(record).map(|of| Point { id: of.id, cut: of.cut.monotonic }).collect())
}

/// So many of the points, chosen at random, in their order.
fn choose(loaded: &Loaded, wanted: usize, random: &mut Random) -> Result<Vec<Point>> {
    let mut left = loaded.points.clone();
    let there = left.len();
    ensure!(there >= wanted, "{there} points under load, not {wanted}\n{}", loaded.site.logs());
    while left.len() > wanted {
        left.remove(usize::try_from(random.below(left.len() as u64))?);
    }
    Ok(left)
}

impl Loaded {
    fn trial(&self, rig: &Rig, point: Point) -> Result<Trial> {
        let image = recovery::export((rig, &self.site), self.disk.name(), &point)?;
        let recovered = recovery::recover(rig, image);
        let held = recovered.as_ref().ok().map(|recovered| {
            let cut = point.cut.0;
            [cut, cut - SHIFT, cut + SHIFT]
                .map(|cut| judge::judge(&self.log, &recovered.rows, MonotonicNs(cut)))
        });
        Ok(Trial { point, recovered, held })
    }

    /// What is noticed if half of a point's chunks are those of the point before: the mistake of a
    /// cut that misses chunks.
    fn mixture(
        &self,
        rig: &Rig,
        (before, point): (&Point, &Point),
        random: &mut Random,
    ) -> Result<Option<String>> {
        let export = |point| recovery::export((rig, &self.site), self.disk.name(), point);
        let (image, older) = (export(point)?, export(before)?);
        recovery::mix(&image, &older, random)?;
        std::fs::remove_file(older)?;
        Ok(match recovery::recover(rig, image) {
            Err(why) => Some(in_short(&why)),
            Ok(recovered) => {
                let held = judge::judge(&self.log, &recovered.rows, point.cut);
                (!held.is_right()).then(|| format!("{} of {} missing", held.missing, held.due))
            }
        })
    }
}

impl Trial {
    fn is_right(&self) -> bool {
        self.held.is_some_and(|[held, ..]| held.is_right())
    }

    /// Whether the check fails where it must.
    fn is_judged(&self) -> bool {
        self.held.is_some_and(|[_, earlier, later]| earlier.early > 0 && later.missing > 0)
    }

    fn words(&self) -> String {
        match (&self.recovered, self.held) {
            (Ok(recovered), Some([held, earlier, later])) => format!(
                "{} rows, {} due, {} missing, {} early; claimed a second earlier {} early, later {} missing",
                recovered.rows.len(),
                held.due,
                held.missing,
                held.early,
                earlier.early,
                later.missing,
            ),
            (Err(why), _) => format!("not recovered: {why:#}"),
            (Ok(_), None) => "not judged".into(),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "id": self.point.id.to_string(),
            "cut_monotonic_ns": self.point.cut.0,
            "rows": self.recovered.as_ref().ok().map(|of| of.rows.len()),
            "start_seconds": self.recovered.as_ref().ok().map(|of| of.took.as_secs_f64()),
            "failure": self.recovered.as_ref().err().map(|why| format!("{why:#}")),
            "held": self.held,
        })
    }
}

fn findings(loaded: &Loaded, trials: &[Trial], mixtures: &[Option<String>]) -> Findings {
    let acknowledged = loaded.log.iter().filter(|one| one.acknowledged.is_some()).count();
    let recovered: Vec<&Recovered> = trials.iter().flat_map(|trial| &trial.recovered).collect();
    let held = || trials.iter().filter_map(|trial| trial.held.map(|[held, ..]| held));
    let mut found = Findings::default();
    found.row("transactions acknowledged, and logged", acknowledged);
    found.row("transactions of pgbench beside them", &loaded.others);
    found.row("points cut under load", loaded.points.len());
    found.row("of these recovered", share(recovered.len(), trials.len()));
    let slowest = recovered.iter().map(|of| of.took).max().unwrap_or_default();
    found.row(
        "server's start to its first answer, longest",
        format!("{:.1} s", slowest.as_secs_f64()),
    );
    found.row("transactions due in all of them", held().map(|held| held.due).sum::<usize>());
    found.row("of these missing", held().map(|held| held.missing).sum::<usize>());
    found.row("transactions too early", held().map(|held| held.early).sum::<usize>());
    let count = |is: fn(&Trial) -> bool| trials.iter().filter(|trial| is(trial)).count();
    found.at_least(
        "points that recover, sound in every table and index, with what was acknowledged before T and nothing issued after it",
        (count(Trial::is_right), trials.len()),
        100,
    );
    found.at_least(
        "the same points found wrong when T is claimed a second earlier, and a second later",
        (count(Trial::is_judged), trials.len()),
        100,
    );
    let noticed = mixtures.iter().filter(|noticed| noticed.is_some()).count();
    found.at_least(
        "points found wrong once half of their chunks are the point's before",
        (noticed, mixtures.len()),
        100,
    );
    found.points = trials.iter().map(Trial::json).collect();
    found.points.extend(mixtures.iter().map(|noticed| json!({ "mixture": noticed })));
    found
}

/// Why there is no database, in one line: what the server said is long.
fn in_short(error: &anyhow::Error) -> String {
    let words = format!("{error:#}");
    let fatal = words.lines().find(|line| line.contains("PANIC:") || line.contains("FATAL:"));
    fatal.or(words.lines().next()).unwrap_or_default().to_owned()
}
