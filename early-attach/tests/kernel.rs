//! The object as aya loads it, on the running kernel, beside the same object as libbpf loads it. Needs
//! root.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Result, ensure};
use blocks::{Bitmap, ByteLen, ChunkSize, DiskId, Generation};
use early_attach::{Loaded, Refusal, attach};
use ebpf::{Arrival, Attached, DiskSpec, TrackedDisk, Tracking, device};
use tracker::last::{Plan, PlannedRecord};
use vm_tests::{
    After, BlockDevice, Load, LoopDisk, LoopSpec, Method, Mounted, Rig, Target, WriteLog, Writer,
    ZramDisk,
};

const LEN: ByteLen = ByteLen(64 << 20);

const METHODS: [Method; 6] = [
    Method::Direct,
    Method::Buffered,
    Method::Mapped,
    Method::Ring,
    Method::Discard,
    Method::ZeroOut,
];

/// Two directories of pins: for what aya loads, and for what libbpf does.
struct Bench {
    rig: Rig,
    bpf: Mounted,
}

impl Bench {
    fn start() -> Result<Option<Self>> {
        let Some(rig) = Rig::start()? else { return Ok(None) };
        let bpf = Mounted::bpf(&rig)?;
        Ok(Some(Self { rig, bpf }))
    }

    fn pins(&self, loader: &str) -> PathBuf {
        self.bpf.path().join(loader)
    }

    /// What was loaded by aya, taken up by an agent.
    fn take_up(&self) -> Result<Tracking> {
        let (tracking, attached) = Tracking::open_or_load(&self.pins("aya"))?;
        ensure!(attached == Attached::Continued, "the agent has loaded the programs anew");
        ensure!(tracking.is_current(), "the programs are not taken for those of this build");
        Ok(tracking)
    }

    /// Writes to a disk in every way; the log.
    fn write(&self, disk: &BlockDevice) -> Result<Arc<WriteLog>> {
        let log = Arc::new(WriteLog::create(&self.rig.fresh("log"), 20_000)?);
        for (seed, method) in (0..).zip(METHODS) {
            let load = Load {
                method,
                seed,
                smallest: ByteLen(4096),
                largest: ByteLen(64 << 10),
                after: After::Writes(200),
            };
            Writer::start(&Target::whole(0, disk), 1, load, &log)?.finish()?;
        }
        disk.wait_idle()?;
        Ok(log)
    }
}

fn spec_of(disk: &BlockDevice) -> Result<DiskSpec> {
    let found = device::probe(disk.path())?;
    Ok(DiskSpec {
        id: DiskId([5; 16]),
        generation: Generation([6; 16]),
        number: found.number,
        class: found.class,
        geometry: found.geometry(ChunkSize::DEFAULT)?,
        sequence: found.sequence,
    })
}

fn add(tracking: &mut Tracking, spec: &DiskSpec) -> Result<TrackedDisk> {
    let slot = tracking.add_disk(spec)?;
    Ok(tracking.disk(slot).expect("it was just added").clone())
}

fn harvested(disk: &TrackedDisk) -> Bitmap {
    let mut bits = Bitmap::new(disk.spec().geometry.chunks());
    disk.harvest(&mut |index, word| bits.insert_word(index, word));
    bits
}

/// A zram disk completes writes in the writer's context, where no kernel hides anything.
#[test]
fn both_loaders_programs_mark_exactly_the_same_on_zram() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let zram = ZramDisk::create(&bench.rig, LEN)?;
    let spec = spec_of(&zram)?;
    drop(Loaded::load(&bench.pins("aya"), &[])?);
    let mut by_aya = bench.take_up()?;
    let (mut by_libbpf, attached) = Tracking::open_or_load(&bench.pins("libbpf"))?;
    ensure!(attached == Attached::Fresh);
    let disks = [add(&mut by_aya, &spec)?, add(&mut by_libbpf, &spec)?];
    let log = bench.write(&zram)?;
    let [by_aya, by_libbpf] = disks.each_ref().map(harvested);
    ensure!(by_aya == by_libbpf, "{} chunks, and {}", by_aya.count(), by_libbpf.count());
    let mut missed = log.chunks(0, &spec.geometry);
    ensure!(missed.count() > 500, "the load did something");
    missed.subtract(&by_aya);
    ensure!(missed.count() == 0, "{} chunks were missed", missed.count());
    let [by_aya, by_libbpf] = disks.each_ref().map(TrackedDisk::counters);
    let counted = [by_aya?, by_libbpf?].map(|counters| (counters.completed(), counters.issued));
    ensure!(counted[0] == counted[1], "{counted:?}");
    Ok(())
}

/// What a kernel hides of a loop disk it hides from all programs.
#[test]
fn a_disk_that_was_added_early_is_taken_up_with_all_its_marks() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let disk = LoopDisk::create(&bench.rig, LoopSpec::new(LEN))?;
    let spec = spec_of(&disk)?;
    let mut early = Loaded::load(&bench.pins("aya"), &[])?;
    early.add(&spec)?;
    let (mut tracking, _) = Tracking::open_or_load(&bench.pins("libbpf"))?;
    let by_libbpf = add(&mut tracking, &spec)?;
    let log = bench.write(&disk)?;
    drop(early);
    ensure!(Loaded::load(&bench.pins("aya"), &[]).is_err(), "loaded over what is there");

    let taken_up = bench.take_up()?;
    let by_aya = taken_up.disks().next().expect("it was added early").clone();
    ensure!(*by_aya.spec() == spec, "{:?}", by_aya.spec());
    ensure!(by_aya.arrival() == Arrival::Early, "{:?}", by_aya.arrival());
    by_aya.establish();
    ensure!(by_aya.arrival() == Arrival::Established, "{:?}", by_aya.arrival());
    ensure!(by_libbpf.arrival() == Arrival::Established, "{:?}", by_libbpf.arrival());
    let [by_aya, by_libbpf] = [&by_aya, &by_libbpf].map(harvested);
    ensure!(by_aya == by_libbpf, "{} chunks, and {}", by_aya.count(), by_libbpf.count());
    ensure!(by_aya.count() > 500, "{} of {}", by_aya.count(), log.records().len());
    Ok(())
}

#[test]
fn a_plan_of_which_no_log_was_closed_leaves_nothing_in_the_kernel() -> Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let _disk = LoopDisk::create(&bench.rig, LoopSpec::new(LEN))?;
    let plan = Plan(vec![PlannedRecord { disk: DiskId([5; 16]), at: 1 << 20 }]);
    let outcomes = attach(&plan, &bench.pins("aya"))?;
    let [outcome] = &outcomes[..] else { anyhow::bail!("{outcomes:?}") };
    ensure!(matches!(outcome.result, Err(Refusal::NotClosed)), "{outcome:?}");
    ensure!(!bench.pins("aya").exists(), "something was loaded");
    Ok(())
}
