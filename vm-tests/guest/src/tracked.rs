//! A disk under the real programs, and the judgement over what they marked.

use anyhow::{Context, Result, ensure};
use blocks::{Bitmap, ChunkSize, DiskId, Generation, Geometry, TaintSet};
use ebpf::{
    Attached, DiskSpec, TrackedDisk, Tracking,
    device::{Device, Untrackable, probe},
};
use vm_tests::{BlockDevice, Image, Mounted, Rig};

/// The most that the kernel of a test machine may hide from all BPF programs: one sector in so
/// many. What is beyond is no accident of the kernel but a fault of the programs.
const HIDDEN_ONE_IN: u64 = 10;

/// Whether a missed write fails the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tolerance {
    /// Nothing may be missed: the disk completes in the writer's own context.
    None,
    /// Some kernels hide completions in soft interrupts from all BPF programs. A miss passes if
    /// the kernel's own statistics tell of it: a detected loss becomes a gap, never silence.
    IfDetected,
}

/// A disk that is tracked, with an image of it from after the programs were attached.
pub struct Tracked {
    disk: TrackedDisk,
    device: Device,
    geometry: Geometry,
    before: Image,
    kept_before: u64,
    _tracking: Tracking,
    /// Dropped last: the pins, and the programs with them, go with it.
    pins: Mounted,
}

/// What was marked and what really changed.
pub struct Observed {
    /// The disk's shape.
    pub geometry: Geometry,
    /// What the programs marked.
    pub marked: Bitmap,
    /// What differs from before.
    pub changed: Bitmap,
    /// What the programs could not follow.
    pub taints: TaintSet,
    /// Sectors the kernel counted and the programs did not; negative if they counted more.
    pub deficit: i64,
    /// Sectors the kernel counted.
    pub kept: u64,
}

/// The disk as the product sees it, made ready for tracking; or its reason to refuse it.
pub fn trackable(disk: &BlockDevice) -> Result<Device, Untrackable> {
    let device = probe(disk.path())?;
    device.enable_statistics()?;
    Ok(device)
}

impl Tracked {
    /// Loads the programs, with pins of their own, and tracks `disk`.
    pub fn attach(rig: &Rig, disk: &BlockDevice) -> Result<Self> {
        let pins = Mounted::bpf(rig)?;
        let (mut tracking, attached) = Tracking::open_or_load(&pins.path().join("pinnace"))?;
        ensure!(attached == Attached::Fresh, "the pins are this test's own");
        let device = trackable(disk)?;
        let geometry = device.geometry(ChunkSize::DEFAULT)?;
        let slot = tracking.add_disk(&DiskSpec {
            id: DiskId([1; 16]),
            generation: Generation([2; 16]),
            number: device.number,
            class: device.class,
            geometry,
            sequence: device.sequence,
        })?;
        let tracked = tracking.disk(slot).context("it was added just now")?.clone();
        disk.wait_idle()?;
        let kept_before = device.accounting.kept(&device.statistics()?);
        let before = Image::read(disk.path())?;
        Ok(Self { disk: tracked, device, geometry, before, kept_before, _tracking: tracking, pins })
    }

    /// Its shape.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Detaches every program behind the tracker's back.
    pub fn blind(&self) -> Result<()> {
        let links = self.pins.path().join("pinnace/links");
        std::fs::remove_dir_all(links).context("unpinning the links")
    }

    /// Takes the marks; what is taken is not kept as pending.
    pub fn take(&self) -> Bitmap {
        let mut taken = Bitmap::new(self.geometry.chunks());
        self.disk.harvest(&mut |index, bits| taken.insert_word(index, bits));
        taken.words().for_each(|(index, bits)| self.disk.drop_pending(index, bits));
        taken
    }

    /// Looks at the disk and takes the marks. Writers must have ended.
    pub fn observe(&self) -> Result<Observed> {
        // The image first: reading it may write back what a page cache still holds.
        let after = Image::read(&self.device.path)?;
        let changed = self.before.changed_chunks(&after, &self.geometry);
        let marked = self.take();
        let kept = self.device.accounting.kept(&self.device.statistics()?) - self.kept_before;
        let counted = self.device.accounting.counted(&self.disk.counters()?);
        let deficit = kept.cast_signed() - counted.cast_signed();
        let (geometry, taints) = (self.geometry, self.disk.taints());
        Ok(Observed { geometry, marked, changed, taints, deficit, kept })
    }
}

impl Observed {
    /// How many chunks of `wanted` were not marked.
    pub fn missed(&self, wanted: &Bitmap) -> u64 {
        let mut missed = wanted.clone();
        missed.subtract(&self.marked);
        missed.count()
    }

    /// Fails if a chunk of `wanted` was not marked, unless that is tolerated and was detected.
    pub fn judge(&self, what: &str, wanted: &Bitmap, tolerance: Tolerance) -> Result<()> {
        ensure!(self.taints.is_empty(), "tainted: {}", self.taints);
        let (missed, of) = (self.missed(wanted), wanted.count());
        let deficit = self.deficit;
        ensure!(deficit >= 0, "the programs counted {} sectors that the kernel did not", -deficit);
        match tolerance {
            Tolerance::None => {
                ensure!(missed == 0, "{missed} of {of} chunks {what} were not marked");
                ensure!(deficit == 0, "the programs did not see {deficit} sectors");
            }
            Tolerance::IfDetected => {
                ensure!(missed == 0 || deficit > 0, "{missed} of {of} chunks {what} lost silently");
                let few = deficit.cast_unsigned() * HIDDEN_ONE_IN <= self.kept;
                ensure!(few, "the programs did not see {deficit} of {} sectors", self.kept);
                if deficit > 0 {
                    println!("{missed} of {of} chunks {what} missed, {deficit} sectors detected");
                }
            }
        }
        Ok(())
    }
}
