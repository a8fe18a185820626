//! What happened, as a running hash, and as lines for people where they are wanted.

use std::fmt;

use crate::rng::mix;

/// The trace of a run. Two runs of one seed have the same hash.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keeps_lines: bool) -> Self {
        Self { hash: 0, lines: keeps_lines.then(Vec::new) }
    }

    /// Notes something that happened at `now`.
    pub(crate) fn note(&mut self, now: u64, what: fmt::Arguments<'_>) {
        struct Mixer<'a>(&'a mut u64);
        impl fmt::Write for Mixer<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for part in text.as_bytes().chunks(8) {
                    let mut word = [0; 8];
                    word[..part.len()].copy_from_slice(part);
                    *self.0 = mix(*self.0 ^ u64::from_le_bytes(word));
                }
                Ok(())
            }
        }
        self.hash = mix(self.hash ^ now);
        // A hash takes anything.
        let _ = fmt::write(&mut Mixer(&mut self.hash), what);
        if let Some(lines) = &mut self.lines {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            lines.push(format!("{:>12.6} {what}", now as f64 / 1e9));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, if they were kept.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
