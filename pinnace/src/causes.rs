//! An error with its causes, in one line: for messages that leave the process.

use std::error::Error;

/// The error's words, then those of what caused it.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut words = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push(error.to_string());
        cause = error.source();
    }
    words.join(": ")
}
