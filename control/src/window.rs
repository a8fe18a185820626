//! When comparisons may begin: a window of the day, in local time, such as 18:30 to 06:00.

use std::{fmt, str::FromStr, time::Duration};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// A minute of the day, from 0 to 1439, in local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MinuteOfDay(u16);

/// When comparisons may begin that nobody has asked to begin at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResyncWindow {
    /// At any time.
    Always,
    /// From one minute of the day until another, over midnight if that is earlier.
    Daily {
        /// The first minute.
        from: MinuteOfDay,
        /// The first minute after.
        until: MinuteOfDay,
    },
    /// Never: somebody has to ask.
    Never,
}

/// Not a window.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no window; write for example \"18:30-06:00\", \"always\" or \"never\"")]
pub struct WindowError(String);

impl Default for ResyncWindow {
    /// Outside office hours, as Hyper-V Replica has it.
    fn default() -> Self {
        Self::Daily { from: MinuteOfDay(18 * 60 + 30), until: MinuteOfDay(6 * 60) }
    }
}

impl MinuteOfDay {
    /// A time of the day, if there is such a one.
    pub fn new(hour: u16, minute: u16) -> Option<Self> {
        (hour < 24 && minute < 60).then_some(Self(hour * 60 + minute))
    }
}

impl ResyncWindow {
    /// How long it is until a comparison may begin: nothing at all within the window, and no time
    /// that could be told if there is none.
    ///
    /// `second` is the second of the minute. Days are taken to have 24 hours: where clocks are
    /// changed meanwhile it is asked again.
    pub fn opens_in(self, now: MinuteOfDay, second: u16) -> Option<Duration> {
        let (from, until) = match self {
            Self::Always => return Some(Duration::ZERO),
            Self::Never => return None,
            Self::Daily { from, until } => (from.0, until.0),
        };
        let since = |minute: u16| (now.0 + DAY - minute) % DAY;
        let length = (until + DAY - from) % DAY;
        if since(from) < length {
            return Some(Duration::ZERO);
        }
        let minutes = u64::from(DAY - since(from));
        Some(Duration::from_secs(minutes * 60 - u64::from(second.min(59))))
    }
}

impl FromStr for ResyncWindow {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let error = || WindowError(text.to_owned());
        match text.trim() {
            "always" => return Ok(Self::Always),
            "never" => return Ok(Self::Never),
            _ => {}
        }
        let (from, until) = text.split_once('-').ok_or_else(error)?;
        let minute = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            let is_number =
                |text: &&str| text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_digit());
            let number = |text: &str| Some(text).filter(is_number)?.parse().ok();
            MinuteOfDay::new(number(hour)?, number(minute)?)
        };
        let (from, until) = minute(from).zip(minute(until)).ok_or_else(error)?;
        if from == until { Err(error()) } else { Ok(Self::Daily { from, until }) }
    }
}

impl fmt::Display for MinuteOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl fmt::Display for ResyncWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Daily { from, until } => write!(f, "{from}-{until}"),
            Self::Never => f.write_str("never"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(window: &str, time: (u16, u16), second: u16) -> Option<u64> {
        let window: ResyncWindow = window.parse().unwrap();
        let now = MinuteOfDay::new(time.0, time.1).unwrap();
        window.opens_in(now, second).map(|until| until.as_secs())
    }

    #[test]
    fn a_window_over_midnight_is_open_on_both_sides_of_it() {
        for time in [(18, 30), (23, 59), (0, 0), (5, 59)] {
            assert_eq!(opens("18:30-06:00", time, 17), Some(0), "{time:?}");
        }
        assert_eq!(opens("18:30-06:00", (6, 0), 0), Some((12 * 60 + 30) * 60));
        assert_eq!(opens("18:30-06:00", (18, 29), 59), Some(1));
        assert_eq!(opens("18:30-06:00", (18, 29), 60), Some(1), "a leap second");
    }

    #[test]
    fn a_window_within_a_day_opens_tomorrow() {
        assert_eq!(opens("12:00-13:00", (12, 59), 0), Some(0));
        assert_eq!(opens("12:00-13:00", (13, 0), 0), Some(23 * 3600));
        assert_eq!(opens("00:00-23:59", (23, 59), 30), Some(30));
    }

    #[test]
    fn always_and_never_are_windows_too() {
        assert_eq!(opens("always", (12, 0), 0), Some(0));
        assert_eq!(opens("never", (12, 0), 0), None);
        assert_eq!(ResyncWindow::default().to_string(), "18:30-06:00");
        assert_eq!("18:30-06:00".parse(), Ok(ResyncWindow::default()));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "18:30",
            "18:30-",
            "24:00-06:00",
            "18:60-06:00",
            "6:00-7:00",
            "05:00-05:00",
            "18:30-06:00-07:00",
            "soon",
            "+1:00-02:00",
        ] {
            assert_eq!(text.parse::<ResyncWindow>(), Err(WindowError(text.to_owned())));
        }
    }
}
