//! A cpio archive in the `newc` format, which is what kernels unpack as their first file system.
//!
//! See the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, Write};

/// What an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<'a> {
    Directory,
    /// A file, with its permissions.
    File {
        content: &'a [u8],
        mode: u32,
    },
    /// A link to this path.
    Link(&'a str),
}

/// Writes an archive.
pub(super) struct Archive<W> {
    out: W,
    written: usize,
    number: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, written: 0, number: 0 }
    }

    /// Adds an entry. `path` is relative to the root; its directory must have been added before.
    pub(super) fn add(&mut self, path: &str, entry: Entry<'_>) -> io::Result<()> {
        let (mode, content): (u32, &[u8]) = match entry {
            Entry::Directory => (0o040_755, &[]),
            Entry::File { content, mode } => (0o100_000 | mode, content),
            Entry::Link(to) => (0o120_777, to.as_bytes()),
        };
        self.number += 1;
        self.entry(path, mode, content)
    }

    /// Ends the archive and hands the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        let too_long =
            |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{path} is too long"));
        let size = u32::try_from(content.len()).map_err(too_long)?;
        let name = u32::try_from(path.len() + 1).map_err(too_long)?;
        let (links, time, checksum) = (1, 0, 0);
        // Inode, mode, user, group, links, time, size, two device numbers, the name, a checksum.
        let fields = [self.number, mode, 0, 0, links, time, size, 0, 0, 0, 0, name, checksum];
        self.put(b"070701")?;
        for field in fields {
            self.put(format!("{field:08x}").as_bytes())?;
        }
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.align()?;
        self.put(content)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn align(&mut self) -> io::Result<()> {
        let padding = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 4][..padding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_end_is_marked() {
        let mut archive = Archive::new(Vec::new());
        archive.add("bin", Entry::Directory).unwrap();
        archive.add("bin/x", Entry::File { content: b"hello", mode: 0o755 }).unwrap();
        archive.add("y", Entry::Link("bin/x")).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let headers: Vec<usize> =
            (0..bytes.len() - 6).filter(|at| &bytes[*at..at + 6] == b"070701").collect();
        assert_eq!(headers.len(), 4);
        assert!(headers.iter().all(|at| at % 4 == 0));
        let file = headers[1];
        assert_eq!(&bytes[file + 14..file + 22], b"000081ed");
        assert_eq!(&bytes[file + 54..file + 62], b"00000005");
        assert_eq!(&bytes[file + 110..file + 116], b"bin/x\0");
        assert_eq!(&bytes[file + 116..file + 121], b"hello");
    }
}
