//! What `cargo xtask postgres` shows: a database that is recovered to a point holds every
//! transaction acknowledged before the point's cut, and none issued after it.
//!
//! A real PostgreSQL on an ext4 of a protected disk, loaded by clients that log outside of the
//! disk; points every second meanwhile. Some points are copied out, mounted, so that the journal
//! is replayed, and a PostgreSQL is started on each. The same check with a cut that is shifted
//! a second later has to fail, or it could not fail at all.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, DiskId, MonotonicNs};
use clap::Parser;
use replica::{Store, View};
use serde_json::json;
use vm_tests::{
    BlockDevice, Filesystem, LoopDisk, LoopSpec, Mounted, Random, Rig, Site, SiteSpec, ZramDisk,
};

mod clients;
mod judge;
mod server;

use clients::Transaction;
use judge::Found;
use server::Server;

const DISK: ByteLen = ByteLen(512 << 20);
const PATIENCE: Duration = Duration::from_secs(120);
const CLIENTS: u64 = 4;
/// How much later than it was the control says that a cut was.
const SHIFT: u64 = 1_000_000_000;
/// What is copied of a view at once.
const PIECE: usize = 1 << 20;

/// Recover a loaded PostgreSQL to points of its disk, and judge each.
#[derive(Parser)]
struct Options {
    /// How long the clients write, in seconds.
    #[arg(long, value_name = "S", default_value_t = 20)]
    seconds: u64,
    /// How many points are recovered.
    #[arg(long, value_name = "N", default_value_t = 5)]
    points: usize,
    /// Which points are chosen.
    #[arg(long, value_name = "N", default_value_t = vm_tests::monotonic_now().0)]
    seed: u64,
    /// Where the figures are kept.
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/reliability"))]
    figures: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let rig = Rig::start()?.context("this needs real devices")?;
    println!("--seed {} --seconds {}", options.seed, options.seconds);
    let loaded = load(&rig, options.seconds)?;
    println!("{} transactions acknowledged", loaded.acknowledged());
    let views = choose(&loaded, options.points, &mut Random::new(options.seed))?;
    let mut judged = Vec::new();
    for view in &views {
        let cut = view.record().cut.monotonic;
        let ids = recovered(&rig, view)?;
        let found = judge::judge(&loaded.log, &ids, cut);
        let control = judge::judge(&loaded.log, &ids, MonotonicNs(cut.0 + SHIFT));
        println!("epoch {:?}, {} rows: {found}; control: {control}", view.epoch(), ids.len());
        judged.push((found, control));
    }
    keep(&options, &loaded, &judged)?;
    let wrong = judged.iter().filter(|(found, _)| !found.is_right()).count();
    ensure!(wrong == 0, "{wrong} of {} points are wrong\n{}", judged.len(), loaded.daemons);
    let blind = judged.iter().filter(|(_, control)| control.missing == 0).count();
    ensure!(blind == 0, "with a later cut, {blind} of {} still pass: no check", judged.len());
    Ok(())
}

/// What is left of a load: the store, and what the clients know.
struct Loaded {
    store: PathBuf,
    disk: DiskId,
    log: Vec<Transaction>,
    daemons: String,
    // Last: the store lies in the site's directory.
    _site: Site,
}

impl Loaded {
    fn acknowledged(&self) -> usize {
        self.log.iter().filter(|transaction| transaction.acknowledged.is_some()).count()
    }
}

/// Protects a disk with a database on it, and has clients write to it.
fn load(rig: &Rig, seconds: u64) -> Result<Loaded> {
    let disk = ZramDisk::create(rig, DISK)?;
    Filesystem::Ext4.make(&disk)?;
    let agent_settings = "[policy]\npoint_interval = \"1s\"\n".to_owned();
    let mut site = Site::start(rig, &SiteSpec { agent_settings, ..SiteSpec::default() })?;
    let mounted = Mounted::mount(rig, &disk, Filesystem::Ext4, "defaults")?;
    let data = server::initialise(mounted.path())?;
    let server = Server::start(rig, &data)?;
    server.query("CREATE TABLE ledger (id bigint PRIMARY KEY, filler text)")?;
    site.protect(&disk, PATIENCE)?;
    let log = clients::run(rig, &server, CLIENTS, Duration::from_secs(seconds))?;
    server.stop()?;
    site.settle(&disk, PATIENCE)?;
    let id = site.disk(disk.name())?["id"].as_str().unwrap_or_default().parse();
    let daemons = site.logs();
    site.agent.stop(PATIENCE)?;
    site.target.stop(PATIENCE)?;
    let store = site.store().join("replicas");
    Ok(Loaded { store, disk: id.context("a disk's identity")?, log, daemons, _site: site })
}

/// Views of points, chosen at random among those cut while the clients wrote.
///
/// The clients went on for longer than [`SHIFT`] after each, or the control would prove nothing.
fn choose(loaded: &Loaded, count: usize, random: &mut Random) -> Result<Vec<View>> {
    let first = loaded.log.iter().filter_map(|transaction| transaction.acknowledged).min();
    let last = loaded.log.iter().filter_map(|transaction| transaction.acknowledged).max();
    let (first, last) = (first.context("no transaction")?, last.context("no transaction")?);
    let history = Store::open(&loaded.store)?.history(loaded.disk)?;
    let mut points = history.points();
    points.retain(|point| {
        let cut = point.record.cut.monotonic;
        let retracted = matches!(point.status, replica::PointStatus::Retracted(_));
        !retracted && cut > first && cut.0 + SHIFT < last.0
    });
    let there = points.len();
    println!("{there} points were cut under load");
    ensure!(there >= count, "{there} points under load, not {count}\n{}", loaded.daemons);
    let mut views = Vec::new();
    for _ in 0..count {
        let chosen = usize::try_from(random.below(u64::try_from(points.len())?))?;
        views.push(history.view(points.swap_remove(chosen).epoch)?);
    }
    Ok(views)
}

/// The transactions that a database recovered to a point holds.
fn recovered(rig: &Rig, view: &View) -> Result<Vec<u64>> {
    let spec = LoopSpec { len: view.len(), logical_block: 4096 };
    let disk = LoopDisk::create(rig, spec)?;
    copy(view, &disk)?;
    let mounted = Mounted::mount(rig, &disk, Filesystem::Ext4, "defaults")?;
    let server = Server::start(rig, &server::data_of(mounted.path()))
        .with_context(|| format!("the database of epoch {:?}", view.epoch()))?;
    let printed = server.query("SELECT id FROM ledger")?;
    server.stop()?;
    mounted.unmount()?;
    printed.lines().map(|line| line.parse().context("the identity of a transaction")).collect()
}

/// Writes a point to a new disk, whose zeroes need not be written.
fn copy(view: &View, disk: &BlockDevice) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let device = std::fs::File::options().write(true).open(disk.path())?;
    let len = view.len().0;
    let mut buffer = vec![0; PIECE];
    let mut offset = 0;
    while offset < len {
        let piece = usize::try_from(len - offset)?.min(PIECE);
        let piece = &mut buffer[..piece];
        view.read_at(offset, piece)?;
        if piece.iter().any(|byte| *byte != 0) {
            device.write_all_at(piece, offset)?;
        }
        offset += u64::try_from(piece.len())?;
    }
    device.sync_all().context("syncing a recovered disk")
}

fn keep(options: &Options, loaded: &Loaded, judged: &[(Found, Found)]) -> Result<()> {
    let of =
        |found: &Found| json!({"due": found.due, "missing": found.missing, "early": found.early});
    let points: Vec<_> = judged
        .iter()
        .map(|(found, control)| json!({"found": of(found), "control": of(control)}))
        .collect();
    let figures = json!({
        "seed": options.seed,
        "seconds": options.seconds,
        "acknowledged": loaded.acknowledged(),
        "points": points,
    });
    std::fs::create_dir_all(&options.figures)?;
    let path = options.figures.join("postgres.json");
    let text = serde_json::to_string_pretty(&figures)?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
