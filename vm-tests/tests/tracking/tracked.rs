//! A rig's disk under the real programs, and the judgement over what they marked.

use anyhow::{Context, Result, bail, ensure};
use blocks::{Bitmap, ChunkSize, DiskId, Generation, Geometry};
use ebpf::{
    Attached, DiskSpec, TrackedDisk, Tracking,
    device::{Device, probe},
};
use vm_tests::{BlockDevice, Image, Mounted, Rig};

/// The most that the kernel of a test machine may hide from all BPF programs: one sector in so
/// many. What is beyond is no accident of the kernel but a fault of the programs.
const HIDDEN_ONE_IN: u64 = 10;

/// Whether a missed write fails the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tolerance {
    /// Nothing may be missed: the disk completes in the writer's own context.
    None,
    /// Some kernels hide completions in soft interrupts from all BPF programs. A miss passes if
    /// the kernel's own statistics tell of it: a detected loss becomes a gap, never silence.
    IfDetected,
}

/// A disk that is tracked, with an image of it from after the programs were attached.
pub(crate) struct Tracked {
    disk: TrackedDisk,
    device: Device,
    geometry: Geometry,
    before: Image,
    kept_before: u64,
    _tracking: Tracking,
    /// Dropped last: the pins, and the programs with them, go with it.
    _pins: Mounted,
}

/// What was marked and what really changed.
pub(crate) struct Observed {
    pub(crate) geometry: Geometry,
    pub(crate) marked: Bitmap,
    pub(crate) changed: Bitmap,
    /// Sectors the kernel counted and the programs did not.
    pub(crate) deficit: u64,
    /// Sectors the kernel counted.
    pub(crate) kept: u64,
}

impl Tracked {
    /// Loads the programs, with pins of their own, and tracks `disk`.
    pub(crate) fn attach(rig: &Rig, disk: &BlockDevice) -> Result<Self> {
        let pins = Mounted::bpf(rig)?;
        let (mut tracking, attached) = Tracking::open_or_load(&pins.path().join("pinnace"))?;
        ensure!(attached == Attached::Fresh, "the pins are this test's own");
        let device = probe(disk.path())?;
        device.enable_statistics()?;
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
        Ok(Self {
            disk: tracked,
            device,
            geometry,
            before,
            kept_before,
            _tracking: tracking,
            _pins: pins,
        })
    }

    /// Its shape.
    pub(crate) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Takes the marks; what is taken is not kept as pending.
    pub(crate) fn take(&self) -> Bitmap {
        let mut taken = Bitmap::new(self.geometry.chunks());
        self.disk.harvest(&mut |index, bits| taken.insert_word(index, bits));
        taken.words().for_each(|(index, bits)| self.disk.drop_pending(index, bits));
        taken
    }

    /// Looks at the disk and takes the marks. Writers must have ended.
    pub(crate) fn observe(&self) -> Result<Observed> {
        // The image first: reading it may write back what a page cache still holds.
        let after = Image::read(&self.device.path)?;
        let changed = self.before.changed_chunks(&after, &self.geometry);
        let marked = self.take();
        ensure!(self.disk.taints().is_empty(), "tainted: {}", self.disk.taints());
        let kept = self.device.accounting.kept(&self.device.statistics()?) - self.kept_before;
        let counted = self.device.accounting.counted(&self.disk.counters()?);
        let Some(deficit) = kept.checked_sub(counted) else {
            bail!("the programs counted {counted} sectors, the kernel only {kept}");
        };
        Ok(Observed { geometry: self.geometry, marked, changed, deficit, kept })
    }
}

impl Observed {
    /// Fails if a chunk of `wanted` was not marked, unless that is tolerated and was detected.
    pub(crate) fn judge(&self, what: &str, wanted: &Bitmap, tolerance: Tolerance) -> Result<()> {
        let mut missed = wanted.clone();
        missed.subtract(&self.marked);
        let (missed, of) = (missed.count(), wanted.count());
        let deficit = self.deficit;
        match tolerance {
            Tolerance::None => {
                ensure!(missed == 0, "{missed} of {of} chunks {what} were not marked");
                ensure!(deficit == 0, "the programs did not see {deficit} sectors");
            }
            Tolerance::IfDetected => {
                ensure!(missed == 0 || deficit > 0, "{missed} of {of} chunks {what} lost silently");
                let few = deficit * HIDDEN_ONE_IN <= self.kept;
                ensure!(few, "the programs did not see {deficit} of {} sectors", self.kept);
                if deficit > 0 {
                    println!("{missed} of {of} chunks {what} missed, {deficit} sectors detected");
                }
            }
        }
        Ok(())
    }
}
