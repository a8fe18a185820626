//! One case: a disk of a kind is tracked and written in every way, and then judged.

use std::{
    fs::{self, File},
    io::Write,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use blocks::{Bitmap, ByteLen, ChunkSize};
use ebpf::LoadError;
use serde::{Deserialize, Serialize};
use vm_tests::{
    After, BlockDevice, FileWorkload, Filesystem, Load, Method, Mounted, Rig, Target, WriteLog,
    Writer, monotonic_now,
};

use crate::{
    issue_only::IssueOnly,
    passthrough, paths,
    race::{Marks, Order, race},
    stack::{Kind, Stack},
    tracked::{Observed, Tracked, trackable},
};

/// Where the image has the tracker that marks at issue.
pub const ISSUE_ONLY: &str = "/issue-only.o";

/// A logical block that commands past the block layer are for; none are longer than 4 KiB.
const PASSTHROUGH_BLOCK: u32 = 99;

/// What is done to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Writers on the disk itself, by every method.
    Raw {
        /// Writes of each writer; there are two of each method.
        writes: u64,
    },
    /// The same, three times: over the one path that a multipath disk has when it is tracked, over
    /// that and a second one, and over the second alone.
    PathsComeAndGo {
        /// Writes of each writer, each time.
        writes: u64,
    },
    /// A command past the block layer, to a block that held data before.
    Passthrough {
        /// Which.
        command: passthrough::Command,
    },
    /// Files with others between them are deleted at once from an XFS with online discard, which
    /// asks for discards in one go: those that are merged have several ranges in one request.
    MergedDiscards {
        /// How many are deleted.
        files: u64,
    },
    /// An application on a file system, mounted with online discard.
    Files {
        /// Which.
        filesystem: FilesystemName,
        /// Its steps.
        steps: u64,
    },
}

/// A file system, as the host asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilesystemName {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
}

/// A case.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Case {
    /// The disk.
    pub kind: Kind,
    /// What is done to it.
    pub work: Work,
    /// The length of disks that are made in memory.
    pub bytes: u64,
    /// Whether the programs are detached before the work: then the judge must object.
    pub blind: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The product refuses the disk, in these words.
    Refused(String),
    /// It was tracked.
    Tracked(Counts),
}

/// Counts of chunks, unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Writes acknowledged: of writers, or files and places written by the application.
    pub writes: u64,
    /// Touched, by the writers' log.
    pub logged: u64,
    /// Found different.
    pub changed: u64,
    /// Marked by the programs.
    pub marked: u64,
    /// Logged or different, and not marked.
    pub missed: u64,
    /// Marked, and neither logged nor different.
    pub beyond: u64,
    /// Sectors that the kernel counted and the programs did not.
    pub deficit: i64,
    /// What the programs say that they could not follow; empty if nothing.
    pub taints: String,
    /// Discards that were merged into others.
    pub merged_discards: u64,
}

/// Runs a case.
pub fn run(case: &Case) -> Result<Verdict> {
    let rig = Rig::start()?.expect("nobody asks a guest to skip its tests");
    let stack = Stack::build(&rig, case.kind, ByteLen(case.bytes))?;
    let disk = &stack.device;
    if let Err(refusal) = trackable(disk) {
        return Ok(Verdict::Refused(refusal.to_string()));
    }
    if let Work::Passthrough { .. } = case.work {
        // So that zeroes written over it are a change.
        File::options().write(true).open(disk.path())?.write_all(&[0x5a; 1 << 20])?;
        nix::unistd::sync();
    }
    if let Work::PathsComeAndGo { .. } = case.work {
        paths::leave_one(disk)?;
    }
    let tracked = match Tracked::attach(&rig, disk) {
        Ok(tracked) => tracked,
        Err(error) if is_refusal(&error) => return Ok(Verdict::Refused(format!("{error:#}"))),
        Err(error) => return Err(error),
    };
    if case.blind {
        tracked.blind()?;
    }
    let log = Arc::new(WriteLog::create(&rig.fresh("log"), 100_000)?);
    let merged = merged_discards(disk)?;
    let writes = match case.work {
        Work::Raw { writes } => write(disk, writes, &log)?,
        Work::PathsComeAndGo { writes } => {
            let first = paths::of(disk)?;
            let mut done = write(disk, writes, &log)?;
            paths::find_all(disk)?;
            done += write(disk, writes, &log)?;
            first.iter().try_for_each(|path| paths::remove(disk, path))?;
            done + write(disk, writes, &log)?
        }
        Work::Files { filesystem, steps } => use_files(&rig, disk, filesystem, steps)?,
        Work::MergedDiscards { files } => discard_files(&rig, disk, files)?,
        Work::Passthrough { command } => {
            passthrough::command(disk, command, PASSTHROUGH_BLOCK)?;
            1
        }
    };
    disk.wait_idle()?;
    let observed = tracked.observe()?;
    let reads = matches!(case.work, Work::Passthrough { command: passthrough::Command::Read });
    ensure!(reads == observed.changed.is_empty(), "{} chunks changed", observed.changed.count());
    let mut counts = judge(writes, &observed, &log.chunks(0, &observed.geometry));
    counts.merged_discards = merged_discards(disk)? - merged;
    if matches!(case.work, Work::MergedDiscards { .. }) {
        ensure!(counts.merged_discards > 0, "no discards were merged: the case shows nothing");
    }
    Ok(Verdict::Tracked(counts))
}

/// Whether the product said that this kernel is not enough for it. That the kernel does not take the
/// programs is no refusal but a fault.
fn is_refusal(error: &anyhow::Error) -> bool {
    let found = error.downcast_ref::<LoadError>();
    matches!(found, Some(LoadError::OldKernel { .. } | LoadError::NoTypeInformation))
}

fn judge(writes: u64, observed: &Observed, logged: &Bitmap) -> Counts {
    let mut touched = logged.clone();
    touched.union_with(&observed.changed);
    let mut beyond = observed.marked.clone();
    beyond.subtract(&touched);
    let tainted = !observed.taints.is_empty();
    Counts {
        writes,
        logged: logged.count(),
        changed: observed.changed.count(),
        marked: observed.marked.count(),
        missed: observed.missed(&touched),
        beyond: beyond.count(),
        deficit: observed.deficit,
        taints: if tainted { observed.taints.to_string() } else { String::new() },
        merged_discards: 0,
    }
}

/// Two writers at once by each method, one method after the other.
fn write(disk: &BlockDevice, writes: u64, log: &Arc<WriteLog>) -> Result<u64> {
    let mut methods = vec![Method::Direct, Method::Ring, Method::Buffered, Method::Mapped];
    if disk.can_discard()? {
        methods.push(Method::Discard);
    }
    methods.extend([Method::ZeroOut, Method::Direct]);
    let target = Target::whole(0, disk);
    let (mut stream, mut done) = (0, 0);
    for method in methods {
        let mut writers = Vec::new();
        for _ in 0..2 {
            stream += 1;
            let load = Load {
                method,
                // Another run is another sequence; what was written is in the log.
                seed: monotonic_now().0 ^ u64::from(stream),
                smallest: ByteLen(u64::from(disk.logical_block())),
                largest: ByteLen(1 << 20),
                after: After::Writes(writes),
            };
            writers.push(Writer::start(&target, stream, load, log)?);
        }
        for writer in writers {
            done += writer.finish()?.writes;
        }
    }
    Ok(done)
}

fn use_files(rig: &Rig, disk: &BlockDevice, filesystem: FilesystemName, steps: u64) -> Result<u64> {
    let filesystem = match filesystem {
        FilesystemName::Ext4 => Filesystem::Ext4,
        FilesystemName::Xfs => Filesystem::Xfs,
        FilesystemName::Btrfs => Filesystem::Btrfs,
    };
    filesystem.make(disk)?;
    let mounted = Mounted::mount(rig, disk, filesystem, "discard")?;
    let (report, durable) = FileWorkload::start(mounted.path(), 7, steps)?.finish()?;
    durable.check(mounted.path())?;
    mounted.unmount()?;
    Ok(report.written + report.overwritten)
}

/// The deleted files' places are known to be apart: each is followed by one that stays.
fn discard_files(rig: &Rig, disk: &BlockDevice, files: u64) -> Result<u64> {
    Filesystem::Xfs.make(disk)?;
    let mounted = Mounted::mount(rig, disk, Filesystem::Xfs, "discard")?;
    let path = |kind: &str, number| mounted.path().join(format!("{kind}-{number}"));
    for number in 0..files {
        for kind in ["goes", "stays"] {
            let mut file = File::create_new(path(kind, number))?;
            file.write_all(&[0xa5; 16 << 10])?;
            file.sync_all()?;
        }
    }
    for number in 0..files {
        fs::remove_file(path("goes", number))?;
    }
    nix::unistd::sync();
    // Discards are asked for when the log is written, and not waited for.
    thread::sleep(Duration::from_secs(1));
    mounted.unmount()?;
    Ok(2 * files)
}

/// How many discards of a disk were merged into others: the kernel's own count.
fn merged_discards(disk: &BlockDevice) -> Result<u64> {
    let stat = fs::read_to_string(format!("/sys/block/{}/stat", disk.name()))?;
    let merged = stat.split_whitespace().nth(12).context("statistics of discards")?;
    merged.parse().context("statistics of discards")
}

/// A race between writers and harvests, right or wrong in one of two ways; prints what came of it.
///
/// On a null_blk, where the way to the disk is short, and which every kernel lets be tracked.
pub fn run_race(how: &str) -> Result<()> {
    let rig = Rig::start()?.expect("nobody asks a guest to skip its tests");
    let stack = Stack::build(&rig, Kind::NullBlk, ByteLen(4 << 20))?;
    let disk = &stack.device;
    let order = if how == "read-first" { Order::ReadThenClear } else { Order::ClearThenRead };
    let mut marks: Box<dyn Marks> = match how {
        "issue-only" => {
            let geometry = disk.geometry(ChunkSize::DEFAULT)?;
            Box::new(IssueOnly::attach(ISSUE_ONLY.as_ref(), disk, geometry)?)
        }
        "right" | "read-first" => Box::new(Tracked::attach(&rig, disk)?),
        _ => bail!("no way to race: {how}"),
    };
    let outcome = race(&rig, disk, &mut *marks, order, Duration::from_secs(5))?;
    println!("{{\"writes\":{},\"stale\":{}}}", outcome.writes, outcome.stale);
    Ok(())
}
