//! File systems held still for a cut, and the guard that sees to it that they are let go.
//!
//! A frozen file system stays frozen when whoever froze it dies. So a process of its own watches:
//! it thaws when the pipe from here closes, which the kernel does however this process ends, and
//! when the freeze has lasted too long.
//!
//! File systems are found through this process's mounts. What is stacked on a disk (partitions,
//! device-mapper, md, a file system in a file) is frozen from the top down, since to freeze one is
//! to write it, and thawed the other way round.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ebpf::device::DeviceNumber;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MlockAllFlags, mlockall};
use storage::{flush_filesystem, freeze_filesystem, thaw_filesystem};

use super::own_store::layers_above;

/// The guard is told that a freeze begins.
const BEGINS: u8 = b'f';
/// The guard is told that everything is thawed.
const OVER: u8 = b't';
/// How often the guard tries again to thaw what was not frozen yet when its time was up.
const AGAIN: Duration = Duration::from_millis(20);

/// The file systems of a set of disks, ready to be frozen.
pub(super) struct Freezer {
    /// From the top down.
    mounts: Vec<(PathBuf, File)>,
    guard: Guard,
    limit: Duration,
    since: Option<Instant>,
    /// How long they stood still, over all freezes.
    total: Duration,
}

/// The process that thaws if this one can't.
struct Guard {
    child: Child,
    told: Option<ChildStdin>,
}

impl Freezer {
    /// Finds the file systems that lie on these disks, writes what they have in memory, and starts
    /// the guard. No freeze will last longer than `limit`.
    pub(super) fn prepare(disks: &[DeviceNumber], limit: Duration) -> Result<Self> {
        let mounts = mounts_on(disks)?;
        ensure!(!mounts.is_empty(), "no file system of these disks is mounted for writing here");
        let open = |places: Vec<PathBuf>| {
            let (path, file) = open_one(places)?;
            flush_filesystem(&file).with_context(|| format!("syncing {}", path.display()))?;
            Ok((path, file))
        };
        let mounts: Vec<_> = mounts.into_iter().map(open).collect::<Result<_>>()?;
        let guard = Guard::start(mounts.iter().map(|(path, _)| path.as_path()), limit)?;
        Ok(Self { mounts, guard, limit, since: None, total: Duration::ZERO })
    }

    /// Freezes all, or none.
    pub(super) fn freeze(&mut self) -> Result<()> {
        self.guard.tell(BEGINS).context("the guard of the freeze")?;
        let since = Instant::now();
        self.since = Some(since);
        let mut frozen = Ok(());
        for (path, file) in &self.mounts {
            frozen = freeze_filesystem(file)
                .with_context(|| format!("{} can't be frozen", path.display()));
            if frozen.is_err() {
                break;
            }
        }
        if frozen.is_ok() && since.elapsed() >= self.limit {
            frozen = Err(anyhow::anyhow!("freezing took {:.1?} alone", since.elapsed()));
        }
        if frozen.is_err() {
            self.thaw();
        }
        frozen
    }

    /// Thaws what is frozen.
    pub(super) fn thaw(&mut self) {
        let Some(since) = self.since.take() else { return };
        for (_, file) in self.mounts.iter().rev() {
            // One that was not frozen, or that the guard has thawed, can't be: that is as good.
            drop(thaw_filesystem(file));
        }
        self.total += since.elapsed();
        // If the guard is gone, all is thawed in any case.
        drop(self.guard.tell(OVER));
    }

    /// How long they stood still so far, over all freezes.
    pub(super) fn total(&self) -> Duration {
        self.total
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
    }
}

impl Guard {
    fn start<'p>(mounts: impl Iterator<Item = &'p Path>, limit: Duration) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("freeze-guard")
            .arg(limit.as_millis().to_string())
            .args(mounts)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the guard of the freeze")?;
        let told = child.stdin.take();
        let mut ready = [0];
        let answer = child.stdout.take().context("the guard has no output")?.read_exact(&mut ready);
        let guard = Self { child, told };
        answer.context("the guard of the freeze did not get ready")?;
        Ok(guard)
    }

    fn tell(&mut self, what: u8) -> Result<()> {
        let told = self.told.as_mut().context("the guard has ended")?;
        Ok(told.write_all(&[what])?)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The end of the pipe ends it.
        self.told = None;
        drop(self.child.wait());
    }
}

/// Opens a file system at one of the places where it is mounted. At some of them another may be
/// mounted over it, which must not be frozen instead.
fn open_one(places: Vec<PathBuf>) -> Result<(PathBuf, File)> {
    let named = places.first().map(|place| place.display().to_string()).unwrap_or_default();
    let text = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    for place in places {
        // Of several mounts at one place the last is what is seen.
        let mut mounts = text.lines().filter_map(Mount::parse);
        let seen = mounts.rfind(|mount| mount.point == place).map(|mount| mount.device);
        let Ok(file) = File::open(&place) else { continue };
        let opened = file.metadata().context("looking at a mount")?.dev();
        let opened = (nix::sys::stat::major(opened), nix::sys::stat::minor(opened));
        // A file system with numbers of its own may have several.
        if seen.is_some_and(|seen| seen == opened || (seen.0 == 0 && opened.0 == 0)) {
            return Ok((place, file));
        }
    }
    bail!("{named} can't be reached: another file system is mounted over it")
}

/// Whether a file system that lies on one of these disks is mounted for writing.
pub(super) fn is_any_mounted(disks: &[DeviceNumber]) -> bool {
    // One that can't be found out about is found out about when it is to be frozen.
    mounts_on(disks).is_ok_and(|mounts| !mounts.is_empty())
}

/// Where the file systems that lie on one of these disks are mounted for writing, those on top of
/// others first; all places of each.
pub(super) fn mounts_on(disks: &[DeviceNumber]) -> Result<Vec<Vec<PathBuf>>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    let mut found: Vec<(usize, u64, Vec<PathBuf>)> = Vec::new();
    for mount in text.lines().filter_map(Mount::parse).filter(|mount| mount.writable) {
        let Some(device) = mount.device() else { continue };
        let above = disks.iter().filter_map(|disk| layers_above(device, *disk)).max();
        let Some(above) = above else { continue };
        match found.iter_mut().find(|(_, known, _)| *known == device) {
            Some((_, _, places)) => places.push(mount.point),
            None => found.push((above, device, vec![mount.point])),
        }
    }
    found.sort_by_key(|(above, ..)| std::cmp::Reverse(*above));
    Ok(found.into_iter().map(|(_, _, places)| places).collect())
}

/// A line of `mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: (u64, u64),
    point: PathBuf,
    source: PathBuf,
    writable: bool,
}

impl Mount {
    /// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    fn parse(line: &str) -> Option<Self> {
        let (of_mount, of_filesystem) = line.split_once(" - ")?;
        let fields: Vec<&str> = of_mount.split(' ').collect();
        let (major, minor) = fields.get(2)?.split_once(':')?;
        let mut rest = of_filesystem.split(' ').skip(1);
        let (source, options) = (rest.next()?, rest.next()?);
        Some(Self {
            device: (major.parse().ok()?, minor.parse().ok()?),
            point: unescaped(fields.get(4)?),
            source: unescaped(source),
            writable: options.split(',').any(|option| option == "rw"),
        })
    }

    /// The device it lies on. Some file systems have a number of their own, and name their device.
    fn device(&self) -> Option<u64> {
        match self.device {
            (0, _) if self.source.starts_with("/dev") => {
                fs::metadata(&self.source).ok().map(|metadata| metadata.rdev())
            }
            (0, _) => None,
            (major, minor) => Some(nix::sys::stat::makedev(major, minor)),
        }
    }
}

/// A path as `mountinfo` writes it: space, tab, line feed and backslash in octal.
fn unescaped(text: &str) -> PathBuf {
    let mut path = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        path.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                path.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                path.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    path.push_str(rest);
    path.into()
}

/// The guard's own process: thaws `mounts` when its standard input ends, or a freeze has lasted
/// `limit`.
pub(crate) fn guard(limit: Duration, mounts: &[PathBuf]) -> Result<()> {
    let mounts = mounts.iter().rev().map(File::open).collect::<Result<Vec<_>, _>>()?;
    // Its own pages may lie on what is frozen. It works without.
    let _ = mlockall(MlockAllFlags::MCL_CURRENT);
    std::io::stdout().write_all(&[OVER])?;
    std::io::stdout().flush()?;
    // Unbuffered: what was told is either read or polled for.
    let mut input = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut deadline: Option<Instant> = None;
    let thaw = || mounts.iter().for_each(|mount| drop(thaw_filesystem(mount)));
    loop {
        let now = Instant::now();
        let wait = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) if now < deadline => PollTimeout::try_from(deadline - now)?,
            Some(_) => {
                // A freeze that was not complete yet is thawed the next time.
                thaw();
                PollTimeout::try_from(AGAIN)?
            }
        };
        let mut polled = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, wait) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => {
                thaw();
                bail!("waiting: {error}");
            }
        }
        let mut told = [0];
        match input.read(&mut told) {
            Ok(0) => break,
            Ok(_) if told[0] == BEGINS => deadline = Some(Instant::now() + limit),
            Ok(_) => deadline = None,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    if deadline.is_some() {
        thaw();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_from_its_line() {
        let line = "36 35 98:0 /root /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=1";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.device, mount.writable), ((98, 0), true));
        assert_eq!(mount.point, Path::new("/mnt/a b"));
        let line = "40 35 0:21 / /mnt ro - btrfs /dev/sda2 ro,space_cache";
        assert!(!Mount::parse(line).unwrap().writable);
        assert_eq!(Mount::parse("36 35 98:0 / /mnt rw"), None);
    }
}
