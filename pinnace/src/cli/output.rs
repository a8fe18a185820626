//! Printing: tables for people, JSON for programs.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Result;
use blocks::ByteLen;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::Format;
use crate::exit::{Exit, Failure};

/// Prints a value as JSON: `Json` over several lines, `Jsonl` on one.
pub(super) fn json(format: Format, value: &impl Serialize) -> Result<()> {
    let text = match format {
        Format::Jsonl => serde_json::to_string(value)?,
        _ => serde_json::to_string_pretty(value)?,
    };
    println!("{text}");
    Ok(())
}

/// A table without lines, as `ip` and `kubectl` print theirs.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings.iter().copied());
    table
}

/// Prints a table without the blanks at line ends.
pub(super) fn print(table: &Table) {
    for line in table.to_string().lines() {
        println!("{}", line.trim());
    }
}

/// Says what will happen, and has the user type the name of what it will happen to.
pub(super) fn confirm(what: &str, name: &str) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        let message = format!("{what} Add --yes to do it without being asked");
        return Err(Failure::new(Exit::Refused, message).into());
    }
    print!("{what} Type {name} to go on: ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() != name {
        return Err(Failure::new(Exit::Refused, "not confirmed, nothing was done").into());
    }
    Ok(())
}

/// Bytes in binary units.
pub(super) fn size(bytes: u64) -> String {
    ByteLen(bytes).to_string()
}

/// A duration in the largest unit that keeps two digits: `0.2 s`, `9 s`, `4 min`, `3 h`, `12 d`.
pub(super) fn age(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_keep_two_digits() {
        let ages = [0.04, 9.2, 240.0, 10_800.0, 1_036_800.0].map(age);
        assert_eq!(ages, ["0.0 s", "9 s", "4 min", "3 h", "12 d"]);
    }
}
