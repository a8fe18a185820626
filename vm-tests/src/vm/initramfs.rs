//! The first file system of a guest: programs with their libraries, modules, files.
//!
//! Programs under test lie where they expect their libraries. Programs of the [`Userland`] have a
//! loader and libraries of their own, so they are scripts that start them through it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufWriter,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    Kernel, Userland,
    cpio::{Archive, Entry},
    userland::Closure,
};

/// Where programs of the userland and their libraries lie in a guest.
const TOOLS: &str = "tools";
/// What modprobe needs beside the modules.
const INDEXES: [&str; 8] = [
    "modules.dep",
    "modules.dep.bin",
    "modules.alias",
    "modules.alias.bin",
    "modules.builtin",
    "modules.builtin.bin",
    "modules.order",
    "modules.softdep",
];

/// What a path of the guest holds.
enum Content {
    Bytes(Vec<u8>, u32),
    Host(PathBuf),
    Link(String),
}

/// An image in the making: paths without a leading slash, and what is there.
#[derive(Default)]
pub struct Initramfs {
    entries: BTreeMap<String, Content>,
}

impl Initramfs {
    /// An image with a shell and its usual programs (busybox).
    pub fn new(userland: &Userland) -> Result<Self> {
        let mut image = Self::default();
        image.entries.insert("bin/busybox".to_owned(), Content::Host(userland.find("busybox")?));
        image.link("bin/sh", "busybox");
        Ok(image)
    }

    /// Puts a program of this machine at `path`, with its libraries where it looks for them.
    pub fn program(&mut self, path: &str, program: &Path) -> Result<()> {
        let closure = Closure::of_host(program)?;
        for library in closure.libraries {
            let place = library.to_string_lossy().trim_start_matches('/').to_owned();
            self.entries.insert(place, Content::Host(library));
        }
        self.entries.insert(path.to_owned(), Content::Host(closure.program));
        Ok(())
    }

    /// Puts a program of the userland into `bin`.
    pub fn tool(&mut self, userland: &Userland, name: &str) -> Result<()> {
        let closure = userland.closure(name)?;
        for library in closure.libraries {
            let file = library.file_name().unwrap_or_default().to_string_lossy();
            self.entries.insert(format!("{TOOLS}/lib/{file}"), Content::Host(library.clone()));
        }
        self.entries.insert(format!("{TOOLS}/{name}"), Content::Host(closure.program));
        let script = format!(
            "#!/bin/sh\nexec /{TOOLS}/lib/ld-linux-x86-64.so.2 --library-path /{TOOLS}/lib \
             /{TOOLS}/{name} \"$@\"\n"
        );
        self.file(&format!("bin/{name}"), script.into_bytes(), 0o755);
        Ok(())
    }

    /// Puts modules of a kernel, and all that they need, where modprobe finds them.
    pub fn modules(&mut self, kernel: &Kernel, wanted: &[&str]) -> Result<()> {
        let directory = format!("lib/modules/{}", kernel.release());
        let indexes = INDEXES.into_iter().map(str::to_owned);
        for file in kernel.closure(wanted)?.into_iter().chain(indexes) {
            let source = kernel.modules().join(&file);
            if source.exists() {
                self.entries.insert(format!("{directory}/{file}"), Content::Host(source));
            }
        }
        Ok(())
    }

    /// Puts a file there.
    pub fn file(&mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) {
        self.entries.insert(path.to_owned(), Content::Bytes(content.into(), mode));
    }

    /// Puts a symbolic link there.
    pub fn link(&mut self, path: &str, to: &str) {
        self.entries.insert(path.to_owned(), Content::Link(to.to_owned()));
    }

    /// Lays the same out below a new directory, for a file system that is made of it.
    pub fn lay_out(&self, directory: &Path) -> Result<()> {
        for place in ["dev", "proc", "run", "sys", "tmp"] {
            fs::create_dir_all(directory.join(place)).context("laying an image out")?;
        }
        for (path, content) in &self.entries {
            let path = directory.join(path);
            let describe = || format!("making {}", path.display());
            fs::create_dir_all(path.parent().unwrap_or(directory)).with_context(describe)?;
            match content {
                Content::Bytes(content, mode) => {
                    fs::write(&path, content).with_context(describe)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
                }
                Content::Link(to) => symlink(to, &path).with_context(describe)?,
                Content::Host(source) => drop(fs::copy(source, &path).with_context(describe)?),
            }
        }
        Ok(())
    }

    /// Writes the image to a file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        let mut archive = Archive::new(BufWriter::new(file));
        let mut directories: Vec<&str> = self.entries.keys().flat_map(|path| above(path)).collect();
        directories.extend(["dev", "proc", "run", "sys", "tmp"]);
        // In this order a directory comes before what is in it.
        directories.sort_unstable();
        directories.dedup();
        for directory in directories {
            archive.add(directory, Entry::Directory)?;
        }
        for (path, content) in &self.entries {
            match content {
                Content::Bytes(content, mode) => {
                    archive.add(path, Entry::File { content, mode: *mode })?;
                }
                Content::Link(to) => archive.add(path, Entry::Link(to))?,
                Content::Host(source) => add_host_file(&mut archive, path, source)?,
            }
        }
        let out = archive.finish()?.into_inner().context("writing an image")?;
        out.sync_all().context("writing an image")
    }
}

fn add_host_file(archive: &mut Archive<BufWriter<File>>, path: &str, source: &Path) -> Result<()> {
    let describe = || format!("reading {}", source.display());
    let content = fs::read(source).with_context(describe)?;
    let mode = fs::metadata(source).with_context(describe)?.permissions().mode() & 0o777;
    archive.add(path, Entry::File { content: &content, mode })?;
    Ok(())
}

/// All directories above a path, itself not included.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_above_a_path_is_made() {
        assert_eq!(above("a/b/c").collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(above("a").count(), 0);
    }
}
