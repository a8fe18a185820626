//! Batches being read.
//!
//! No I/O: completions are handed in, and what is to be done next comes out.

use std::{io, time::Instant};

use blocks::{ByteLen, Extent};
use nix::libc::{EAGAIN, EINTR};

use super::Line;
use crate::{
    disk::DiskHandle,
    image::DiskImage,
    io::{
        flow::Permit,
        parcel::{Filled, Planned, Producer},
        pool::PoolBuffer,
    },
    shipment::ShipError,
};

/// A batch whose buffer the kernel may write into.
pub(super) struct Loading {
    pub(super) producer: Producer,
    pub(super) disk: DiskHandle,
    pub(super) planned: Planned,
    pub(super) buffer: PoolBuffer,
    /// When its first read was about to be issued.
    pub(super) begun: Instant,
    permit: Permit,
    /// Bytes that have come, for each read.
    come: Vec<u32>,
    /// Reads that have not ended.
    outstanding: usize,
    failed: bool,
}

/// One read of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadKey {
    batch: u32,
    read: u32,
}

/// What a read still has to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// Where on the disk, in bytes.
    pub(super) offset: u64,
    /// Where in the buffer.
    pub(super) at: usize,
    /// How many bytes.
    pub(super) len: u32,
}

/// What follows from a completion.
pub(super) enum Step {
    /// Not all has come: the read is to be issued again for the rest.
    Again,
    /// Other reads of the batch are outstanding.
    Outstanding,
    /// The kernel has let go of the buffer.
    Complete(Box<Loading>),
}

impl Rest {
    pub(super) fn len(&self) -> ByteLen {
        ByteLen(self.len.into())
    }
}

impl ReadKey {
    /// The key as the ring's number of a read.
    pub(super) fn number(self) -> u64 {
        u64::from(self.batch) << 32 | u64::from(self.read)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of what `number` joined")]
    pub(super) fn from_number(number: u64) -> Self {
        Self { batch: (number >> 32) as u32, read: number as u32 }
    }
}

impl Loading {
    pub(super) fn new(line: &Line, planned: Planned, permit: Permit, buffer: PoolBuffer) -> Self {
        let reads = planned.batch.reads.len();
        Self {
            producer: line.producer.clone(),
            disk: line.disk,
            planned,
            buffer,
            begun: Instant::now(),
            permit,
            come: vec![0; reads],
            outstanding: reads,
            failed: false,
        }
    }

    /// Copies what the batch ships from memory, instead of reading it.
    pub(super) fn fill_from(&mut self, image: &DiskImage) {
        let bytes = self.buffer.bytes_mut();
        for piece in &self.planned.batch.pieces {
            if !image.copy(piece.extent, &mut bytes[piece.range()]) {
                self.failed = true;
                self.producer.fail(ShipError::NotInImage(piece.extent));
                return;
            }
        }
    }

    /// Whether what it reads is of no use any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.failed || self.producer.route.window.is_cancelled()
    }

    /// What is left to read.
    pub(super) fn rest_of(&self, key: ReadKey) -> Rest {
        let read = &self.planned.batch.reads[key.read as usize];
        let come = self.come[key.read as usize];
        let len = u32::try_from(read.extent.len().0).expect("a read of at most a buffer");
        Rest {
            offset: read.extent.start.bytes() + u64::from(come),
            at: read.at + come as usize,
            len: len - come,
        }
    }

    pub(super) fn into_filled(self) -> Filled {
        let Self { producer, permit, planned, buffer, .. } = self;
        Filled { producer, permit, planned, buffer, since: Instant::now() }
    }

    /// Takes in what the kernel says of a read; returns whether it has to be issued again.
    fn handle_result(&mut self, key: ReadKey, result: io::Result<usize>) -> bool {
        let rest = self.rest_of(key);
        let error = match result {
            Ok(len) if len == rest.len as usize => return false,
            Ok(len) => match self.whole_blocks(len) {
                0 => ShipError::DiskTooShort(self.extent_of(key)),
                come => {
                    self.come[key.read as usize] += come;
                    return true;
                }
            },
            Err(error) if matches!(error.raw_os_error(), Some(EAGAIN | EINTR)) => return true,
            Err(source) => ShipError::Read { extent: self.extent_of(key), source },
        };
        self.failed = true;
        self.producer.fail(error);
        false
    }

    /// A short read rounded down, so that the rest of it can be read directly too.
    fn whole_blocks(&self, len: usize) -> u32 {
        let block = self.disk.geometry.logical_block() as usize;
        u32::try_from(len / block * block).expect("shorter than a buffer")
    }

    fn extent_of(&self, key: ReadKey) -> Extent {
        self.planned.batch.reads[key.read as usize].extent
    }
}

/// All batches being read.
#[derive(Default)]
pub(super) struct Loadings {
    slots: Vec<Option<Box<Loading>>>,
    count: usize,
}

impl Loadings {
    /// How many batches are being read.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Loading> {
        self.slots.iter().flatten().map(Box::as_ref)
    }

    /// Takes a batch in; returns its reads, all to be issued.
    pub(super) fn insert(&mut self, loading: Loading) -> impl Iterator<Item = ReadKey> + use<> {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if free == self.slots.len() {
            self.slots.push(None);
        }
        let batch = u32::try_from(free).expect("no more batches than buffers");
        let reads = u32::try_from(loading.come.len()).expect("no more reads than chunks");
        self.slots[free] = Some(Box::new(loading));
        self.count += 1;
        (0..reads).map(move |read| ReadKey { batch, read })
    }

    /// The batch of a read that has not ended.
    pub(super) fn get(&self, key: ReadKey) -> &Loading {
        self.slots[key.batch as usize].as_deref().expect("a batch with an outstanding read is held")
    }

    /// Takes in what the kernel says of a read.
    pub(super) fn handle_completion(&mut self, key: ReadKey, result: io::Result<usize>) -> Step {
        let slot = &mut self.slots[key.batch as usize];
        let loading = slot.as_mut().expect("a batch with an outstanding read is held");
        if loading.handle_result(key, result) {
            return Step::Again;
        }
        self.end_read(key)
    }

    /// Ends a read that the ring does not have.
    pub(super) fn give_up(&mut self, key: ReadKey) {
        let slot = &mut self.slots[key.batch as usize];
        slot.as_mut().expect("a batch with an outstanding read is held").failed = true;
        drop(self.end_read(key));
    }

    fn end_read(&mut self, key: ReadKey) -> Step {
        let slot = &mut self.slots[key.batch as usize];
        if let Some(loading) = slot {
            loading.outstanding -= 1;
            if loading.outstanding > 0 {
                return Step::Outstanding;
            }
        }
        self.count -= 1;
        let loading = slot.take().expect("a batch with an outstanding read is held");
        Step::Complete(loading)
    }
}
