//! Where the bytes of a file lie on its device.
//!
//! For who has to write a file when its file system can't be written any more.

use std::{fs::File, io, os::fd::AsRawFd};

/// A run of bytes of a file that lies in one piece on the device of its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileExtent {
    /// The first byte in the file.
    pub in_file: u64,
    /// The first byte on the device.
    pub on_device: u64,
    /// How many.
    pub len: u64,
}

/// Most pieces that are asked for; a file in more is not for writing by hand.
const EXTENTS_MAX: usize = 64;

/// Ask only once everything is on the device.
const FIEMAP_FLAG_SYNC: u32 = 1;

/// What there may be said of an extent that can be written where it lies: that it is the last.
const FIEMAP_EXTENT_LAST: u32 = 1;

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct RawExtent {
    in_file: u64,
    on_device: u64,
    len: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

#[repr(C)]
struct Request {
    start: u64,
    len: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [RawExtent; EXTENTS_MAX],
}

/// The size of the request without the extents behind it, which is what the number of the call
/// holds.
const HEADER: usize = size_of::<Request>() - size_of::<[RawExtent; EXTENTS_MAX]>();

const FS_IOC_FIEMAP: nix::libc::Ioctl = nix::request_code_readwrite!(b'f', 11, HEADER);

/// Where the bytes of `file` lie, in order. Nothing if some of them can't be written where they
/// lie: what is not yet allocated or written, packed with others, compressed, encrypted, or shared
/// with another file; or if there are too many pieces.
///
/// # Errors
/// If the file system does not tell.
pub fn extents_of(file: &File) -> io::Result<Option<Vec<FileExtent>>> {
    let len = file.metadata()?.len();
    let mut request = Request {
        start: 0,
        len,
        flags: FIEMAP_FLAG_SYNC,
        mapped: 0,
        count: u32::try_from(EXTENTS_MAX).expect("a small number"),
        reserved: 0,
        extents: [RawExtent::default(); EXTENTS_MAX],
    };
    // SAFETY: the request is a live local, laid out as the kernel's `struct fiemap` with room for
    // as many extents behind it as its count says.
    let result = unsafe { nix::libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut request) };
    nix::errno::Errno::result(result)?;
    let mapped = usize::try_from(request.mapped).unwrap_or(usize::MAX);
    Ok(request.extents.get(..mapped).and_then(|extents| in_place(extents, len)))
}

fn in_place(extents: &[RawExtent], len: u64) -> Option<Vec<FileExtent>> {
    let mut found = Vec::new();
    let mut end = 0;
    for raw in extents {
        if raw.flags & !FIEMAP_EXTENT_LAST != 0 || raw.in_file != end {
            return None;
        }
        end = raw.in_file.checked_add(raw.len)?;
        let len = end.min(len).checked_sub(raw.in_file)?;
        found.push(FileExtent { in_file: raw.in_file, on_device: raw.on_device, len });
    }
    (end >= len).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNWRITTEN: u32 = 0x800;

    fn raw(in_file: u64, on_device: u64, len: u64, flags: u32) -> RawExtent {
        RawExtent { in_file, on_device, len, flags, ..RawExtent::default() }
    }

    #[test]
    fn a_file_without_holes_lies_in_its_pieces() {
        let found = in_place(&[raw(0, 4096, 8192, 0), raw(8192, 65536, 4096, 1)], 12_000).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], FileExtent { in_file: 8192, on_device: 65536, len: 3808 });
    }

    #[test]
    fn what_cant_be_written_where_it_lies_is_refused() {
        assert_eq!(in_place(&[raw(0, 4096, 4096, UNWRITTEN | 1)], 4096), None);
        assert_eq!(in_place(&[raw(4096, 4096, 4096, 1)], 8192), None, "a hole");
        assert_eq!(in_place(&[raw(0, 4096, 4096, 0)], 8192), None, "an end that is missing");
        assert_eq!(in_place(&[raw(0, 4096, u64::MAX, 0), raw(u64::MAX, 0, 2, 1)], 1), None);
    }

    #[test]
    fn a_file_that_was_written_and_synced_lies_somewhere() {
        // File systems in memory don't tell; any other does, of a file with content.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        if let Ok(Some(found)) = extents_of(&file) {
            assert_eq!(found.iter().map(|extent| extent.len).sum::<u64>(), 1 << 20);
        }
    }
}
