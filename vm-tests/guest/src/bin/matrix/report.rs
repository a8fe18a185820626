//! The table: what came of every cell.

use std::fmt;

use vm_guest::cell::{Case, Counts, Verdict, Work};
use vm_tests::vm::{Kernel, Series};

use crate::cases::{Extent, must_be_refused};

/// What came of a case.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    /// Tracked, and these were the counts.
    Tracked(Counts),
    /// Refused in these words, and whether that had to be.
    Refused { words: String, rightly: bool },
    /// A race that must lose nothing.
    Raced { writes: u64, stale: u64 },
    /// A control, which must have been caught; how much was found missing.
    Control { missing: u64 },
    /// A command past the block layer: seen or not, and whether the disk was tainted.
    Passthrough { missed: u64, taints: String },
    /// It did not run to its end.
    Broken(String),
}

impl Row {
    /// What a verdict on a case comes to, on a kernel of this series.
    pub(crate) fn of(series: Series, case: &Case, verdict: Verdict) -> Self {
        match (case.work, verdict) {
            (Work::Passthrough { .. }, Verdict::Tracked(counts)) => {
                Self::Passthrough { missed: counts.missed, taints: counts.taints }
            }
            (_, Verdict::Tracked(counts)) => Self::Tracked(counts),
            (_, Verdict::Refused(words)) => {
                Self::Refused { words, rightly: must_be_refused(series, case.kind) }
            }
        }
    }

    pub(crate) fn raced(writes: u64, stale: u64) -> Self {
        Self::Raced { writes, stale }
    }

    pub(crate) fn control(missing: u64) -> Self {
        Self::Control { missing }
    }

    fn failed(&self) -> bool {
        match self {
            // What could be tracked and is not is as useless as what is tracked wrongly.
            Self::Refused { rightly, .. } => !rightly,
            Self::Tracked(counts) => {
                counts.missed > 0 || counts.deficit != 0 || !counts.taints.is_empty()
            }
            Self::Raced { stale, .. } => *stale > 0,
            Self::Control { missing } => *missing == 0,
            // A change must not go by in silence, nor must a read cause alarm.
            Self::Passthrough { missed, taints } => taints.is_empty() != (*missed == 0),
            Self::Broken(_) => true,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.failed() {
            write!(f, "FAILED: ")?;
        }
        match self {
            Self::Refused { words, .. } => write!(f, "refused: {words}"),
            Self::Tracked(counts) => {
                let (writes, missed, beyond) = (counts.writes, counts.missed, counts.beyond);
                write!(f, "{writes} writes, {missed} missed, {beyond} beyond")?;
                if counts.deficit != 0 {
                    write!(f, ", {} sectors unseen", counts.deficit)?;
                }
                if counts.merged_discards > 0 {
                    write!(f, ", {} discards merged", counts.merged_discards)?;
                }
                if counts.missed > 0 {
                    let (logged, changed, marked) = (counts.logged, counts.changed, counts.marked);
                    write!(f, " ({logged} logged, {changed} changed, {marked} marked)")?;
                }
                if !counts.taints.is_empty() {
                    write!(f, ", tainted: {}", counts.taints)?;
                }
                Ok(())
            }
            Self::Raced { writes, stale } => write!(f, "{writes} writes, {stale} lost"),
            Self::Control { missing } => write!(f, "caught ({missing} chunks)"),
            Self::Passthrough { taints, .. } if taints.is_empty() => write!(f, "no taint"),
            Self::Passthrough { taints, .. } => write!(f, "tainted: {taints}"),
            Self::Broken(why) => write!(f, "{why}"),
        }
    }
}

/// Rows by case, columns by kernel.
pub(crate) struct Table {
    extent: Extent,
    qemu: String,
    kernels: Vec<(Series, String, String)>,
    rows: Vec<(String, Vec<Option<Row>>)>,
}

impl Table {
    pub(crate) fn new(extent: Extent, qemu: &str) -> Self {
        Self { extent, qemu: qemu.to_owned(), kernels: Vec::new(), rows: Vec::new() }
    }

    /// A new column.
    pub(crate) fn kernel(&mut self, series: Series, kernel: &Kernel) {
        let (release, version) = (kernel.release().to_owned(), kernel.version().to_owned());
        self.kernels.push((series, release, version));
        self.rows.iter_mut().for_each(|(_, cells)| cells.push(None));
    }

    /// A cell of the newest column.
    pub(crate) fn row(&mut self, name: String, row: Row) {
        let columns = self.kernels.len();
        let at = self.rows.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.rows.push((name, vec![None; columns]));
            self.rows.len() - 1
        });
        self.rows[at].1[columns - 1] = Some(row);
    }

    pub(crate) fn failed(&self) -> usize {
        self.cells().filter(|row| row.failed()).count()
    }

    /// One line for the end of a run.
    pub(crate) fn summary(&self) -> String {
        let (all, failed) = (self.cells().count(), self.failed());
        format!("{} passed, {failed} failed", all - failed)
    }

    fn cells(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().flat_map(|(_, cells)| cells.iter().flatten())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = match self.extent {
            Extent::Full => "cargo xtask vm --table --full",
            Extent::Subset => "cargo xtask vm --table",
        };
        writeln!(f, "# Kernels and devices\n\nWritten by `{command}`. {HEAD}")?;
        for (series, release, version) in &self.kernels {
            writeln!(f, "- {series}: `{release}`, package version {version}")?;
        }
        writeln!(f, "- QEMU: package version {}\n", self.qemu)?;
        let names = self.kernels.iter().map(|(series, ..)| series.to_string());
        writeln!(f, "| disk and work | {} |", names.collect::<Vec<_>>().join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(self.kernels.len()))?;
        for (name, cells) in &self.rows {
            let cells =
                cells.iter().map(|cell| cell.as_ref().map_or("-".to_owned(), Row::to_string));
            writeln!(f, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "))?;
        }
        Ok(())
    }
}

const HEAD: &str = "\
Each kernel is Debian's, booted in a virtual
machine; each cell is a disk of a kind that is tracked while it is written in every way (direct, io_uring, buffered, mapped, discard,
write zeroes; or by an application on a file system mounted with online discard).

*Missed* counts chunks that the writers' own log names, or that a comparison of the whole disk before and after finds different, and
that were not marked: it must be 0. *Beyond* counts chunks that were marked and that neither names: file systems and drivers write
more than an application asked for, and discard what is free. A control is a tracker that is wrong on purpose; it must be caught.
*Passthrough* is a command past the block layer, which has no place on the disk: one that writes must taint the disk, which leads to
a comparison, and one that reads must not. *Lockdown* is the kernel's mode `confidentiality`. Discards that were merged into others
make requests of several ranges. The programs' count of sectors must equal the kernel's own in every cell.
";

#[cfg(test)]
mod tests {
    use vm_guest::{passthrough::Command, stack::Kind};

    use super::*;

    fn counts(missed: u64, deficit: i64, taints: &str) -> Counts {
        Counts {
            writes: 10,
            logged: 5,
            changed: 5,
            marked: 5,
            missed,
            beyond: 0,
            deficit,
            taints: taints.to_owned(),
            merged_discards: 0,
        }
    }

    #[test]
    fn what_is_missed_or_miscounted_or_tainted_fails() {
        let failed = |counts| Row::Tracked(counts).failed();
        assert!(!failed(counts(0, 0, "")));
        assert!(failed(counts(1, 0, "")) && failed(counts(0, 8, "")));
        assert!(failed(counts(0, -8, "")) && failed(counts(0, 0, "unmatched completion")));
    }

    #[test]
    fn only_what_must_be_refused_may_be() {
        let work = Work::Raw { writes: 1 };
        let refused = |series, kind| {
            let case = Case { kind, work, bytes: 0, blind: false };
            Row::of(series, &case, Verdict::Refused("too old".to_owned())).failed()
        };
        assert!(!refused(Series::Bullseye, Kind::VirtioBlk));
        assert!(!refused(Series::Bookworm, Kind::Zram));
        assert!(refused(Series::Trixie, Kind::Zram) && refused(Series::Newest, Kind::VirtioBlk));
    }

    #[test]
    fn a_control_that_is_not_caught_fails() {
        assert!(Row::control(0).failed() && !Row::control(1).failed());
        assert!(Row::raced(1000, 1).failed() && !Row::raced(1000, 0).failed());
    }

    #[test]
    fn a_passthrough_is_tainted_exactly_if_it_writes() {
        let work = Work::Passthrough { command: Command::Write };
        let case = Case { kind: Kind::Nvme, work, bytes: 0, blind: false };
        let failed = |counts| Row::of(Series::Trixie, &case, Verdict::Tracked(counts)).failed();
        assert!(failed(counts(1, 0, "")) && !failed(counts(1, 0, "passthrough command")));
        assert!(failed(counts(0, 0, "passthrough command")) && !failed(counts(0, 0, "")));
    }
}
