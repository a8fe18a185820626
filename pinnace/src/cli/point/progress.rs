//! How far something is: a bar on a terminal, lines of JSON for programs that asked for them.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use crate::admin::Progress;
use crate::cli::Format;

/// Shows progress, where somebody wants to see it.
pub(super) struct Bar {
    shown: Shown,
}

enum Shown {
    Nowhere,
    Lines,
    Bar(ProgressBar),
}

impl Bar {
    pub(super) fn new(format: Format) -> Self {
        let shown = match format {
            Format::Jsonl => Shown::Lines,
            Format::Table | Format::Wide if std::io::stderr().is_terminal() => {
                let style = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
                let style = ProgressStyle::with_template(style);
                let style = style.expect("a template that was tried out");
                Shown::Bar(ProgressBar::new(0).with_style(style))
            }
            _ => Shown::Nowhere,
        };
        Self { shown }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        match &self.shown {
            Shown::Nowhere => {}
            Shown::Lines => println!("{}", serde_json::json!({ "progress": progress })),
            Shown::Bar(bar) => {
                bar.set_length(progress.total);
                bar.set_position(progress.done);
            }
        }
    }

    /// Takes the bar away, so that what is printed next begins a line.
    pub(super) fn end(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_can_be_made() {
        let style = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        assert!(ProgressStyle::with_template(style).is_ok());
    }
}
