//! The sum of what several test programs report.

use std::fmt;

/// How many tests passed, failed and were ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Totals {
    /// Adds what a line of a test program's output reports, if it is its summary.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else { return };
        let words: Vec<&str> = result.split([' ', ';', '.']).filter(|w| !w.is_empty()).collect();
        for pair in words.windows(2) {
            let (Ok(number), word) = (pair[0].parse::<u64>(), pair[1]) else { continue };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, ignored } = self;
        write!(f, "{passed} passed, {failed} failed, {ignored} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_add_up() {
        let mut totals = Totals::default();
        for line in [
            "running 12 tests",
            "test result: ok. 11 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
             finished in 0.10s",
            "test the_result: 7 passed ... ok",
            "test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 5 filtered out; \
             finished in 12.00s",
        ] {
            totals.add_line(line);
        }
        assert_eq!(totals.to_string(), "13 passed, 3 failed, 1 skipped");
    }
}
