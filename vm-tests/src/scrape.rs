//! What a daemon exposes to Prometheus, scraped over real HTTP and read by the rules of its format.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::Daemon;

/// What the log says of where.
const SERVED: &str = "metrics are served listen=";

/// A page: the samples with their labels as they are written, and their values.
#[derive(Debug)]
pub struct Scraped {
    samples: BTreeMap<String, f64>,
}

impl Scraped {
    /// Scrapes a daemon that says in its log where.
    pub fn of(daemon: &Daemon) -> Result<Self> {
        let log = daemon.log()?;
        let found = log.rsplit_once(SERVED).map(|(_, rest)| rest.split_whitespace().next());
        let address = found.flatten().context("the log does not say where metrics are served")?;
        Self::read(&get(address, "/metrics")?)
    }

    /// Reads a page; an error if it breaks a rule.
    ///
    /// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4.
    fn read(page: &str) -> Result<Self> {
        let (mut samples, mut families) = (BTreeMap::new(), BTreeMap::new());
        let mut helped = "";
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped = help.split(' ').next().unwrap_or_default();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').context("a type of nothing")?;
                ensure!(helped == name, "no help for {name}");
                let twice = families.insert(name.to_owned(), kind.to_owned());
                ensure!(twice.is_none(), "{name} is there twice");
            } else {
                let (sample, value) = line.rsplit_once(' ').context("a sample without a value")?;
                let name = sample.split('{').next().unwrap_or_default();
                ensure!(is_of(&families, name), "{name} has no type that it can be of");
                let value = value.parse().with_context(|| format!("the value of {sample}"))?;
                ensure!(samples.insert(sample.to_owned(), value).is_none(), "{sample} twice");
            }
        }
        Ok(Self { samples })
    }

    /// The value of the only sample with this name and all of these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let of = |sample: &str| {
            let (has, with) = sample.split_once('{').unwrap_or((sample, ""));
            let has_label = |(key, value): &(&str, &str)| {
                let label = format!("{key}=\"{value}\"");
                with.trim_end_matches('}').split(',').any(|with| with == label)
            };
            has == name && labels.iter().all(has_label)
        };
        let mut found = self.samples.iter().filter(|(sample, _)| of(sample));
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(*value),
            (None, _) => bail!("there is no {name} with {labels:?} in {:#?}", self.samples),
            (Some(_), Some(_)) => bail!("there are several {name} with {labels:?}"),
        }
    }
}

/// Whether a sample belongs to a family whose type was told.
fn is_of(families: &BTreeMap<String, String>, name: &str) -> bool {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|suffix| {
        let family = name.strip_suffix(suffix).and_then(|family| families.get(family));
        family.is_some_and(|kind| kind == "histogram")
    });
    match families.get(name).map(String::as_str) {
        Some("counter") => name.ends_with("_total"),
        Some("gauge") => true,
        _ => of_histogram,
    }
}

/// The body of an answer whose status is 200.
fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("asking {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading the answer")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{answer}");
    ensure!(head.contains("text/plain; version=0.0.4"), "{head}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_breaks_the_rules_is_refused() {
        let good = "# HELP a_total A.\n# TYPE a_total counter\na_total{x=\"1\",y=\"2\"} 3\n";
        let read = Scraped::read(good).unwrap();
        assert_eq!(read.value("a_total", &[("y", "2")]).unwrap(), 3.0);
        assert!(read.value("a_total", &[("y", "1")]).is_err());
        for bad in [
            "a_total 3\n",
            "# TYPE a_total counter\na_total 3\n",
            "# HELP a A.\n# TYPE a counter\na 3\n",
            "# HELP a A.\n# TYPE a gauge\na 3\na 4\n",
            "# HELP a A.\n# TYPE a gauge\na x\n",
        ] {
            assert!(Scraped::read(bad).is_err(), "{bad}");
        }
    }
}
