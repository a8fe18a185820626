//! An application on a file system: it creates, overwrites, syncs, renames, deletes and trims.
//!
//! A file is durable when it was written under another name, synced, renamed, and its directory
//! synced. From then on its content must be found in every later recovery point, until the
//! workload announces (before it does so) that it will delete or replace the file.
//! The list of what is durable is kept outside of the file system.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use crate::{Fill, Random, Stamp, devices::trim};

const NAMES: u64 = 64;
const LARGEST_SECTORS: u64 = 512;

/// The files that must be whole, by name: their content's version and length in sectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durable(pub BTreeMap<String, (u64, u64)>);

/// How hard the workload works.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// A pause after each step.
    pub pause: Duration,
    /// The free space is trimmed every so many steps.
    pub trim_every: u64,
}

impl Default for Pace {
    /// As hard as it can.
    fn default() -> Self {
        Self { pause: Duration::ZERO, trim_every: 128 }
    }
}

/// What the workload did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkloadReport {
    /// Files written and made durable.
    pub written: u64,
    /// Files deleted.
    pub deleted: u64,
    /// Writes within existing scratch files.
    pub overwritten: u64,
}

/// The application at work. Dropped, it is stopped and waited for.
pub struct FileWorkload {
    stop: Arc<AtomicBool>,
    durable: Arc<Mutex<Durable>>,
    thread: Option<JoinHandle<Result<WorkloadReport>>>,
}

impl FileWorkload {
    /// Starts on a mounted file system; stops by [`Self::finish`] or after `steps`.
    pub fn start(root: &Path, seed: u64, steps: u64) -> Result<Self> {
        Self::start_at(root, seed, steps, Pace::default())
    }

    /// The same, at a pace of its own.
    pub fn start_at(root: &Path, seed: u64, steps: u64, pace: Pace) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let durable = Arc::new(Mutex::new(Durable::default()));
        let mut application = Application {
            root: root.to_owned(),
            random: Random::new(seed),
            version: 0,
            durable: Arc::clone(&durable),
            report: WorkloadReport::default(),
            trim_every: pace.trim_every,
        };
        let stopped = Arc::clone(&stop);
        let run = move || {
            for step in 0..steps {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                application.step(step)?;
                if !pace.pause.is_zero() {
                    std::thread::sleep(pace.pause);
                }
            }
            Ok(application.report)
        };
        let thread = std::thread::Builder::new().name("files".into()).spawn(run)?;
        Ok(Self { stop, durable, thread: Some(thread) })
    }

    /// What must be whole in every point whose cut lies after this call.
    ///
    /// A file that the workload is replacing or deleting meanwhile is not in the list.
    pub fn durable(&self) -> Durable {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops after the step it is at.
    pub fn stop(mut self) -> Result<(WorkloadReport, Durable)> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until all steps are done.
    pub fn finish(mut self) -> Result<(WorkloadReport, Durable)> {
        self.join()
    }

    fn join(&mut self) -> Result<(WorkloadReport, Durable)> {
        let report = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(report)) => report?,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => WorkloadReport::default(),
        };
        Ok((report, self.durable()))
    }
}

impl Drop for FileWorkload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its result was not asked for.
            let _ = thread.join();
        }
    }
}

impl Durable {
    /// Checks that every file is in `root`, whole and of its version.
    pub fn check(&self, root: &Path) -> Result<()> {
        for (name, (version, sectors)) in &self.0 {
            let path = root.join(name);
            let bytes = fs::read(&path).with_context(|| format!("reading {name}"))?;
            let wanted = content(*version, *sectors);
            ensure!(bytes == wanted, "{name} is not version {version} of {sectors} sectors");
        }
        Ok(())
    }
}

struct Application {
    root: PathBuf,
    random: Random,
    version: u64,
    durable: Arc<Mutex<Durable>>,
    report: WorkloadReport,
    trim_every: u64,
}

impl Application {
    fn step(&mut self, step: u64) -> Result<()> {
        if step % self.trim_every == self.trim_every - 1 {
            return self.trim();
        }
        match self.random.below(8) {
            0 => self.delete(),
            1 | 2 => self.overwrite(),
            _ => self.replace(),
        }
    }

    /// Writes a file aside, syncs it, renames it into place, syncs the directory.
    fn replace(&mut self) -> Result<()> {
        let name = self.name();
        self.version += 1;
        let sectors = 1 + self.random.below(LARGEST_SECTORS);
        let aside = self.root.join(format!("{name}.new"));
        let file = File::create(&aside).context("creating a file")?;
        file.write_all_at(&content(self.version, sectors), 0).context("writing a file")?;
        file.sync_all().context("syncing a file")?;
        self.forget(&name);
        fs::rename(&aside, self.root.join(&name)).context("renaming a file")?;
        self.sync_directory()?;
        self.edit(|durable| durable.0.insert(name, (self.version, sectors)));
        self.report.written += 1;
        Ok(())
    }

    fn delete(&mut self) -> Result<()> {
        let name = self.name();
        self.forget(&name);
        match fs::remove_file(self.root.join(&name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("deleting a file");
            }
            Err(_) => {}
            Ok(()) => self.report.deleted += 1,
        }
        self.sync_directory()
    }

    /// Writes somewhere in a scratch file, synced every other time.
    fn overwrite(&mut self) -> Result<()> {
        let path = self.root.join("scratch");
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.context("opening the scratch file")?;
        self.version += 1;
        let place = self.random.below(16 * LARGEST_SECTORS) * blocks::SECTOR_SIZE;
        let sectors = 1 + self.random.below(64);
        file.write_all_at(&content(self.version, sectors), place).context("overwriting")?;
        if self.version.is_multiple_of(2) {
            file.sync_data().context("syncing the scratch file")?;
        }
        self.report.overwritten += 1;
        Ok(())
    }

    fn trim(&self) -> Result<()> {
        match trim(&File::open(&self.root).context("opening the root")?) {
            // Not every device can discard.
            Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(error) => Err(error).context("trimming"),
        }
    }

    fn sync_directory(&self) -> Result<()> {
        File::open(&self.root)?.sync_all().context("syncing the directory")
    }

    fn name(&mut self) -> String {
        format!("file-{:02}", self.random.below(NAMES))
    }

    fn forget(&self, name: &str) {
        self.edit(|durable| durable.0.remove(name));
    }

    fn edit<T>(&self, edit: impl FnOnce(&mut Durable) -> T) {
        edit(&mut self.durable.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn content(version: u64, sectors: u64) -> Vec<u8> {
    let bytes = usize::try_from(sectors * blocks::SECTOR_SIZE).expect("a file fits memory");
    let mut content = vec![0; bytes];
    let fill = if version.is_multiple_of(4) { Fill::Repeating } else { Fill::Random };
    let (sector, write) = (0, version);
    let stamp =
        Stamp { run: 0, disk: 0, stream: 0, sector, write, index: 0, fill, acknowledged: 0 };
    stamp.stamp(&mut content);
    content
}
