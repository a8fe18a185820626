//! Every way of writing, in every size, on a disk of each class.

use std::sync::Arc;

use anyhow::{Result, ensure};
use blocks::{ByteLen, Extent, Sector};
use vm_guest::tracked::{Observed, Tolerance, Tracked};
use vm_tests::{
    After, BlockDevice, Load, LoopDisk, LoopSpec, Method, Partition, Rig, Target, WriteLog, Writer,
    ZramDisk,
};

const DISK: ByteLen = ByteLen(64 << 20);
const LARGEST: ByteLen = ByteLen(4 << 20);
const WRITERS: u32 = 2;

fn load(method: Method, target: &Target, stream: u32) -> Load {
    let writes = if method == Method::Mapped { 150 } else { 500 };
    Load {
        method,
        seed: 100 + u64::from(stream),
        smallest: ByteLen(u64::from(target.logical_block)),
        largest: LARGEST,
        after: After::Writes(writes),
    }
}

/// Two writers of each method at once, one method after the other.
fn write(target: &Target, methods: &[Method], log: &Arc<WriteLog>) -> Result<()> {
    for (round, method) in (0..).zip(methods) {
        let start = |writer| {
            let stream = round * WRITERS + writer;
            Writer::start(target, stream, load(*method, target, stream), log)
        };
        let writers = (0..WRITERS).map(start).collect::<Result<Vec<_>>>()?;
        for writer in writers {
            let report = writer.finish()?;
            ensure!(report.writes >= 150, "{method:?} wrote too little: {report:?}");
        }
    }
    Ok(())
}

/// Writes to a target on a disk; every logged and every changed chunk must be marked.
fn observe(
    rig: &Rig,
    disk: &BlockDevice,
    target: &Target,
    methods: &[Method],
    tolerance: Tolerance,
) -> Result<(Observed, Arc<WriteLog>)> {
    let tracked = Tracked::attach(rig, disk)?;
    let log = Arc::new(WriteLog::create(&rig.fresh("log"), 10_000)?);
    write(target, methods, &log)?;
    disk.wait_idle()?;
    let observed = tracked.observe()?;
    ensure!(!observed.changed.is_empty(), "{methods:?} changed nothing");
    observed.judge("changed", &observed.changed, tolerance)?;
    let logged = log.chunks(target.disk, &tracked.geometry());
    observed.judge("logged", &logged, tolerance)?;
    Ok((observed, log))
}

fn on_zram(method: Method) -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = ZramDisk::create(&rig, DISK)?;
    let target = Target::whole(0, &disk);
    let (observed, log) = observe(&rig, &disk, &target, &[method], Tolerance::None)?;
    if !matches!(method, Method::Direct | Method::Ring) {
        // The page cache may write more than was dirtied: a store dirties a whole large folio.
        return Ok(());
    }
    let mut extra = observed.marked.clone();
    extra.subtract(&log.chunks(0, &observed.geometry));
    ensure!(extra.is_empty(), "{} chunks were marked and not written", extra.count());
    Ok(())
}

fn on_loop(method: Method) -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(DISK))?;
    let target = Target::whole(0, &disk);
    observe(&rig, &disk, &target, &[method], Tolerance::IfDetected).map(drop)
}

#[test]
fn direct_on_zram() -> Result<()> {
    on_zram(Method::Direct)
}

#[test]
fn buffered_on_zram() -> Result<()> {
    on_zram(Method::Buffered)
}

#[test]
fn mapped_on_zram() -> Result<()> {
    on_zram(Method::Mapped)
}

#[test]
fn io_uring_on_zram() -> Result<()> {
    on_zram(Method::Ring)
}

#[test]
fn direct_on_loop() -> Result<()> {
    on_loop(Method::Direct)
}

#[test]
fn buffered_on_loop() -> Result<()> {
    on_loop(Method::Buffered)
}

#[test]
fn mapped_on_loop() -> Result<()> {
    on_loop(Method::Mapped)
}

#[test]
fn io_uring_on_loop() -> Result<()> {
    on_loop(Method::Ring)
}

#[test]
fn discard_and_write_zeroes_on_zram() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = ZramDisk::create(&rig, DISK)?;
    let target = Target::whole(0, &disk);
    let log = Arc::new(WriteLog::create(&rig.fresh("fill"), 10_000)?);
    write(&target, &[Method::Direct], &log)?;
    for method in [Method::Discard, Method::ZeroOut] {
        observe(&rig, &disk, &target, &[method, Method::Direct], Tolerance::None)?;
    }
    Ok(())
}

#[test]
fn discard_and_write_zeroes_on_loop() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(DISK))?;
    let target = Target::whole(0, &disk);
    let log = Arc::new(WriteLog::create(&rig.fresh("fill"), 10_000)?);
    write(&target, &[Method::Direct], &log)?;
    for method in [Method::Discard, Method::ZeroOut] {
        observe(&rig, &disk, &target, &[method, Method::Direct], Tolerance::IfDetected)?;
    }
    Ok(())
}

#[test]
fn a_partition_is_marked_where_it_lies_on_the_disk() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec::new(DISK))?;
    // Not on a boundary of chunks.
    let extent = Extent { start: Sector(2053), sectors: 65536 };
    let partition = Partition::create(&disk, 1, extent)?;
    let target = Target::partition(0, &partition);
    let methods = [Method::Direct, Method::Buffered, Method::Ring, Method::Discard];
    let (observed, _) = observe(&rig, &disk, &target, &methods, Tolerance::IfDetected)?;
    let mut outside = observed.marked.clone();
    outside.remove_range(observed.geometry.chunks_of(extent));
    ensure!(outside.is_empty(), "{} chunks outside of the partition", outside.count());
    Ok(())
}

#[test]
fn a_loop_of_4_kib_blocks() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&rig, LoopSpec { logical_block: 4096, ..LoopSpec::new(DISK) })?;
    let target = Target::whole(0, &disk);
    let methods = [Method::Direct, Method::Buffered];
    observe(&rig, &disk, &target, &methods, Tolerance::IfDetected).map(drop)
}

/// The judgement itself: a mark that is missing does not pass.
#[test]
fn a_missing_mark_is_noticed() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let disk = ZramDisk::create(&rig, DISK)?;
    let target = Target::whole(0, &disk);
    let (mut observed, log) = observe(&rig, &disk, &target, &[Method::Direct], Tolerance::None)?;
    let logged = log.chunks(0, &observed.geometry);
    let first = logged.runs().next().expect("it wrote");
    observed.marked.remove_range(blocks::ChunkRange {
        start: first.start,
        end: blocks::ChunkIndex(first.start.0 + 1),
    });
    for tolerance in [Tolerance::None, Tolerance::IfDetected] {
        ensure!(observed.judge("logged", &logged, tolerance).is_err(), "{tolerance:?}");
    }
    Ok(())
}
