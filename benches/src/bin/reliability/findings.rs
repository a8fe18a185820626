//! What was found, as it is kept and as it is shown.

use std::fmt::Write as _;

use benches::machine::Machine;
use serde::{Deserialize, Serialize};

/// Everything one measurement found.
#[derive(Default)]
pub(crate) struct Findings {
    /// What was counted and measured, in words.
    pub(crate) rows: Vec<Row>,
    pub(crate) verdicts: Vec<Verdict>,
    /// Every point, for the record only.
    pub(crate) points: Vec<serde_json::Value>,
}

/// One thing that was counted or measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) found: String,
}

/// A promise held against what was found.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) found: String,
    pub(crate) bar: String,
    pub(crate) met: bool,
}

/// The same with where it was found, as it is kept in a file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) points: Vec<serde_json::Value>,
}

impl Findings {
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts, as they come")]
    pub(crate) fn row(&mut self, what: &str, found: impl ToString) {
        self.rows.push(Row { what: what.into(), found: found.to_string() });
    }

    #[expect(clippy::needless_pass_by_value, reason = "as above")]
    pub(crate) fn verdict(&mut self, what: &str, found: impl ToString, bar: &str, met: bool) {
        let (what, bar) = (what.into(), bar.into());
        self.verdicts.push(Verdict { what, found: found.to_string(), bar, met });
    }

    /// A verdict on a share: so many of so many, at least this percentage.
    pub(crate) fn at_least(&mut self, what: &str, (part, whole): (usize, usize), percent: usize) {
        let met = whole > 0 && part * 100 >= whole * percent;
        let bar = if percent == 100 { "all".into() } else { format!("at least {percent} %") };
        self.verdict(what, share(part, whole), &bar, met);
    }

    pub(crate) fn at(self, name: &str) -> Record {
        let Self { rows, verdicts, points } = self;
        Record { name: name.into(), machine: Machine::here(), rows, verdicts, points }
    }
}

impl Record {
    /// Whether every bar was met.
    pub(crate) fn is_met(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.met)
    }

    /// Its tables, in Markdown.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_tables(&mut text);
        text
    }

    fn write_tables(&self, text: &mut String) -> std::fmt::Result {
        let Machine { processor, processors, memory_mebibytes, kernel, when, revision } =
            &self.machine;
        let memory = memory_mebibytes.div_ceil(1024);
        let when = when.strftime("%Y-%m-%d %H:%M UTC");
        writeln!(text, "## {}\n", self.name)?;
        writeln!(
            text,
            "{processor}, {processors} processors, {memory} GiB; Linux {kernel}; {when}; commit {revision}.\n"
        )?;
        writeln!(text, "| counted | |\n|---|---|")?;
        for Row { what, found } in &self.rows {
            writeln!(text, "| {what} | {found} |")?;
        }
        writeln!(text, "\n| asked | found | bar | |\n|---|---|---|---|")?;
        for Verdict { what, found, bar, met } in &self.verdicts {
            let met = if *met { "met" } else { "**missed**" };
            writeln!(text, "| {what} | {found} | {bar} | {met} |")?;
        }
        writeln!(text)
    }
}

/// So many of so many.
pub(crate) fn share(part: usize, whole: usize) -> String {
    format!("{part} of {whole}")
}
