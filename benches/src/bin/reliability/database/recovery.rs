//! From a recovery point to a database that answers, as an administrator would do it.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::postgres::Server;
use blocks::{MonotonicNs, PointId};
use vm_tests::{Filesystem, LoopDisk, Mounted, Random, Rig, Site};

/// The unit in which two points are mixed: that of tracking.
const CHUNK: usize = 4096;
/// What pgbench moves from one account to another it moves in four tables.
const BOOKS: &str = "SELECT count(DISTINCT sum) FROM (\
    SELECT sum(abalance) FROM pgbench_accounts UNION ALL \
    SELECT sum(tbalance) FROM pgbench_tellers UNION ALL \
    SELECT sum(bbalance) FROM pgbench_branches UNION ALL \
    SELECT coalesce(sum(delta), 0) FROM pgbench_history) AS sums";

/// A point that can be recovered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) id: PointId,
    pub(super) cut: MonotonicNs,
}

/// A database that was recovered, was looked through, and is gone again.
pub(super) struct Recovered {
    /// The transactions it holds.
    pub(super) rows: BTreeSet<u64>,
    /// From the start of the server to its first answer.
    pub(super) took: Duration,
}

/// Writes the disk at a point to a file of the rig, with the product's own command.
pub(super) fn export((rig, site): (&Rig, &Site), disk: &str, point: &Point) -> Result<PathBuf> {
    let file = rig.fresh("export");
    let name = format!("{disk}@{}", point.id);
    site.target(&["point", "export", &name, "--to", &file.to_string_lossy()])?;
    Ok(file)
}

/// Puts a half of the chunks of `older`, chosen at random, into `image`.
pub(super) fn mix(image: &Path, older: &Path, random: &mut Random) -> Result<()> {
    let (image, older) = (File::options().read(true).write(true).open(image)?, File::open(older)?);
    let chunks = older.metadata()?.len() / CHUNK as u64;
    let mut chunk = [0; CHUNK];
    for at in (0..chunks).map(|number| number * CHUNK as u64) {
        if random.below(2) == 0 {
            older.read_exact_at(&mut chunk, at).context("reading a chunk")?;
            image.write_all_at(&chunk, at).context("mixing a chunk in")?;
        }
    }
    Ok(())
}

/// Mounts an image, which replays the journal, starts the database on it, and looks through it.
/// An error says why it is none. The image is used up.
pub(super) fn recover(rig: &Rig, image: PathBuf) -> Result<Recovered> {
    let disk = LoopDisk::over(rig, image, 4096)?;
    let mounted = Mounted::mount(rig, &disk, Filesystem::Ext4, "").context("the journal")?;
    let began = Instant::now();
    let server = Server::start(rig, &mounted, &[]).context("the recovery of the database")?;
    let took = began.elapsed();
    let printed = server.query("SELECT id FROM ledger")?;
    let rows = printed.lines().map(str::parse).collect::<Result<_, _>>();
    let rows = rows.context("the identity of a transaction")?;
    let balances = server.query(BOOKS)?;
    ensure!(balances.trim() == "1", "pgbench's books do not balance");
    // Every page of every table, and every row in every index.
    server.run("pg_amcheck", &["--install-missing", "--heapallindexed"])?;
    server.stop()?;
    mounted.unmount()?;
    Filesystem::Ext4.check(disk.path())?;
    Ok(Recovered { rows, took })
}
