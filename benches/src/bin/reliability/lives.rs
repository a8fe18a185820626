//! The agent ends again and again while its disk is written to: killed at random moments, or ended so
//! that another build takes its place, whose programs replace those in the kernel. Nothing may be
//! lost, and nothing compared.
//!
//! Most of the disk is never written to. A comparison, and a copy from the start, read that too, so
//! the kernel's count of what was read from the disk tells whether there was one, whatever the agent
//! says. That it would tell is shown in the end by a comparison that is asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, ChunkSize, Geometry, SECTOR_SIZE};
use oracle::{Initial, Random, Verdict, Window};
use vm_tests::{
    PointChecker, PointLoad, PointLoadSpec, Rate, Rig, Target, WriterReport, differing_chunks,
    number, pinnace_binary, wait_until,
};

use crate::findings::Findings;
use crate::stage::{PATIENCE, Setting, Stage, now};

pub(crate) const KILLS: &str = "kills";
pub(crate) const UPGRADES: &str = "upgrades";

const LEN: ByteLen = ByteLen(8 << 30);
/// What is written to.
const IN_USE: ByteLen = ByteLen(32 << 20);
const RATE: Rate = Rate::PerSecond(ByteLen(6 << 20));
const SETTINGS: &str = "interval = \"100ms\"\nlog_interval = \"1s\"\n";

/// How long an agent lives at most, in milliseconds, in turn by chance: some die while they start, some in
/// the middle of an epoch, some after several.
const LIVES: [u64; 3] = [30, 150, 600];
const DEAD: u64 = 40;
/// Kills from one look whether replication goes on to the next.
const KILLS_A_ROUND: usize = 50;

const TAKEN_UP: &str = ": tracked DISK=";
const CONNECTED: &str = "the target takes epochs";
const REPLACED: &str = "were replaced by those of this build";
/// What an agent says when a disk must be compared.
const GAPS: [&str; 2] = ["has a gap", "another gap"];

/// Measures kills.
pub(crate) fn kills(rig: &Rig, wanted: usize) -> Result<Findings> {
    let mut trial = Trial::begin(rig, &pinnace_binary()?)?;
    let mut random = Random::new(43);
    for kill in 1..=wanted {
        let life = LIVES[usize::try_from(random.below(3))?];
        sleep(Duration::from_millis(random.below(life)));
        trial.stage.site.agent.kill_9()?;
        sleep(Duration::from_millis(random.below(DEAD)));
        trial.stage.site.agent.restart()?;
        if kill % KILLS_A_ROUND == 0 || kill == wanted {
            trial.look()?;
            eprintln!("  {kill} kills");
        }
    }
    let mut found = Findings::default();
    found.row("kills", wanted);
    let (taken_up, connected) = (trial.said(TAKEN_UP)?, trial.said(CONNECTED)?);
    // The first has not been restarted, and the last has not been killed.
    found.row("killed before they had taken up the disk", (wanted + 1).saturating_sub(taken_up));
    found.row("killed then, before the target took epochs", taken_up.saturating_sub(connected));
    trial.end(found)
}

/// Measures upgrades: each puts the programs of one build in the place of those of another. Of the
/// agents before them, every other one is killed.
pub(crate) fn upgrades(rig: &Rig, wanted: usize) -> Result<Findings> {
    let here = pinnace_binary()?;
    let builds = [here.clone(), here.with_file_name("pinnace-mutants")];
    ensure!(builds[1].is_file(), "no {}: cargo xtask reliability builds it", builds[1].display());
    let installed = Installed(here.with_file_name("pinnace-installed"));
    installed.put(&builds[0])?;
    let mut trial = Trial::begin(rig, &installed.0)?;
    for upgrade in 1..=wanted {
        let agent = &mut trial.stage.site.agent;
        match upgrade % 2 {
            0 => agent.kill_9()?,
            _ => drop(agent.stop(PATIENCE)?),
        }
        installed.put(&builds[upgrade % 2])?;
        agent.restart()?;
        trial.look()?;
        if upgrade % 10 == 0 {
            eprintln!("  {upgrade} upgrades");
        }
    }
    let replaced = trial.said(REPLACED)?;
    let mut found = Findings::default();
    found.at_least("agents that replaced the programs in the kernel", (replaced, wanted), 100);
    trial.end(found)
}

/// Where the agent's program is; one build after the other.
struct Installed(PathBuf);

impl Installed {
    fn put(&self, build: &Path) -> Result<()> {
        let beside = self.0.with_extension("new");
        fs::copy(build, &beside).with_context(|| format!("copying {}", build.display()))?;
        fs::rename(&beside, &self.0).context("putting it in its place")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // It is put there anew by the next run.
        let _ = fs::remove_file(&self.0);
    }
}

/// A disk in use, and what is known of it.
struct Trial {
    // Ends before its disk.
    load: Option<PointLoad>,
    stage: Stage,
    /// Sectors read before.
    read: u64,
    /// Bytes sent before.
    sent: u64,
    looks: usize,
    /// Gaps, and blocks that were found equal, of the agents that were looked at.
    gaps: u64,
    equal: u64,
}

impl Trial {
    fn begin(rig: &Rig, program: &Path) -> Result<Self> {
        let setting = Setting { program, settings: SETTINGS, mistake: None, len: LEN };
        let stage = Stage::set(rig, &setting)?;
        let target = Target::whole(0, &stage.disk).front(IN_USE);
        let load = PointLoad::start(&[target], PointLoadSpec::new(RATE), &stage.log)?;
        let (read, sent) = (stage.disk.statistics()?.sectors_read, stage.site.relay.bytes());
        Ok(Self { load: Some(load), stage, read, sent, looks: 0, gaps: 0, equal: 0 })
    }

    /// Waits until this agent has made the replica follow a little further.
    fn look(&mut self) -> Result<()> {
        let (site, name) = (&self.stage.site, self.stage.disk.name());
        site.wait_for_agent()?;
        site.wait_for_epochs(name, 1, PATIENCE)?;
        let status = site.disk(name)?;
        self.looks += 1;
        self.gaps += number(&status, "/tracking/gaps");
        self.equal += number(&status, "/sent/equal");
        Ok(())
    }

    /// How often the agents have said something.
    fn said(&self, words: &str) -> Result<usize> {
        Ok(self.stage.site.agent.log()?.matches(words).count())
    }

    /// How often they have said that a disk must be compared.
    fn gaps_said(&self) -> Result<usize> {
        GAPS.iter().map(|words| self.said(words)).sum()
    }

    /// What was read from the disk meanwhile.
    fn read(&self) -> Result<ByteLen> {
        let sectors = self.stage.disk.statistics()?.sectors_read - self.read;
        Ok(ByteLen(sectors * SECTOR_SIZE))
    }

    /// Stops the writers, and holds everything against each other.
    fn end(mut self, mut found: Findings) -> Result<Findings> {
        let WriterReport { writes, bytes } = match self.load.take() {
            Some(load) => load.stop()?,
            None => WriterReport::default(),
        };
        let (site, disk) = (&self.stage.site, &self.stage.disk);
        site.wait_for_agent()?;
        site.settle(disk, PATIENCE)?;
        let (read, sent) = (self.read()?, ByteLen(site.relay.bytes() - self.sent));
        found.row("stamped writes meanwhile", writes);
        found.row("their bytes", ByteLen(bytes));
        found.row("bytes sent", sent);
        found.row("looks at an agent's status", self.looks);
        let replica = site.replica(disk.name())?;
        let chunk = ChunkSize::DEFAULT;
        let differing = differing_chunks(disk.path(), &replica, ByteLen(chunk.bytes()))?;
        let what = "chunks of the replica that are not the disk's, byte for byte";
        found.verdict(what, differing, "none", differing == 0);
        let broken = self.against_the_log(&replica)?;
        let what = "the replica is what the writers' log says";
        found.verdict(what, broken.as_deref().unwrap_or("yes"), "yes", broken.is_none());
        let said = self.gaps_said()?;
        found.verdict("gaps in the logs of all agents", said, "none", said == 0);
        let counted = format!("{}, {}", self.gaps, ByteLen(self.equal));
        let none = self.gaps == 0 && self.equal == 0;
        found.verdict("gaps, and bytes found equal, in their status", counted, "none", none);
        let unused = ByteLen(LEN.0 - IN_USE.0);
        let what = "bytes read from the disk";
        let bar = format!("less than the {unused} that nobody wrote to");
        found.verdict(what, read, &bar, read < unused);
        let (again, gaps) = self.compare()?;
        let what = "for comparison: bytes read, and gaps said, once a comparison is asked for";
        let seen = again >= unused && gaps > said;
        found.verdict(what, format!("{again}, {}", gaps - said), "all of it, 1", seen);
        Ok(found)
    }

    /// Why the replica does not hold what the writers wrote, if it does not.
    fn against_the_log(&self, replica: &Path) -> Result<Option<String>> {
        let block = self.stage.disk.logical_block();
        let geometry = Geometry::new(IN_USE.0 / SECTOR_SIZE, block, ChunkSize::DEFAULT)?;
        let judge = PointChecker::new(&self.stage.log, &[(0, geometry)], Initial::Zeroes)?;
        Ok(match judge.judge_files(&[(0, replica)], Window::at(now()))?.verdict {
            Verdict::Valid(_) => None,
            Verdict::Invalid(why) => Some(why.to_string()),
        })
    }

    /// Asks for a comparison: what is read for it, and how many gaps were said then.
    fn compare(&self) -> Result<(ByteLen, usize)> {
        let (site, name, before) = (&self.stage.site, self.stage.disk.name(), self.read()?);
        let said = self.gaps_said()?;
        site.agent(&["resync", name, "--now"])?;
        wait_until("a comparison", PATIENCE, || Ok((self.gaps_said()? > said).then_some(())))?;
        site.wait_for_state(name, "protected", PATIENCE)?;
        Ok((ByteLen(self.read()?.0 - before.0), self.gaps_said()?))
    }
}
