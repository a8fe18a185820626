//! Reads of a cut: few, short, as many at once as the disk takes, straight into the image.
//!
//! Owned by one thread, which sleeps only in [`Window::wait`]. Nothing here decides what is read
//! or when a read is good; each is reported once it is complete, and its reader then looks whether
//! it was in time. No buffer is copied and none is allocated while a window is open.
//!
//! Invariant: memory that the kernel may write into is of the image that the window holds, and a
//! window goes only when none of its reads is in the ring.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    os::fd::AsRawFd,
    ptr::NonNull,
    sync::Arc,
};

use blocks::{ByteLen, ChunkRange, Extent, Geometry};
use io_uring::{IoUring, opcode, types::Fd};
use nix::libc::{EAGAIN, EBUSY, EINTR};

use crate::{
    image::{DiskImage, Image},
    start::StartError,
};

/// Reads given to the kernel at once. Disks in memory complete them before the call returns, so a
/// longer queue would only put off the look at the first.
const SUBMIT: usize = 16;

/// Reads cuts of disks, one at a time.
pub struct WindowReader {
    ring: IoUring,
    depth: usize,
    memory: ByteLen,
    /// The image of the last window; its memory serves the next one too.
    image: Option<Arc<Image>>,
}

/// A disk to read in a window.
#[derive(Clone, Debug)]
pub struct WindowDisk {
    /// Opened for direct reads, through a node that nobody writes to through its page cache.
    pub file: Arc<File>,
    /// Its shape.
    pub geometry: Geometry,
}

/// Why a window can't be opened, or can't go on.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The image before is still being shipped.
    #[error("what was cut before is still being sent")]
    Busy,
    /// There is no memory for the image.
    #[error("no memory for an image")]
    Memory(#[source] io::Error),
    /// The image is full.
    #[error("what is read does not fit into the image")]
    Full,
    /// A disk could not be read.
    #[error("reading {} sectors from sector {} failed", .extent.sectors, .extent.start.0)]
    Read {
        /// Which sectors.
        extent: Extent,
        /// What the kernel said.
        source: io::Error,
    },
    /// io_uring failed.
    #[error("io_uring failed")]
    Ring(#[source] io::Error),
}

/// Reads under way into one image. Dropping it waits for those that the kernel has.
pub struct Window<'r> {
    reader: &'r mut WindowReader,
    /// None only once it was handed over.
    image: Option<Image>,
    memory: NonNull<u8>,
    disks: Vec<WindowDisk>,
    /// Those under way; a free place is none.
    pieces: Vec<Option<Piece>>,
    queue: VecDeque<usize>,
    in_ring: usize,
    /// How many pieces each read still waits for.
    left: HashMap<u64, usize>,
    complete: VecDeque<u64>,
    failed: Option<WindowError>,
}

/// A part of a read that lies in one, on the disk and in the image.
#[derive(Clone, Copy, Debug)]
struct Piece {
    read: u64,
    disk: usize,
    extent: Extent,
    at: usize,
    /// Bytes that have come.
    come: usize,
}

impl WindowReader {
    /// A reader of cuts of at most so much, with so many reads under way.
    ///
    /// # Errors
    /// If there is no io_uring.
    pub fn new(memory: ByteLen, depth: u32) -> Result<Self, StartError> {
        let depth = depth.clamp(1, 1024);
        let ring = IoUring::builder().dontfork().build(depth).map_err(StartError::ring)?;
        Ok(Self { ring, depth: depth as usize, memory, image: None })
    }

    /// Opens a window over these disks. So much is likely to be read.
    ///
    /// # Errors
    /// If the image before is in use still, or there is no memory.
    pub fn begin(
        &mut self,
        disks: Vec<WindowDisk>,
        likely: ByteLen,
    ) -> Result<Window<'_>, WindowError> {
        let mut image = match self.image.take().map(Arc::try_unwrap) {
            Some(Ok(image)) => image,
            Some(Err(shared)) => {
                self.image = Some(shared);
                return Err(WindowError::Busy);
            }
            None => Image::new(self.memory).map_err(WindowError::Memory)?,
        };
        image.begin(disks.iter().map(|disk| disk.geometry), likely);
        let memory = NonNull::new(image.memory.as_mut_ptr()).expect("a mapping is not at 0");
        let pieces = vec![None; self.depth];
        Ok(Window {
            reader: self,
            image: Some(image),
            memory,
            disks,
            pieces,
            queue: VecDeque::new(),
            in_ring: 0,
            left: HashMap::new(),
            complete: VecDeque::new(),
            failed: None,
        })
    }
}

impl Window<'_> {
    /// Queues a read of chunks of a disk into the image. It goes to the kernel with the next ones,
    /// or when somebody waits.
    ///
    /// # Errors
    /// If the image is full, or reading has failed.
    pub fn read(&mut self, read: u64, disk: usize, chunks: ChunkRange) -> Result<(), WindowError> {
        let image = self.image.as_mut().expect("an open window");
        let places = image.place(disk, chunks).ok_or(WindowError::Full)?;
        self.left.insert(read, places.len());
        for (extent, at) in places {
            let piece = Some(Piece { read, disk, extent, at, come: 0 });
            let free = self.pieces.iter().position(Option::is_none).unwrap_or_else(|| {
                self.pieces.push(None);
                self.pieces.len() - 1
            });
            self.pieces[free] = piece;
            self.queue.push_back(free);
        }
        if self.queue.len() >= SUBMIT { self.submit(0) } else { Ok(()) }
    }

    /// Whether the disk has enough to do.
    pub fn is_full(&self) -> bool {
        self.queue.len() + self.in_ring >= self.reader.depth
    }

    /// A read that has completed, if one has.
    ///
    /// # Errors
    /// If a read failed.
    pub fn completed(&mut self) -> Result<Option<u64>, WindowError> {
        if self.complete.is_empty() {
            self.reap();
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(self.complete.pop_front()),
        }
    }

    /// Waits until a read has completed.
    ///
    /// # Errors
    /// If a read failed, or none is under way.
    pub fn wait(&mut self) -> Result<u64, WindowError> {
        loop {
            if let Some(read) = self.completed()? {
                return Ok(read);
            }
            if self.queue.is_empty() && self.in_ring == 0 {
                return Err(WindowError::Ring(io::Error::other("no read is under way")));
            }
            self.submit(1)?;
        }
    }

    /// Closes the window: the images of its disks, in their order.
    pub fn finish(mut self) -> Vec<DiskImage> {
        self.drain();
        let image = Arc::new(self.image.take().expect("an open window"));
        self.reader.image = Some(Arc::clone(&image));
        let disks = 0..self.disks.len();
        disks.map(|disk| DiskImage { image: Arc::clone(&image), disk }).collect()
    }

    /// Gives the kernel what is queued, as far as there is room, and waits for so many.
    fn submit(&mut self, wait: usize) -> Result<(), WindowError> {
        while self.in_ring < self.reader.depth
            && let Some(index) = self.queue.pop_front()
        {
            self.push(index);
        }
        let wait = wait.min(self.in_ring);
        match self.reader.ring.submit_and_wait(wait) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(EINTR | EBUSY | EAGAIN) => Ok(()),
                _ => Err(WindowError::Ring(error)),
            },
        }
    }

    fn push(&mut self, index: usize) {
        let Piece { disk, extent, at, come, .. } = self.pieces[index].expect("a queued piece");
        let len = bytes(extent) - come;
        // SAFETY: `Image::place` gave these bytes out, so `at` and all of the piece lie within the
        // mapping.
        let target = unsafe { self.memory.add(at + come) };
        let descriptor = Fd(self.disks[disk].file.as_raw_fd());
        let len = u32::try_from(len).expect("a read of a few hundred KiB");
        let entry = opcode::Read::new(descriptor, target.as_ptr(), len)
            .offset(extent.start.bytes() + come as u64)
            .build()
            .user_data(index as u64);
        // SAFETY: the image and the file are of this window, which waits for its reads before it
        // goes; nobody touches the memory before, and no chunk is read twice at a time.
        let pushed = unsafe { self.reader.ring.submission().push(&entry) };
        pushed.expect("no more reads than the ring has entries");
        self.in_ring += 1;
    }

    /// Takes in what the kernel has completed.
    fn reap(&mut self) {
        while let Some(entry) = { self.reader.ring.completion().next() } {
            self.in_ring -= 1;
            let index = usize::try_from(entry.user_data()).expect("an index of ours");
            self.handle_result(index, entry.result());
        }
    }

    fn handle_result(&mut self, index: usize, result: i32) {
        let Some(piece) = self.pieces[index].as_mut() else { return };
        let extent = piece.extent;
        match usize::try_from(result) {
            Ok(0) => self.fail(extent, io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(len) => {
                piece.come += len;
                if piece.come < bytes(extent) {
                    self.queue.push_front(index);
                    return;
                }
                let read = piece.read;
                if let Some(left) = self.left.get_mut(&read) {
                    *left -= 1;
                    if *left == 0 {
                        self.left.remove(&read);
                        self.complete.push_back(read);
                    }
                }
            }
            Err(_) if matches!(-result, EINTR | EAGAIN) => {
                self.queue.push_front(index);
                return;
            }
            Err(_) => self.fail(extent, io::Error::from_raw_os_error(-result)),
        }
        self.pieces[index] = None;
    }

    fn fail(&mut self, extent: Extent, source: io::Error) {
        self.failed.get_or_insert(WindowError::Read { extent, source });
    }

    /// Waits until the kernel has let go of the image.
    fn drain(&mut self) {
        self.queue.clear();
        while self.in_ring > 0 {
            // A wait that was interrupted is begun again.
            let _ = self.reader.ring.submit_and_wait(1);
            self.reap();
            self.queue.clear();
        }
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.drain();
        if let Some(image) = self.image.take() {
            self.reader.image = Some(Arc::new(image));
        }
    }
}

fn bytes(extent: Extent) -> usize {
    usize::try_from(extent.len().0).expect("an extent in memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use blocks::{ChunkIndex, ChunkSize};
    use std::io::Write as _;

    #[test]
    fn reads_land_in_the_image_and_a_shared_one_is_not_read_over() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..64u8).flat_map(|chunk| vec![chunk; 4096]).collect();
        file.write_all(&bytes).unwrap();
        let geometry = Geometry::new(64 * 8, 512, ChunkSize::DEFAULT).unwrap();
        let disk = WindowDisk { file: Arc::new(file), geometry };
        let mut reader = WindowReader::new(ByteLen(1 << 20), 8).unwrap();
        let range = |start, end| ChunkRange { start: ChunkIndex(start), end: ChunkIndex(end) };

        let mut window = reader.begin(vec![disk.clone()], ByteLen(4096)).unwrap();
        for (id, chunk) in (0..).zip((0..64).rev()) {
            window.read(id, 0, range(chunk, chunk + 1)).unwrap();
        }
        let mut ids: Vec<u64> = (0..64).map(|_| window.wait().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..64).collect::<Vec<_>>());
        window.read(64, 0, range(10, 20)).unwrap();
        assert_eq!(window.wait().unwrap(), 64, "ten pieces are one read");
        let images = window.finish();
        let mut out = vec![0; 4096 * 64];
        assert!(images[0].copy(geometry.extent_of(range(0, 64)), &mut out) && out == bytes);

        assert!(matches!(reader.begin(vec![disk.clone()], ByteLen(0)), Err(WindowError::Busy)));
        drop(images);
        let mut window = reader.begin(vec![disk], ByteLen(0)).unwrap();
        window.read(0, 0, range(63, 64)).unwrap();
        assert_eq!(window.wait().unwrap(), 0);
    }

    #[test]
    fn a_disk_that_is_too_short_is_an_error() {
        let geometry = Geometry::new(64, 512, ChunkSize::DEFAULT).unwrap();
        let disk = WindowDisk { file: Arc::new(tempfile::tempfile().unwrap()), geometry };
        let mut reader = WindowReader::new(ByteLen(1 << 20), 8).unwrap();
        let mut window = reader.begin(vec![disk], ByteLen(0)).unwrap();
        window.read(0, 0, ChunkRange { start: ChunkIndex(0), end: ChunkIndex(1) }).unwrap();
        assert!(matches!(window.wait(), Err(WindowError::Read { .. })));
    }
}
