//! The part of a document that a command writes.
//!
//! It stands between two marks, of which the first names the command; what people have written
//! around them is left alone. Between them stand sections, each with a heading and with when, where
//! and of what it was measured. Those that a run did not measure stay as they are.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes what `command` (as `cargo xtask bench`) has to say between its marks in a document.
///
/// # Errors
/// If the document has no marks of that command, or can't be read or written.
pub fn write(path: &Path, command: &str, tables: &str) -> Result<()> {
    let document =
        fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let written = replace(&document, command, tables)
        .with_context(|| format!("{} has no marks for the tables", path.display()))?;
    fs::write(path, written).with_context(|| format!("writing {}", path.display()))
}

/// The document with the sections of `tables` between its marks, if it has them.
fn replace(document: &str, command: &str, tables: &str) -> Option<String> {
    let begin = format!("<!-- written by {command}; what is changed here is lost -->");
    let end = format!("<!-- end of what {command} writes -->");
    let (before, rest) = document.split_once(&begin)?;
    let (old, after) = rest.split_once(&end)?;
    let mut all = sections(old);
    for section in sections(tables) {
        match all.iter_mut().find(|old| heading(old) == heading(section)) {
            Some(old) => *old = section,
            None => all.push(section),
        }
    }
    let all: String = all.iter().map(|section| format!("{section}\n\n")).collect();
    Some(format!("{before}{begin}\n\n{all}{end}{after}"))
}

/// The sections of a text; what stands before the first heading is one too.
fn sections(text: &str) -> Vec<&str> {
    let starts = text.match_indices("\n## ").map(|(at, _)| at + 1);
    let bounds: Vec<usize> = std::iter::once(0).chain(starts).chain([text.len()]).collect();
    let parts = bounds.windows(2).map(|part| text[part[0]..part[1]].trim());
    parts.filter(|part| !part.is_empty()).collect()
}

/// The heading of a section; nothing if it has none.
fn heading(section: &str) -> &str {
    section.lines().next().filter(|line| line.starts_with("## ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- written by it; what is changed here is lost -->";
    const END: &str = "<!-- end of what it writes -->";

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let document = format!("before\n{BEGIN}\n\n## a\n\nold\n\n{END}\nafter\n");
        let replaced = replace(&document, "it", "## a\n\nnew\n").unwrap();
        assert_eq!(replaced, document.replace("old", "new"));
        assert_eq!(replace(&replaced, "it", "## a\n\nnew\n").unwrap(), replaced);
        let bare = format!("{BEGIN}\n\nold\n\n{END}\n");
        assert_eq!(replace(&bare, "it", "new").unwrap(), bare.replace("old", "new"));
        assert_eq!(replace("no marks", "it", "new"), None);
        assert_eq!(replace(&document, "another", "new"), None);
    }

    #[test]
    fn what_was_not_measured_this_time_stays() {
        let document = format!("{BEGIN}\n\n## a\n\n1\n\n## b\n\n2\n\n{END}\n");
        let replaced = replace(&document, "it", "## c\n\n4\n\n## a\n\n3\n\n").unwrap();
        let wanted = format!("{BEGIN}\n\n## a\n\n3\n\n## b\n\n2\n\n## c\n\n4\n\n{END}\n");
        assert_eq!(replaced, wanted);
    }
}
