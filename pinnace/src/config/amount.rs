//! Human sizes and durations in configuration and on the command line.

use std::str::FromStr;
use std::time::Duration;

use blocks::ByteLen;
use serde::Deserialize;

/// A size: `64 MiB`, `4k`, `1.5 GiB`, or a number of bytes. Units are binary.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Text")]
pub(crate) struct Bytes(pub(crate) ByteLen);

/// A duration: `500ms`, `5s`, `15 min`, `1h`, `1d`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Text")]
pub(crate) struct Interval(pub(crate) Duration);

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Number(u64),
    Words(String),
}

impl TryFrom<Text> for Bytes {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        match text {
            Text::Number(bytes) => Ok(Self(ByteLen(bytes))),
            Text::Words(words) => words.parse(),
        }
    }
}

impl TryFrom<Text> for Interval {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        match text {
            Text::Number(seconds) => Ok(Self(Duration::from_secs(seconds))),
            Text::Words(words) => words.parse(),
        }
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u32); 6] =
            [("", 0), ("k", 10), ("m", 20), ("g", 30), ("t", 40), ("p", 50)];
        let error = || format!("{text:?} is not a size; write for example \"64 MiB\"");
        let (number, unit) = split(text);
        let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
        let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        scaled(number, (1u64 << shift) as f64).map(|n| Self(ByteLen(n))).ok_or_else(error)
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error =
            || format!("{text:?} is not a duration; write for example \"5s\" or \"15 min\"");
        let (number, unit) = split(text);
        let millis = match unit.as_str() {
            "ms" => 1.0,
            "" | "s" | "sec" => 1e3,
            "m" | "min" => 60e3,
            "h" => 3600e3,
            "d" => 86_400e3,
            _ => return Err(error()),
        };
        scaled(number, millis).map(|n| Self(Duration::from_millis(n))).ok_or_else(error)
    }
}

fn split(text: &str) -> (&str, String) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim().to_ascii_lowercase())
}

/// `number * by`, when that is a whole amount a `u64` holds.
fn scaled(number: &str, by: f64) -> Option<u64> {
    let value = number.parse::<f64>().ok()? * by;
    // Below 2^53 a float holds whole numbers exactly; sizes here are far smaller.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked before")]
    (value.is_finite() && (0.0..9e15).contains(&value)).then_some(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_panics_and_amounts_are_whole(text in "\\PC{0,12}", number: u64, unit in "[kmgtp ]?i?b?") {
            for text in [text, format!("{number}{unit}"), format!("{number}.5{unit}")] {
                let (bytes, interval) = (text.parse::<Bytes>(), text.parse::<Interval>());
                prop_assert!(bytes.is_err() || bytes.unwrap().0.0 < 9_000_000_000_000_000);
                drop(interval);
            }
        }
    }

    #[test]
    fn sizes_and_durations_as_people_write_them() {
        let size = |text: &str| text.parse::<Bytes>().map(|bytes| bytes.0.0);
        assert_eq!(size("64 MiB"), Ok(64 << 20));
        assert_eq!(size("4k"), Ok(4096));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert_eq!(size("512"), Ok(512));
        assert!(size("4 apples").is_err() && size("").is_err() && size("-1").is_err());
        let duration = |text: &str| text.parse::<Interval>().map(|interval| interval.0.as_millis());
        assert_eq!(duration("500ms"), Ok(500));
        assert_eq!(duration("15 min"), Ok(900_000));
        assert_eq!(duration("2"), Ok(2000));
        assert!(duration("soon").is_err());
    }
}
