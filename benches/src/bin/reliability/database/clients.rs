//! Clients that write, and log outside of the disk what was acknowledged to them.
//!
//! Each has one transaction at a time, and notes its issue before it is sent and its
//! acknowledgement after it came. So the log's times lie around the true ones: a transaction that
//! is acknowledged before an instant by the log was so in truth, and likewise for issued after it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use benches::postgres::Server;
use blocks::MonotonicNs;
use vm_tests::Rig;

use crate::stage::now;

pub(super) const TABLE: &str = "CREATE TABLE ledger (id bigint PRIMARY KEY, filler text)";
/// Identities of one client's transactions: enough for any run.
const IDS: u64 = 1_000_000_000;

/// What a client knows of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transaction {
    pub(super) id: u64,
    /// Before it was sent.
    pub(super) issued: MonotonicNs,
    /// After the server's word that it is committed came; none if it never came.
    pub(super) acknowledged: Option<MonotonicNs>,
}

/// Has clients write for a time: what all of them have logged.
pub(super) fn run(
    rig: &Rig,
    server: &Server,
    clients: u64,
    time: Duration,
) -> Result<Vec<Transaction>> {
    let logs: Vec<_> = (0..clients).map(|_| rig.fresh("client")).collect();
    std::thread::scope(|scope| {
        let start = |(first, log): (u64, _)| scope.spawn(move || client(server, first, log, time));
        let firsts = (0..clients).map(|number| number * IDS);
        let running: Vec<_> = firsts.zip(logs.iter().map(PathBuf::as_path)).map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a client panicked")))
        };
        running.into_iter().try_for_each(join)
    })?;
    let mut all = Vec::new();
    for log in &logs {
        all.extend(read(log)?);
    }
    Ok(all)
}

/// A psql, killed if it is still there when this is dropped.
struct Psql(Child);

impl Drop for Psql {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One transaction after the other. psql prints a result once the server has committed it.
fn client(server: &Server, first: u64, log: &Path, time: Duration) -> Result<()> {
    let mut log = File::create_new(log).context("a client's log")?;
    let child = server.psql()?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut psql = Psql(child.context("starting psql")?);
    let mut input = psql.0.stdin.take().context("psql has an input")?;
    let mut output = BufReader::new(psql.0.stdout.take().context("psql has an output")?).lines();
    let (started, mut id) = (Instant::now(), first);
    while started.elapsed() < time {
        id += 1;
        let statement =
            format!("INSERT INTO ledger VALUES ({id}, repeat('x', 200)) RETURNING id;\n");
        let issued = now();
        // Logged before it is sent: what is in the database is in the log.
        writeln!(log, "{id} {}", issued.0)?;
        input.write_all(statement.as_bytes()).context("writing to psql")?;
        let said = output.next().context("psql has ended")??;
        let acknowledged = now();
        ensure!(said == id.to_string(), "psql said {said:?} to transaction {id}");
        writeln!(log, "{id} {} {}", issued.0, acknowledged.0)?;
    }
    Ok(())
}

/// Reads a log: a line when a transaction is issued, another when it is acknowledged.
fn read(path: &Path) -> Result<Vec<Transaction>> {
    let mut found: Vec<Transaction> = Vec::new();
    for line in std::fs::read_to_string(path).context("reading a client's log")?.lines() {
        let numbers: Vec<u64> =
            line.split(' ').map(str::parse).collect::<Result<_, _>>().context("a log's line")?;
        match (numbers.as_slice(), found.last_mut()) {
            ([id, issued], _) => {
                let (id, issued) = (*id, MonotonicNs(*issued));
                found.push(Transaction { id, issued, acknowledged: None });
            }
            ([id, _, when], Some(last)) if last.id == *id => {
                last.acknowledged = Some(MonotonicNs(*when));
            }
            _ => bail!("a client's log says {line:?}"),
        }
    }
    Ok(found)
}
