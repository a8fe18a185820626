//! All points of a run, in the order of their publication.
//!
//! That each is an instant does not say that they are the right instants: cuts rise, a point that
//! was asked for after an acknowledgement holds it, windows are short (a fault within the window
//! is invisible), and the newest point is never older than the RPO.

use std::time::Duration;

use blocks::MonotonicNs;

use crate::{History, Instants, Window};

/// What is asserted of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest window that a point may claim.
    pub window: Duration,
    /// How old the newest point may become: the RPO.
    pub age: Duration,
}

/// What is known of a point besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// When it was asked for: what was acknowledged before must be in it.
    pub requested: MonotonicNs,
    /// When its cut is claimed to have been.
    pub window: Window,
    /// When it could be used for the first time.
    pub published: MonotonicNs,
}

/// What a run of points breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// The claimed window is empty, or longer than the limit.
    #[error("the window of {0:?} is empty or too long")]
    Window(Published),
    /// The window ends after the publication.
    #[error("{0:?} was published before its cut")]
    Future(Published),
    /// The window begins before an acknowledgement that precedes the request.
    #[error(
        "{point:?} may lack what was acknowledged at {acknowledged:?}, before it was asked for"
    )]
    Stale {
        /// The point.
        point: Published,
        /// The acknowledgement.
        acknowledged: MonotonicNs,
    },
    /// No feasible cut of the point is at or after the cut of the point before.
    #[error("{point:?} lies before the point before it, whose cut was at {before:?} or later")]
    Backwards {
        /// The point.
        point: Published,
        /// The earliest cut of the point before.
        before: MonotonicNs,
    },
    /// There was no point that was young enough.
    #[error("at {at:?} the newest point was {age:?} old")]
    Age {
        /// When.
        at: MonotonicNs,
        /// Its age.
        age: Duration,
    },
}

/// What a run of points achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunReport {
    /// Points.
    pub points: usize,
    /// The longest window.
    pub longest_window: Duration,
    /// The greatest age that the newest point reached.
    pub oldest: Duration,
}

/// Follows a run of points.
pub struct RunChecker<'a> {
    history: &'a History,
    limits: Limits,
    /// The earliest cut that the points so far allow.
    cut: MonotonicNs,
    /// The start of the newest point's window; at first, of the run.
    newest: MonotonicNs,
    report: RunReport,
}

impl<'a> RunChecker<'a> {
    /// A run that began at `started`: before its first point, age counts from there.
    pub fn new(history: &'a History, limits: Limits, started: MonotonicNs) -> Self {
        let (cut, newest) = (MonotonicNs(0), started);
        Self { history, limits, cut, newest, report: RunReport::default() }
    }

    /// The next point, with its feasible cuts as [`crate::check`] found them.
    pub fn point(&mut self, point: Published, feasible: &Instants) -> Result<(), RunError> {
        let window = point.window;
        let length = window.latest.since(window.earliest);
        if window.is_empty() || length > self.limits.window {
            return Err(RunError::Window(point));
        }
        if point.published < window.latest {
            return Err(RunError::Future(point));
        }
        match self.history.acknowledged_by(point.requested) {
            Some(acknowledged) if window.earliest < acknowledged => {
                return Err(RunError::Stale { point, acknowledged });
            }
            _ => {}
        }
        let backwards = RunError::Backwards { point, before: self.cut };
        self.cut = feasible.first_from(self.cut).ok_or(backwards)?;
        self.age_at(point.published)?;
        self.newest = window.earliest;
        self.report.points += 1;
        self.report.longest_window = self.report.longest_window.max(length);
        Ok(())
    }

    /// The end of the run.
    pub fn finish(mut self, at: MonotonicNs) -> Result<RunReport, RunError> {
        self.age_at(at)?;
        Ok(self.report)
    }

    fn age_at(&mut self, at: MonotonicNs) -> Result<(), RunError> {
        let age = at.since(self.newest);
        self.report.oldest = self.report.oldest.max(age);
        if age > self.limits.age { Err(RunError::Age { at, age }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
