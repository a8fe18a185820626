//! The tables in the document on performance.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use benches::document;

use crate::record::{Bar, Record, Spread, Unit, Verdict};

const COMMAND: &str = "cargo xtask bench";

/// Writes the tables of `records` between the marks of a document.
pub(crate) fn write(path: &Path, records: &[Record]) -> Result<()> {
    document::write(path, COMMAND, &tables(records))
}

/// A verdict in one line.
pub(crate) fn line(verdict: &Verdict) -> String {
    let Verdict { what, unit, spread, bar, met } = verdict;
    let met = if *met { "met" } else { "MISSED" };
    format!("{} {what}: {met} ({})", figure(spread.median, *unit), bar_words(*bar, *unit))
}

fn tables(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records {
        // Writing to a string does not fail.
        let _ = write_record(&mut text, record);
    }
    text
}

fn write_record(text: &mut String, record: &Record) -> std::fmt::Result {
    let machine = &record.machine;
    let lens = || record.series.iter().map(|series| series.values.len());
    let (fewest, most) = (lens().min().unwrap_or(0), lens().max().unwrap_or(0));
    let figures = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
    writeln!(text, "## {}\n", record.name)?;
    writeln!(
        text,
        "{}, {} processors, {} GiB; Linux {}; {}; commit {}; figures a row: {figures}.\n",
        machine.processor,
        machine.processors,
        machine.memory_mebibytes.div_ceil(1024),
        machine.kernel,
        machine.when.strftime("%Y-%m-%d %H:%M UTC"),
        machine.revision,
    )?;
    writeln!(text, "| measured | median | min to max |\n|---|---:|---:|")?;
    for series in &record.series {
        let (median, range) = cells(series.spread, series.unit);
        writeln!(text, "| {} | {median} | {range} |", series.label)?;
    }
    writeln!(text, "\n| promised | median | min to max | bar | |\n|---|---:|---:|---:|---|")?;
    for verdict in &record.verdicts {
        let (median, range) = cells(verdict.spread, verdict.unit);
        let bar = bar_words(verdict.bar, verdict.unit);
        let met = if verdict.met { "met" } else { "**missed**" };
        writeln!(text, "| {} | {median} | {range} | {bar} | {met} |", verdict.what)?;
    }
    writeln!(text)
}

fn cells(spread: Spread, unit: Unit) -> (String, String) {
    let Spread { median, min, max } = spread;
    (figure(median, unit), format!("{} to {}", figure(min, unit), figure(max, unit)))
}

fn bar_words(bar: Bar, unit: Unit) -> String {
    match bar {
        Bar::AtLeast(value) => format!("at least {}", figure(value, unit)),
        Bar::AtMost(value) => format!("at most {}", figure(value, unit)),
    }
}

fn figure(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds => format!("{value:.3} s"),
        Unit::Nanoseconds => format!("{value:.1} ns"),
        Unit::OperationsPerSecond => format!("{value:.0} /s"),
        Unit::Mebibytes => format!("{value:.1} MiB"),
        Unit::MebibytesPerSecond => format!("{value:.0} MiB/s"),
        Unit::Ratio => format!("{value:.2}"),
    }
}
