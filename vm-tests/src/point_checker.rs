//! Judging the points of a run whose writers have logged what they did.
//!
//! The log is indexed once, after the writers stopped: then it holds the end of every write, and
//! all points of the run can be judged by it. The chain rule over all writers goes first.

use std::{
    fs::File,
    io::{Cursor, Read, Seek, SeekFrom},
    path::Path,
};

use anyhow::{Context, Result, bail};
use blocks::{Extent, Geometry};
use oracle::{
    ChainReport, History, Initial, Layout, Observed, Verdict, Window, check, check_chains,
};

use crate::{Image, WriteLog};

/// A judge for the points of one run.
pub struct PointChecker {
    history: History,
}

/// A point that has been judged.
#[derive(Debug)]
pub struct Judged {
    /// What it is worth.
    pub verdict: Verdict,
    /// What the chain rule had to work with; `None` if the rule was broken.
    pub chains: Option<ChainReport>,
}

/// An image that can be read anywhere.
pub trait ReadAnywhere: Read + Seek {}

impl<T: Read + Seek> ReadAnywhere for T {}

impl PointChecker {
    /// A judge by what `log` holds now: its writers have stopped. `before` is what the disks held
    /// when the log began; [`Self::observe`] makes it from images.
    pub fn new(log: &WriteLog, disks: &[(u32, Geometry)], before: Initial) -> Result<Self> {
        let layout = Layout::new(log.run(), disks);
        let history = History::new(layout, before, log.iter()).context("indexing the log")?;
        Ok(Self { history })
    }

    /// What the writers did, for the rules over a run of points.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Judges a point: one image for each disk, by the run's numbering.
    pub fn judge(
        &self,
        images: &mut [(u32, &mut dyn ReadAnywhere)],
        window: Window,
    ) -> Result<Judged> {
        let observed = Self::observe(self.history.layout(), images)?;
        Ok(match check_chains(&self.history, &observed) {
            Ok(chains) => {
                let verdict = check(&self.history, &observed, window);
                Judged { verdict, chains: Some(chains) }
            }
            Err(broken) => Judged { verdict: Verdict::Invalid(broken), chains: None },
        })
    }

    /// The same for files.
    pub fn judge_files(&self, paths: &[(u32, &Path)], window: Window) -> Result<Judged> {
        let open = |(disk, path): &(u32, &Path)| {
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            Ok((*disk, file))
        };
        let mut files = paths.iter().map(open).collect::<Result<Vec<_>>>()?;
        let images = files.iter_mut().map(|(disk, file)| (*disk, file as &mut dyn ReadAnywhere));
        self.judge(&mut images.collect::<Vec<_>>(), window)
    }

    /// The same for images in memory.
    pub fn judge_images(&self, images: &[(u32, &Image)], window: Window) -> Result<Judged> {
        let mut cursors: Vec<_> =
            images.iter().map(|(disk, image)| (*disk, Cursor::new(image.bytes()))).collect();
        let images = cursors.iter_mut().map(|(disk, at)| (*disk, at as &mut dyn ReadAnywhere));
        self.judge(&mut images.collect::<Vec<_>>(), window)
    }

    /// What images hold, unit by unit.
    pub fn observe(
        layout: &Layout,
        images: &mut [(u32, &mut dyn ReadAnywhere)],
    ) -> Result<Observed> {
        Observed::read(layout, |disk, extent: Extent, buffer: &mut [u8]| {
            let Some((_, image)) = images.iter_mut().find(|(named, _)| *named == disk) else {
                bail!("there is no image of disk {disk}");
            };
            image.seek(SeekFrom::Start(extent.start.bytes()))?;
            image.read_exact(buffer).with_context(|| format!("reading {extent:?} of disk {disk}"))
        })
    }
}
