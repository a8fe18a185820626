//! The two images of [`super::FaultyStorage`] and the changes between them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::Fate;

/// The number of an inode. They are never reused, so that open files outlive their names.
pub(super) type InodeNumber = usize;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A file.
    File(InodeNumber),
    /// A directory.
    Dir,
}

type Names = BTreeMap<String, Node>;

/// All files and directories, as seen and as durable.
#[derive(Debug, Default)]
pub(super) struct Image {
    inodes: Vec<Inode>,
    seen: Names,
    durable: Names,
    unflushed: Vec<NameChange>,
}

#[derive(Clone, Debug)]
struct NameChange {
    path: String,
    /// Nothing: the name goes.
    node: Option<Node>,
}

impl Image {
    pub(super) fn lookup(&self, path: &str) -> Option<Node> {
        if path.is_empty() { Some(Node::Dir) } else { self.seen.get(path).copied() }
    }

    pub(super) fn inode(&mut self, inode: InodeNumber) -> &mut Inode {
        &mut self.inodes[inode]
    }

    pub(super) fn new_inode(&mut self) -> InodeNumber {
        self.inodes.push(Inode::default());
        self.inodes.len() - 1
    }

    /// Gives `path` to `node`; its directory must exist.
    pub(super) fn link(&mut self, path: &str, node: Node) -> io::Result<()> {
        if self.lookup(parent(path)) != Some(Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change_name(path, Some(node));
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &str) {
        self.change_name(path, None);
    }

    pub(super) fn list(&self, dir: &str) -> io::Result<BTreeSet<String>> {
        if self.lookup(dir) != Some(Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let children = self.seen.keys().filter(|path| parent(path) == dir);
        Ok(children.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    pub(super) fn sync_dir(&mut self, dir: &str) {
        let (flushed, rest) =
            self.unflushed.drain(..).partition(|change| parent(&change.path) == dir);
        self.unflushed = rest;
        let flushed: Vec<NameChange> = flushed;
        flushed.iter().for_each(|change| apply_name(&mut self.durable, change));
    }

    pub(super) fn unflushed(&self) -> usize {
        self.unflushed.len() + self.inodes.iter().map(|inode| inode.unflushed.len()).sum::<usize>()
    }

    /// The image that a crash leaves: what is durable, and the unflushed changes of which `fate`
    /// says so. Names are asked for first, then the files in the order they were created.
    pub(super) fn after_crash(&self, mut fate: impl FnMut(usize) -> Fate) -> Self {
        let mut number = 0;
        let mut next = || {
            number += 1;
            fate(number - 1)
        };
        let mut names = self.durable.clone();
        for change in &self.unflushed {
            if next() == Fate::Kept {
                apply_name(&mut names, change);
            }
        }
        let inodes = self.inodes.iter().map(|inode| inode.after_crash(&mut next)).collect();
        // What stands in a directory whose own name was lost is lost with it. Parents sort before
        // their children.
        let mut reachable = Names::new();
        for (path, node) in names {
            let dir = parent(&path);
            if dir.is_empty() || reachable.get(dir) == Some(&Node::Dir) {
                reachable.insert(path, node);
            }
        }
        Self { inodes, seen: reachable.clone(), durable: reachable, unflushed: Vec::new() }
    }

    fn change_name(&mut self, path: &str, node: Option<Node>) {
        let change = NameChange { path: path.to_owned(), node };
        apply_name(&mut self.seen, &change);
        self.unflushed.push(change);
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn apply_name(names: &mut Names, change: &NameChange) {
    match change.node {
        Some(node) => names.insert(change.path.clone(), node),
        None => names.remove(&change.path),
    };
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// These bytes from this offset.
    Write { offset: u64, bytes: Vec<u8> },
    /// Zeroes, within the file.
    Zero { offset: u64, len: u64 },
    /// Another length.
    SetLen(u64),
}

/// The bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unflushed: Vec<Change>,
}

impl Inode {
    pub(super) fn seen(&self) -> &[u8] {
        &self.seen
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.unflushed.push(change);
    }

    pub(super) fn sync(&mut self) {
        self.unflushed.drain(..).for_each(|change| change.apply(&mut self.durable));
    }

    /// Every other change reaches the medium; the rest will not, whatever is synced later.
    pub(super) fn fail_sync(&mut self) {
        self.unflushed.drain(..).step_by(2).for_each(|change| change.apply(&mut self.durable));
    }

    pub(super) fn drop_cache(&mut self) {
        self.seen.clone_from(&self.durable);
        self.unflushed.iter().for_each(|change| change.apply(&mut self.seen));
    }

    fn after_crash(&self, fate: &mut impl FnMut() -> Fate) -> Self {
        let mut durable = self.durable.clone();
        for change in &self.unflushed {
            match (fate(), change) {
                (Fate::Kept, change) => change.apply(&mut durable),
                (Fate::Torn { bytes: len }, Change::Write { offset, bytes }) => {
                    let bytes = bytes[..len.min(bytes.len())].to_vec();
                    Change::Write { offset: *offset, bytes }.apply(&mut durable);
                }
                (Fate::Dropped | Fate::Torn { .. }, _) => {}
            }
        }
        Self { seen: durable.clone(), durable, unflushed: Vec::new() }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        let index = |at: u64| usize::try_from(at).expect("test files are small");
        match self {
            Self::Write { bytes, .. } if bytes.is_empty() => {}
            Self::Write { offset, bytes } => {
                let start = index(*offset);
                let end = start + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[start..end].copy_from_slice(bytes);
            }
            Self::Zero { offset, len } => {
                let end = index(offset + len).min(content.len());
                let start = index(*offset).min(end);
                content[start..end].fill(0);
            }
            Self::SetLen(len) => content.resize(index(*len), 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_is_seen_until_the_cache_is_dropped() {
        let mut inode = Inode::default();
        inode.change(Change::SetLen(4));
        inode.sync();
        inode.change(Change::Write { offset: 0, bytes: b"ab".to_vec() });
        inode.change(Change::Write { offset: 2, bytes: b"cd".to_vec() });
        inode.fail_sync();
        inode.sync();
        assert_eq!(inode.seen(), b"abcd");
        inode.drop_cache();
        assert_eq!(inode.seen(), b"ab\0\0");
    }

    #[test]
    fn names_and_bytes_are_durable_apart() {
        let mut image = Image::default();
        let file = image.new_inode();
        image.link("file", Node::File(file)).unwrap();
        image.inode(file).change(Change::Write { offset: 0, bytes: b"x".to_vec() });
        image.inode(file).sync();
        assert_eq!(image.after_crash(|_| Fate::Dropped).lookup("file"), None);
        let mut kept = image.after_crash(|_| Fate::Kept);
        assert_eq!(kept.lookup("file"), Some(Node::File(file)));
        assert_eq!(kept.inode(file).seen(), b"x");
        image.sync_dir("");
        image.unlink("file");
        assert!(image.after_crash(|_| Fate::Dropped).lookup("file").is_some());
    }

    #[test]
    fn children_of_a_lost_directory_are_lost() {
        let mut image = Image::default();
        image.link("dir", Node::Dir).unwrap();
        let file = image.new_inode();
        image.link("dir/file", Node::File(file)).unwrap();
        image.sync_dir("dir");
        assert_eq!(image.after_crash(|_| Fate::Dropped).lookup("dir/file"), None);
        assert!(image.link("other/file", Node::File(file)).is_err());
    }
}
