//! Tracking on real devices. Completeness is judged by comparing the whole device before and
//! after, and by the writer's own log.
//!
//! Bio-based devices here are zram, which completes writes in the writer's context. Request-based
//! ones are loops; where a kernel hides events from programs (see `docs/tracking.md`), their
//! completions may be lost, so tests on loops accept what the cross-check flags, and nothing else.

use std::{sync::Arc, time::Duration};

use blocks::{
    Bitmap, ByteLen, ChunkSize, DiskId, Epoch, Extent, Generation, MarkKind, Sector, Taint,
};
use ebpf::{Attached, DiskSpec, LoadOptions, TrackedDisk, Tracking, device};
use vm_tests::{
    After, BlockDevice, Image, Load, Method, Mounted, Rig, Target, WriteLog, Writer, ZramDisk,
};

const MIB: u64 = 1 << 20;

/// A directory of pins on a BPF file system of its own, which ends with it.
struct Bench {
    rig: Rig,
    bpf: Mounted,
}

impl Bench {
    fn start() -> anyhow::Result<Option<Self>> {
        let Some(rig) = Rig::start()? else { return Ok(None) };
        let bpf = Mounted::bpf(&rig)?;
        Ok(Some(Self { rig, bpf }))
    }

    fn tracking(&self) -> anyhow::Result<(Tracking, Attached)> {
        Ok(Tracking::open_or_load(&self.bpf.path().join("pins"))?)
    }
}

fn spec_of(device: &BlockDevice, number: u8) -> anyhow::Result<DiskSpec> {
    let found = device::probe(device.path())?;
    Ok(DiskSpec {
        id: DiskId([number; 16]),
        generation: Generation([1; 16]),
        number: found.number,
        class: found.class,
        geometry: found.geometry(ChunkSize::DEFAULT)?,
        sequence: found.sequence,
    })
}

fn harvested(disk: &TrackedDisk) -> Bitmap {
    let mut bits = Bitmap::new(disk.spec().geometry.chunks());
    disk.harvest(&mut |index, word| bits.insert_word(index, word));
    bits
}

#[test]
fn no_write_to_zram_is_missed() -> anyhow::Result<()> {
    let Some(bench) = Bench::start()? else { return Ok(()) };
    let (mut tracking, attached) = bench.tracking()?;
    assert_eq!(attached, Attached::Fresh);
    let zram = ZramDisk::create(&bench.rig, ByteLen(64 * MIB))?;
    let spec = spec_of(&zram, 1)?;
    let slot = tracking.add_disk(&spec)?;
    let before = Image::read(zram.path())?;
    let log = Arc::new(WriteLog::create(&bench.rig.fresh("log"), 20_000)?);
    for (seed, method) in (0..).zip([
        Method::Direct,
        Method::Buffered,
        Method::Mapped,
        Method::Discard,
        Method::ZeroOut,
    ]) {
        let load = Load {
            method,
            seed,
            smallest: ByteLen(4096),
            largest: ByteLen(64 << 10),
            after: After::Writes(3000),
        };
        Writer::start(&Target::whole(0, &zram), 1, load, &log)?.finish()?;
    }
    let after = Image::read(zram.path())?;
    let disk = tracking.disk(slot).unwrap();
    let mut missed = before.changed_chunks(&after, &spec.geometry);
    println!("changed {missed:?}");
    missed.union_with(&log.chunks(0, &spec.geometry));
    println!("logged or changed {missed:?}");
    let marked = harvested(disk);
    println!(
        "marked {marked:?} taints {} counters {:?} {:?}",
        disk.taints(),
        disk.counters()?,
        zram.statistics()?
    );
    missed.subtract(&marked);
    assert!(missed.is_empty(), "{missed:?} missed");
    tracking.unload()?;
    Ok(())
}
