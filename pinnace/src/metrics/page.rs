//! One page of metrics.

use std::fmt;

use anyhow::Result;
use hdrhistogram::Histogram;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// The labels of a sample.
pub(crate) type Labels = Vec<(&'static str, String)>;

/// Labels from their names and values.
pub(crate) fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    labels.map(|(name, value)| (name, value.to_owned())).into()
}

/// Families of metrics. Their names begin with `pinnace_`; units are added to them, and what
/// Prometheus wants at the end of a counter's.
pub(crate) struct Page(Registry);

impl Page {
    /// A page that says which build this is.
    pub(crate) fn new() -> Self {
        let mut page = Self(Registry::with_prefix("pinnace"));
        let version = labels([("version", env!("CARGO_PKG_VERSION"))]);
        page.gauge("build_info", None, "The version of this program", [(version, 1.0)]);
        page
    }

    /// What goes up and down.
    pub(crate) fn gauge(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        self.add((name, unit, help), Samples::Gauges(samples.into_iter().collect()));
    }

    /// What only grows, until the daemon starts anew.
    pub(crate) fn counter(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        self.add((name, unit, help), Samples::Counters(samples.into_iter().collect()));
    }

    /// How what was measured is distributed.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, Distribution)>,
    ) {
        self.add((name, unit, help), Samples::Histograms(samples.into_iter().collect()));
    }

    fn add(&mut self, (name, unit, help): (&str, Option<Unit>, &str), samples: Samples) {
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, unit, samples),
            None => self.0.register(name, help, samples),
        }
    }

    /// The page in Prometheus' text format.
    ///
    /// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4.
    pub(crate) fn text(&self) -> Result<String> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// The samples of a family.
#[derive(Debug)]
enum Samples {
    Gauges(Vec<(Labels, f64)>),
    Counters(Vec<(Labels, u64)>),
    Histograms(Vec<(Labels, Distribution)>),
}

impl EncodeMetric for Samples {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Gauges(samples) => samples
                .iter()
                .try_for_each(|(labels, value)| encoder.encode_family(labels)?.encode_gauge(value)),
            Self::Counters(samples) => samples.iter().try_for_each(|(labels, value)| {
                encoder.encode_family(labels)?.encode_counter::<NoLabelSet, u64, f64>(value, None)
            }),
            Self::Histograms(samples) => samples.iter().try_for_each(|(labels, of)| {
                let mut encoder = encoder.encode_family(labels)?;
                encoder.encode_histogram::<NoLabelSet>(of.sum, of.count, &of.buckets, None)
            }),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self {
            Self::Gauges(_) => MetricType::Gauge,
            Self::Counters(_) => MetricType::Counter,
            Self::Histograms(_) => MetricType::Histogram,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Gauges(samples) => samples.is_empty(),
            Self::Counters(samples) => samples.is_empty(),
            Self::Histograms(samples) => samples.is_empty(),
        }
    }
}

/// How many of the values that were recorded lie in each range.
#[derive(Debug, PartialEq)]
pub(crate) struct Distribution {
    sum: f64,
    count: u64,
    /// The upper bounds, ascending, and how many values lie between each and the one before.
    buckets: Vec<(f64, u64)>,
}

impl Distribution {
    /// Bounds in seconds for what takes microseconds to a second.
    const MOMENTS: [f64; 13] =
        [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
    /// Bounds in seconds for what takes milliseconds to an hour.
    const SPANS: [f64; 13] =
        [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0];
    /// Bounds for how often something was tried.
    const TRIES: [f64; 8] = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0];

    /// Of microseconds, in seconds: of what is over in a moment.
    pub(crate) fn moments(micros: &Histogram<u64>) -> Self {
        Self::of(micros, 1e6, &Self::MOMENTS)
    }

    /// Of microseconds, in seconds: of what may take long.
    pub(crate) fn spans(micros: &Histogram<u64>) -> Self {
        Self::of(micros, 1e6, &Self::SPANS)
    }

    /// Of how often something was tried.
    pub(crate) fn tries(tries: &Histogram<u64>) -> Self {
        Self::of(tries, 1.0, &Self::TRIES)
    }

    /// Of values of which `parts` make the unit of the bounds. Values are as exact as the histogram
    /// keeps them.
    #[expect(clippy::cast_precision_loss, reason = "values and counts below 2^53")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small bounds")]
    fn of(values: &Histogram<u64>, parts: f64, bounds: &[f64]) -> Self {
        let through = |bound: f64| values.count_between(0, (bound * parts).round() as u64);
        let mut before = 0;
        let buckets = bounds.iter().map(|&bound| {
            let through = through(bound);
            (bound, through - std::mem::replace(&mut before, through))
        });
        let buckets = buckets.collect();
        let sum = values.iter_recorded();
        let sum =
            sum.map(|of| of.value_iterated_to() as f64 * of.count_at_value() as f64).sum::<f64>();
        Self { sum: sum / parts, count: values.len(), buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_in_the_range_they_lie_in() {
        let mut micros = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
        for value in [90, 300, 310, 2_000_000] {
            micros.record(value).unwrap();
        }
        let Distribution { sum, count, buckets } = Distribution::moments(&micros);
        assert_eq!(count, 4);
        assert!((sum - 2.0007).abs() < 0.002, "{sum}");
        let counted: Vec<_> = buckets.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [&(1e-4, 1), &(5e-4, 2)], "the longest is past the last bound");
    }

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::new();
        let disk = || labels([("disk", "a \"b\"\\")]);
        page.counter("sent", Some(Unit::Bytes), "What was sent", [(disk(), 7)]);
        let mut tries = Histogram::new_with_bounds(1, 1000, 2).unwrap();
        tries.record(2).unwrap();
        let tried = [(disk(), Distribution::tries(&tries))];
        page.histogram("attempts", None, "How often it was tried", tried);
        page.gauge("nothing", None, "Left out", []);
        let text = page.text().unwrap();
        let sample = r#"pinnace_sent_bytes_total{disk="a \"b\"\\"} 7"#;
        assert!(text.contains(sample), "{text}");
        assert!(text.contains("# TYPE pinnace_sent_bytes_total counter\n"), "{text}");
        let bucket = r#"pinnace_attempts_bucket{disk="a \"b\"\\",le="+Inf"} 1"#;
        assert!(text.contains(bucket), "{text}");
        assert!(text.contains("pinnace_build_info{version="), "{text}");
        assert!(!text.contains("nothing"), "{text}");
    }
}
