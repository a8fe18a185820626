//! A place for pins, and single operations on a device.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use blocks::{Bitmap, ByteLen, ChunkRange, ChunkSize, DiskId, Extent, Generation, Mark};
use ebpf::{Attached, DiskSpec, LoadOptions, TrackedDisk, Tracking, device};
use memmap2::MmapMut;
use vm_tests::{After, BlockDevice, Load, Method, Mounted, Rig, Target, WriteLog, Writer};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// A directory of pins on a BPF file system of its own, which ends with it.
pub(crate) struct Bench {
    pub(crate) rig: Rig,
    bpf: Mounted,
}

impl Bench {
    /// Nothing if device tests are switched off.
    pub(crate) fn start() -> Result<Option<Self>> {
        let Some(rig) = Rig::start()? else { return Ok(None) };
        let bpf = Mounted::bpf(&rig)?;
        Ok(Some(Self { rig, bpf }))
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.bpf.path().join("pinnace")
    }

    /// Loads the programs, which must not be there.
    pub(crate) fn load(&self) -> Result<Tracking> {
        self.load_with(LoadOptions::default())
    }

    pub(crate) fn load_with(&self, options: LoadOptions) -> Result<Tracking> {
        let (tracking, attached) = Tracking::open_or_load_with(&self.pins(), options)?;
        assert_eq!(attached, Attached::Fresh);
        Ok(tracking)
    }

    /// Takes up the programs, which must be there.
    pub(crate) fn take_up(&self) -> Result<Tracking> {
        let (tracking, attached) = Tracking::open_or_load(&self.pins())?;
        assert_eq!(attached, Attached::Continued);
        Ok(tracking)
    }
}

pub(crate) fn spec_of(device: &BlockDevice, id: u8) -> Result<DiskSpec> {
    let found = device::probe(device.path())?;
    Ok(DiskSpec {
        id: DiskId([id; 16]),
        generation: Generation([1; 16]),
        number: found.number,
        class: found.class,
        geometry: found.geometry(ChunkSize::DEFAULT)?,
        sequence: found.sequence,
    })
}

/// Tracks a device and gives a handle on it.
pub(crate) fn track(tracking: &mut Tracking, device: &BlockDevice) -> Result<TrackedDisk> {
    let slot = tracking.add_disk(&spec_of(device, 1)?)?;
    Ok(tracking.disk(slot).expect("it was just added").clone())
}

pub(crate) fn harvested(disk: &TrackedDisk) -> Bitmap {
    let mut bits = Bitmap::new(disk.spec().geometry.chunks());
    disk.harvest(&mut |index, word| bits.insert_word(index, word));
    bits
}

pub(crate) fn pending(disk: &TrackedDisk) -> Bitmap {
    let mut bits = Bitmap::new(disk.spec().geometry.chunks());
    disk.pending().for_each(|(index, word)| bits.insert_word(index, word));
    bits
}

pub(crate) fn polled(tracking: &mut Tracking) -> Vec<Mark> {
    let mut marks = Vec::new();
    let count = tracking.poll_ring(&mut |mark| marks.push(mark));
    assert_eq!(count, marks.len());
    marks
}

pub(crate) fn runs(bits: &Bitmap) -> Vec<ChunkRange> {
    bits.runs().collect()
}

/// Opens a device past the page cache.
pub(crate) fn open_direct(device: &BlockDevice) -> Result<File> {
    let mut options = OpenOptions::new();
    Ok(options.read(true).write(true).custom_flags(nix::libc::O_DIRECT).open(device.path())?)
}

/// Writes `byte` over an extent of a device opened by [`open_direct`].
pub(crate) fn write(file: &File, extent: Extent, byte: u8) -> Result<()> {
    let mut memory = MmapMut::map_anon(usize::try_from(extent.len().0)?)?;
    memory.fill(byte);
    Ok(file.write_all_at(&memory, extent.start.bytes())?)
}

mod ioctls {
    nix::ioctl_write_ptr_bad!(discard, nix::request_code_none!(0x12, 119), [u64; 2]);
    nix::ioctl_write_ptr_bad!(zero_out, nix::request_code_none!(0x12, 127), [u64; 2]);
}

/// Writers of small and middling writes at full speed, half of them by io_uring.
pub(crate) fn writers_at_full_speed(
    device: &BlockDevice,
    count: u32,
    time: Duration,
    log: &Arc<WriteLog>,
) -> Result<Vec<Writer>> {
    let writer = |stream| {
        let load = Load {
            method: if stream % 2 == 0 { Method::Direct } else { Method::Ring },
            seed: u64::from(stream),
            smallest: ByteLen(4096),
            largest: ByteLen(64 << 10),
            after: After::Elapsed(time),
        };
        Writer::start(&Target::whole(0, device), stream, load, log)
    };
    (0..count).map(writer).collect()
}

pub(crate) fn discard(file: &File, extent: Extent) -> io::Result<()> {
    let range = [extent.start.bytes(), extent.len().0];
    // SAFETY: the descriptor is open, and the request takes a pointer to two words, which live
    // until it returns.
    unsafe { ioctls::discard(file.as_raw_fd(), &range) }?;
    Ok(())
}

pub(crate) fn zero_out(file: &File, extent: Extent) -> io::Result<()> {
    let range = [extent.start.bytes(), extent.len().0];
    // SAFETY: the descriptor is open, and the request takes a pointer to two words, which live
    // until it returns.
    unsafe { ioctls::zero_out(file.as_raw_fd(), &range) }?;
    Ok(())
}
