//! The replication policy of a machine or group.

use blocks::{ByteLen, Consistency};

use crate::{Interval, Ladder, Span, UnixNs};

/// How often points are made, how long they are kept, and what bounds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The recovery point objective: how old the newest point may become.
    pub rpo: Span,
    /// The interval of points.
    pub point_every: Span,
    /// The interval of application-consistent points; `None`: only when they are asked for.
    pub application_every: Option<Span>,
    /// Which points are kept as they age.
    pub ladder: Ladder,
    /// What bounds them.
    pub limits: Limits,
}

/// What a policy may cost the target, for each machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Points, pinned ones included.
    pub points_max: u64,
    /// Space for the changes between points; `None`: the store's own limit.
    pub journal_max: Option<ByteLen>,
}

/// A policy that can't be followed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// Points come more rarely than the objective asks for.
    #[error("a point every {point_every} can't meet an objective of {rpo}")]
    Objective {
        /// The interval.
        point_every: Span,
        /// The objective.
        rpo: Span,
    },
    /// An application-consistent point is a point, so it can't come more often.
    #[error(
        "application-consistent points every {application_every}, but points only every {point_every}"
    )]
    Application {
        /// The interval of application-consistent points.
        application_every: Span,
        /// The interval of points.
        point_every: Span,
    },
    /// The first rung keeps nothing as densely as points are made, and forgets before the next.
    #[error("the ladder `{ladder}` reaches less far than one interval of points, {point_every}")]
    Reach {
        /// The ladder.
        ladder: Ladder,
        /// The interval of points.
        point_every: Span,
    },
    /// The ladder keeps more points than the limit allows.
    #[error("the ladder keeps up to {needed} points, and the limit is {points_max}")]
    Points {
        /// What the ladder keeps.
        needed: u64,
        /// The limit.
        points_max: u64,
    },
}

/// What is to be done about points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A point of this consistency, now.
    Now(Consistency),
    /// Nothing before this time.
    At(UnixNs),
}

impl Policy {
    /// The policy itself if it can be followed.
    pub fn checked(self) -> Result<Self, PolicyError> {
        let Self { rpo, point_every, application_every, .. } = self;
        if point_every > rpo {
            return Err(PolicyError::Objective { point_every, rpo });
        }
        if let Some(application_every) = application_every.filter(|every| *every < point_every) {
            return Err(PolicyError::Application { application_every, point_every });
        }
        if self.ladder.reach() < point_every {
            return Err(PolicyError::Reach { ladder: self.ladder, point_every });
        }
        let (needed, points_max) = (self.ladder.points_max(point_every), self.limits.points_max);
        if needed > points_max {
            return Err(PolicyError::Points { needed, points_max });
        }
        Ok(self)
    }

    /// Which point is due, given the cuts of the newest point and of the newest
    /// application-consistent one. A clock that was set back makes a point due at once.
    pub fn due(
        &self,
        now: UnixNs,
        newest: Option<UnixNs>,
        newest_application: Option<UnixNs>,
    ) -> Due {
        let next = |last: Option<UnixNs>, every: Span| match last {
            Some(last) if last <= now => UnixNs(last.0.saturating_add(every.nanoseconds())),
            _ => now,
        };
        let application = self.application_every.map(|every| next(newest_application, every));
        if application.is_some_and(|at| at <= now) {
            return Due::Now(Consistency::Application);
        }
        let crash = next(newest, self.point_every);
        if crash <= now {
            return Due::Now(Consistency::Crash);
        }
        Due::At(application.map_or(crash, |at| at.min(crash)))
    }

    /// Whether every point is kept while it is young.
    pub fn keeps_all_at_first(&self) -> bool {
        self.ladder.rungs()[0].interval == Interval::All
    }
}

impl Default for Policy {
    /// An objective of 30 s, a point every 10 s, an application-consistent one every hour.
    fn default() -> Self {
        let span = |seconds| Span::from_secs(seconds).expect("not zero");
        Self {
            rpo: span(30),
            point_every: span(10),
            application_every: Some(span(3600)),
            ladder: Ladder::default(),
            limits: Limits { points_max: 10_000, journal_max: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Span {
        text.parse().unwrap()
    }

    fn seconds(at: u64) -> UnixNs {
        UnixNs(at * 1_000_000_000)
    }

    #[test]
    fn policies_that_cannot_be_followed_are_refused() {
        let good = Policy::default();
        assert_eq!(good.clone().checked(), Ok(good.clone()));
        let rare = Policy { point_every: span("31s"), ..good.clone() };
        assert!(matches!(rare.checked(), Err(PolicyError::Objective { .. })));
        let often = Policy { application_every: Some(span("9s")), ..good.clone() };
        assert!(matches!(often.checked(), Err(PolicyError::Application { .. })));
        let ladder = "all 9s".parse().unwrap();
        assert!(matches!(
            Policy { ladder, ..good.clone() }.checked(),
            Err(PolicyError::Reach { .. })
        ));
        // A point a second for two hours alone is 7200.
        let dense = Policy { point_every: span("1s"), ..good.clone() };
        assert_eq!(dense.clone().checked(), Ok(dense));
        let limits = Limits { points_max: 700, ..good.limits };
        assert!(matches!(Policy { limits, ..good }.checked(), Err(PolicyError::Points { .. })));
    }

    #[test]
    fn points_fall_due_by_their_intervals() {
        let policy = Policy::default();
        assert!(policy.keeps_all_at_first());
        let due = |now, newest: Option<u64>, application: Option<u64>| {
            policy.due(seconds(now), newest.map(seconds), application.map(seconds))
        };
        let (crash, application) = (Consistency::Crash, Consistency::Application);
        assert_eq!(due(5000, None, None), Due::Now(application));
        assert_eq!(due(5000, Some(4995), Some(4990)), Due::At(seconds(5005)));
        assert_eq!(due(5005, Some(4995), Some(4990)), Due::Now(crash));
        assert_eq!(due(5000, Some(4995), Some(1403)), Due::At(seconds(5003)));
        assert_eq!(due(5003, Some(4995), Some(1403)), Due::Now(application));
        // The clock was set back.
        assert_eq!(due(100, Some(5000), Some(90)), Due::Now(crash));
    }
}
