//! What a benchmark found: series of figures, and verdicts on ratios of them.
//!
//! Every ratio is of two figures of one round, so that what disturbs the machine for longer than a
//! round disturbs both. The verdict is on the median.

use serde::{Deserialize, Serialize};

use benches::machine::Machine;

/// Everything one benchmark found, as it is kept in its file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) machine: Machine,
    pub(crate) series: Vec<Series>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// One thing measured once in each round.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Series {
    pub(crate) label: String,
    pub(crate) unit: Unit,
    pub(crate) values: Vec<f64>,
    pub(crate) spread: Spread,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Seconds,
    Nanoseconds,
    OperationsPerSecond,
    Mebibytes,
    MebibytesPerSecond,
    /// One figure divided by another of the same unit.
    Ratio,
}

/// Median and extremes.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// A promise held against what was measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) spread: Spread,
    pub(crate) bar: Bar,
    pub(crate) met: bool,
}

/// What a median has to reach.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Series {
    pub(crate) fn new(label: &str, unit: Unit, values: Vec<f64>) -> Self {
        Self { label: label.into(), unit, spread: Spread::of(&values), values }
    }

    /// This over `other`, round by round.
    pub(crate) fn over(&self, other: &Self) -> Vec<f64> {
        self.values.iter().zip(&other.values).map(|(this, that)| this / that).collect()
    }
}

impl Spread {
    /// The spread of `values`; not a number if there are none.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { median, min: at(0), max: at(last) }
    }
}

impl Bar {
    pub(crate) fn is_met_by(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bar) => figure >= bar,
            Self::AtMost(bar) => figure <= bar,
        }
    }
}

impl Verdict {
    pub(crate) fn new(what: &str, unit: Unit, values: &[f64], bar: Bar) -> Self {
        let spread = Spread::of(values);
        Self { what: what.into(), unit, spread, bar, met: bar.is_met_by(spread.median) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[3.0, 1.0, 9.0]).median, 3.0);
        assert_eq!(Spread::of(&[7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn a_verdict_is_on_the_median_and_nothing_measured_is_not_met() {
        let bar = Bar::AtLeast(1.0);
        assert!(Verdict::new("", Unit::Ratio, &[0.5, 1.1, 1.2], bar).met);
        assert!(!Verdict::new("", Unit::Ratio, &[0.5, 0.9, 9.0], bar).met);
        assert!(!Verdict::new("", Unit::Ratio, &[], bar).met);
        assert!(Verdict::new("", Unit::Nanoseconds, &[25.0], Bar::AtMost(25.0)).met);
    }
}
