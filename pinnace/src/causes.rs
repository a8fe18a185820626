//! An error with its causes, in one line: for messages that leave the process.

use std::error::Error;

/// The error's words, then those of what caused it.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    words.join(": ")
}
