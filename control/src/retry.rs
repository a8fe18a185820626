//! When to try again after a failure.
//!
//! ```text
//!  passing       at once, 250 ms, 500 ms, 1 s, ... 16 s, and then as recoverable
//!  recoverable   1, 2, 4, 8, 10 minutes, and then every 30
//!  permanent     never: a person must act
//! ```
//!
//! A path that was lost for a moment must not wait a minute, and a store that is full is not helped
//! by being asked every second. The minutes are those of Hyper-V Replica. Waits are spread, so that
//! the agents of a target that comes back don't all come in the same moment: each is stretched by up
//! to a quarter, and never shorter than its step.
//!
//! [`Retry`] knows no clock: it says how long to wait. [`EpochRetry`] is one for a disk, whose
//! epochs may be answered out of turn.

use std::time::Duration;

use blocks::Epoch;

/// Whether, and how soon, trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// What failed may work in the next moment: a lost path, a peer that restarts.
    Passing,
    /// It may work later: no space, no memory.
    Recoverable,
    /// It can't work before a person has changed something: authentication, authorisation, a
    /// replica in an invalid state.
    Permanent,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Try again after this time.
    After(Duration),
    /// Don't try before a person says so.
    AskAPerson,
}

/// The waits after failures that may pass at once; the first is none.
const PASSING: [Duration; 8] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];

const MINUTE: Duration = Duration::from_secs(60);
/// The waits after recoverable failures, before [`LONGEST`] is the wait after each.
const MINUTES: [u32; 5] = [1, 2, 4, 8, 10];
/// The longest wait, unless a policy says less.
pub const LONGEST: Duration = Duration::from_secs(30 * 60);

/// How often something has failed in a row, and so how long to wait.
///
/// Invariant: no wait is longer than `longest` and a quarter of it.
#[derive(Clone, Debug)]
pub struct Retry {
    longest: Duration,
    /// Steps of [`PASSING`] taken.
    passing: usize,
    /// Steps of [`MINUTES`] taken.
    minutes: usize,
}

impl Retry {
    /// Nothing has failed yet. `longest` bounds every step.
    pub const fn new(longest: Duration) -> Self {
        Self { longest, passing: 0, minutes: 0 }
    }

    /// It failed once more. `random` spreads the wait: any number, a new one each time.
    pub fn handle_failure(&mut self, class: FailureClass, random: u32) -> Next {
        let step = match class {
            FailureClass::Permanent => return Next::AskAPerson,
            FailureClass::Passing if self.passing < PASSING.len() => {
                self.passing += 1;
                PASSING[self.passing - 1]
            }
            FailureClass::Passing | FailureClass::Recoverable => {
                let step = MINUTES.get(self.minutes).map_or(LONGEST, |minutes| MINUTE * *minutes);
                self.minutes += 1;
                step
            }
        };
        let step = step.min(self.longest);
        Next::After(step + (step / 4).mul_f64(f64::from(random) / f64::from(u32::MAX)))
    }

    /// It worked, or a person has it tried at once: the next failure is the first.
    pub fn handle_success(&mut self) {
        *self = Self::new(self.longest);
    }
}

/// The retry of a disk's epochs.
///
/// Several may be in flight. All of them are given up when one fails, so what is said later of
/// epochs sealed before that is no news: neither that one built on it has failed too, nor that an
/// earlier one, whose answer was on its way, is durable.
#[derive(Clone, Debug)]
pub struct EpochRetry {
    retry: Retry,
    /// The newest epoch sealed when one failed, until a later one succeeds.
    given_up: Option<Epoch>,
}

impl EpochRetry {
    /// Nothing has failed yet. `longest` bounds every wait.
    pub const fn new(longest: Duration) -> Self {
        Self { retry: Retry::new(longest), given_up: None }
    }

    /// An epoch failed; `newest` is the newest one sealed. What to do, unless it is no news.
    pub fn handle_failed(
        &mut self,
        epoch: Epoch,
        newest: Epoch,
        class: FailureClass,
        random: u32,
    ) -> Option<Next> {
        let known = self.given_up.is_some_and(|given_up| epoch <= given_up);
        if known && class != FailureClass::Permanent {
            return None;
        }
        self.given_up = self.given_up.max(Some(newest.max(epoch)));
        Some(self.retry.handle_failure(class, random))
    }

    /// The disk could not be opened, or can no longer be used.
    pub fn handle_refused(&mut self, class: FailureClass, random: u32) -> Next {
        self.retry.handle_failure(class, random)
    }

    /// An epoch is durable. Whether what failed before is over: it is if the epoch is a later one.
    pub fn handle_durable(&mut self, epoch: Epoch) -> bool {
        let over = self.given_up.is_none_or(|given_up| epoch > given_up);
        if over {
            self.handle_person();
        }
        over
    }

    /// A person has it tried at once.
    pub fn handle_person(&mut self) {
        self.given_up = None;
        self.retry.handle_success();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FailureClass::*, *};

    /// The waits of so many failures in a row, not spread.
    fn waits(class: FailureClass, failures: usize) -> Vec<Duration> {
        let mut retry = Retry::new(LONGEST);
        let mut wait = |()| match retry.handle_failure(class, 0) {
            Next::After(wait) => wait,
            Next::AskAPerson => panic!("it is not permanent"),
        };
        std::iter::repeat_n((), failures).map(&mut wait).collect()
    }

    #[test]
    fn recoverable_failures_wait_minutes_and_passing_ones_do_not_at_first() {
        let minutes = [1, 2, 4, 8, 10, 30, 30, 30].map(|minutes| MINUTE * minutes);
        assert_eq!(waits(Recoverable, 8), minutes);
        let passing = waits(Passing, 16);
        assert_eq!(passing[..3], [0, 250, 500].map(Duration::from_millis));
        assert_eq!(passing[..8].iter().sum::<Duration>(), Duration::from_millis(31_750));
        assert_eq!(passing[8..], minutes);
    }

    #[test]
    fn what_only_a_person_can_mend_is_never_tried_again() {
        let mut retry = Retry::new(LONGEST);
        for _ in 0..100 {
            assert_eq!(retry.handle_failure(Permanent, 7), Next::AskAPerson);
        }
        // And costs the others nothing.
        assert_eq!(retry.handle_failure(Passing, 7), Next::After(Duration::ZERO));
    }

    #[test]
    fn an_earlier_epoch_that_is_durable_does_not_excuse_a_later_one_that_failed() {
        let mut retry = EpochRetry::new(LONGEST);
        let first = Some(Next::After(MINUTE));
        assert!(retry.handle_durable(Epoch(3)));
        assert_eq!(retry.handle_failed(Epoch(5), Epoch(6), Recoverable, 0), first);
        assert!(!retry.handle_durable(Epoch(4)), "it was on its way before");
        assert_eq!(retry.handle_failed(Epoch(6), Epoch(6), Passing, 0), None, "built on it");
        assert!(!retry.handle_durable(Epoch(6)), "it was given up, and durable after all");
        let second = Some(Next::After(MINUTE * 2));
        assert_eq!(retry.handle_failed(Epoch(7), Epoch(7), Recoverable, 0), second);
        assert!(!retry.handle_durable(Epoch(7)));
        assert!(retry.handle_durable(Epoch(8)));
        assert_eq!(retry.handle_failed(Epoch(9), Epoch(9), Recoverable, 0), first);
        retry.handle_person();
        assert_eq!(retry.handle_failed(Epoch(9), Epoch(9), Recoverable, 0), first);
        let for_good = retry.handle_failed(Epoch(9), Epoch(9), Permanent, 0);
        assert_eq!(for_good, Some(Next::AskAPerson), "that is always news");
    }

    fn class() -> impl Strategy<Value = FailureClass> {
        prop_oneof![Just(Passing), Just(Recoverable), Just(Permanent)]
    }

    proptest! {
        #[test]
        fn waits_keep_their_bounds_and_begin_anew_after_a_success(
            failures in prop::collection::vec((class(), any::<u32>(), any::<bool>()), 1..60),
            longest in 1u64..4000,
        ) {
            let longest = Duration::from_secs(longest);
            let (mut retry, mut plain) = (Retry::new(longest), Retry::new(longest));
            for (class, random, succeeds) in failures {
                if succeeds {
                    retry.handle_success();
                    plain.handle_success();
                }
                match (retry.handle_failure(class, random), plain.handle_failure(class, 0)) {
                    (Next::After(wait), Next::After(step)) => {
                        prop_assert!(class != Permanent && step <= longest);
                        // To a nanosecond, since a float spreads it.
                        let most = step + step / 4 + Duration::from_nanos(1);
                        prop_assert!((step..=most).contains(&wait), "{wait:?} of {step:?}");
                        let first = if class == Passing { Duration::ZERO } else { MINUTE };
                        prop_assert!(!succeeds || step == first.min(longest));
                    }
                    (next, same) => {
                        prop_assert_eq!(next, same);
                        prop_assert_eq!(class, Permanent);
                    }
                }
            }
        }
    }
}
