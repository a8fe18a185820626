//! The part of a document that a command writes.
//!
//! It stands between two marks, of which the first names the command; what people have written
//! around them is left alone.

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

/// The document with `tables` between its marks, if it has them.
fn replace(document: &str, command: &str, tables: &str) -> Option<String> {
    let begin = format!("<!-- written by {command}; what is changed here is lost -->");
    let end = format!("<!-- end of what {command} writes -->");
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{tables}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let begin = "<!-- written by it; what is changed here is lost -->";
        let end = "<!-- end of what it writes -->";
        let document = format!("before\n{begin}\nold\n{end}\nafter\n");
        let replaced = replace(&document, "it", "new\n").unwrap();
        assert_eq!(replaced, format!("before\n{begin}\n\nnew\n{end}\nafter\n"));
        assert_eq!(replace(&replaced, "it", "new\n").unwrap(), replaced);
        assert_eq!(replace("no marks", "it", "new"), None);
        assert_eq!(replace(&document, "another", "new"), None);
    }
}
