//! How idle the machine's processors are, from the kernel's accounts.

use std::{fs, io};

/// Measures the idle share between two looks at `/proc/stat`.
#[derive(Debug, Default)]
pub(crate) struct ProcessorMeter {
    last: Option<Ticks>,
}

/// Clock ticks since boot, over all processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    total: u64,
}

impl ProcessorMeter {
    /// The share of processor time since the last call that nobody used, from 0 to 1. None the
    /// first time, or where the kernel does not tell.
    pub(crate) fn idle(&mut self) -> Option<f32> {
        let now = read().ok().flatten()?;
        let last = self.last.replace(now)?;
        let total = now.total.checked_sub(last.total).filter(|ticks| *ticks > 0)?;
        let idle = now.idle.saturating_sub(last.idle);
        Some((idle as f32 / total as f32).min(1.0))
    }
}

fn read() -> io::Result<Option<Ticks>> {
    Ok(parse(&fs::read_to_string("/proc/stat")?))
}

/// The first line: `cpu user nice system idle iowait irq softirq steal ...`.
fn parse(text: &str) -> Option<Ticks> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some(Ticks { idle, total: ticks.iter().sum() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_first_line() {
        let text = "cpu  10 1 5 80 4 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(parse(text), Some(Ticks { idle: 84, total: 100 }));
        for bad in ["", "intr 1 2 3", "cpu  1 2 x 4 5", "cpu  1 2"] {
            assert_eq!(parse(bad), None);
        }
    }
}
