//! Lengths of time as people write them: `90s`, `15m`, `2h`, `1d`, `1w`.

use std::{fmt, str::FromStr, time::Duration};

/// A whole number of seconds that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    seconds: u64,
}

/// The longest span: a hundred years. Sums of a few of them stay far from any overflow.
const SECONDS_MAX: u64 = 100 * 366 * 86_400;

const UNITS: [(char, u64); 5] =
    [('w', 7 * 86_400), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// Text that is no span.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no length of time: a whole number and one of s, m, h, d, w, up to 100 years")]
pub struct ParseSpanError(pub String);

impl Span {
    /// So many seconds; `None` for zero, and beyond a hundred years.
    pub const fn from_secs(seconds: u64) -> Option<Self> {
        if seconds == 0 || seconds > SECONDS_MAX { None } else { Some(Self { seconds }) }
    }

    /// In seconds.
    pub const fn seconds(self) -> u64 {
        self.seconds
    }

    /// In nanoseconds.
    pub const fn nanoseconds(self) -> u64 {
        self.seconds * 1_000_000_000
    }

    /// Printed in the unit of `interval` while that reads well: `24h` beside `1h`.
    pub(crate) fn beside(self, interval: Self) -> String {
        let (unit, seconds) = interval.unit();
        let count = self.seconds / seconds;
        if self.seconds.is_multiple_of(seconds) && count < 100 {
            return format!("{count}{unit}");
        }
        self.to_string()
    }

    /// The largest unit that divides it; a week is so many days.
    fn unit(self) -> (char, u64) {
        let divides = |(_, seconds): &&(char, u64)| self.seconds.is_multiple_of(*seconds);
        *UNITS[1..].iter().find(divides).expect("a second divides it")
    }

    /// As the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl FromStr for Span {
    type Err = ParseSpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = UNITS.iter().find_map(|(unit, seconds)| {
            let digits = text.strip_suffix(*unit)?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let number: u64 = digits.parse().ok().filter(|_| plain)?;
            Self::from_secs(number.checked_mul(*seconds)?)
        });
        parsed.ok_or_else(|| ParseSpanError(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, seconds) = self.unit();
        write!(f, "{}{unit}", self.seconds / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        let shown = |text: &str| text.parse::<Span>().map(|span| span.to_string());
        for same in ["1s", "90s", "15m", "2h", "25h", "15d"] {
            assert_eq!(shown(same), Ok(same.to_owned()));
        }
        assert_eq!(shown("120m"), Ok("2h".to_owned()));
        assert_eq!(shown("1w"), Ok("7d".to_owned()));
        for bad in
            ["", "h", "0s", "-1h", "+1h", "1.5h", "1 h", "1y", "99999999999999999999s", "101w2"]
        {
            assert_eq!(shown(bad), Err(ParseSpanError(bad.to_owned())));
        }
        assert!("36600d".parse::<Span>().is_ok() && "36601d".parse::<Span>().is_err());
    }
}
