//! Limits that protect the application, and the token bucket that keeps them.
//!
//! Pure: time is the `now` argument, as the duration since some fixed start. A bucket never lets
//! more than `rate * time + burst` through in any span of time.

use std::{num::NonZeroU64, time::Duration};

/// How much of the disks the shipper may use, all disks of an engine together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes read from disks a second; none is no limit. Bytes sent are never more.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Reads issued a second; none is no limit.
    pub reads_per_second: Option<NonZeroU64>,
}

/// The I/O priority of reads, as `ionice` knows it. Schedulers other than BFQ and mq-deadline
/// ignore it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoPriority {
    /// Only when nobody else uses the disk.
    Idle,
    /// Best effort, from 0 (first) to 7 (last); more is taken as 7.
    BestEffort(u8),
}

impl IoPriority {
    /// As the kernel takes it: the class in the top three bits.
    pub(crate) fn bits(self) -> u16 {
        const CLASS_SHIFT: u16 = 13;
        match self {
            Self::BestEffort(level) => 2 << CLASS_SHIFT | u16::from(level.min(7)),
            Self::Idle => 3 << CLASS_SHIFT,
        }
    }
}

/// Tokens that come at a steady rate and are taken by the unit of work.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: NonZeroU64,
    burst: u64,
    /// Token-nanoseconds: `1e9` of them are a token.
    held: u128,
    /// Up to when tokens have come; later than now while a debt is paid.
    filled_at: Duration,
}

const SECOND: u128 = 1_000_000_000;

impl TokenBucket {
    /// A full bucket that gains `rate` tokens a second and holds up to `burst`.
    pub fn new(rate: NonZeroU64, burst: NonZeroU64, now: Duration) -> Self {
        Self { rate, burst: burst.get(), held: u128::from(burst.get()) * SECOND, filled_at: now }
    }

    /// Takes `tokens`, or says after what time they will be there. A request for more than the
    /// bucket holds is let through when it is full, and the next has to wait for the debt: so the
    /// span of the bound is `burst` or the largest request, whichever is more.
    pub fn take(&mut self, tokens: u64, now: Duration) -> Result<(), Duration> {
        self.fill(now);
        let wanted = u128::from(tokens) * SECOND;
        let needed = wanted.min(u128::from(self.burst) * SECOND);
        if self.held < needed {
            let debt = self.filled_at.saturating_sub(now);
            return Err(debt.saturating_add(self.time_for(needed - self.held)));
        }
        match self.held.checked_sub(wanted) {
            Some(left) => self.held = left,
            None => {
                let debt = wanted - self.held;
                self.held = 0;
                self.filled_at = now.saturating_add(self.time_for(debt));
            }
        }
        Ok(())
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&mut self, tokens: u64) {
        let most = u128::from(self.burst) * SECOND;
        self.held = (self.held + u128::from(tokens) * SECOND).min(most);
    }

    fn fill(&mut self, now: Duration) {
        let Some(since) = now.checked_sub(self.filled_at) else { return };
        let gained = since.as_nanos().saturating_mul(u128::from(self.rate.get()));
        self.held = self.held.saturating_add(gained).min(u128::from(self.burst) * SECOND);
        self.filled_at = now;
    }

    fn time_for(&self, token_nanos: u128) -> Duration {
        let nanos = token_nanos.div_ceil(u128::from(self.rate.get()));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The two buckets of [`Limits`].
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes: Option<TokenBucket>,
    reads: Option<TokenBucket>,
}

impl Throttle {
    /// Lets through at once what the limits allow in 100 ms, so that the rate is smooth and a
    /// sleeping thread's delay costs nothing.
    pub(crate) fn new(limits: Limits, now: Duration) -> Self {
        let bucket = |rate: NonZeroU64| {
            let burst = NonZeroU64::new(rate.get() / 10).unwrap_or(NonZeroU64::MIN);
            TokenBucket::new(rate, burst, now)
        };
        Self {
            bytes: limits.bytes_per_second.map(bucket),
            reads: limits.reads_per_second.map(bucket),
        }
    }

    /// Admits one read of `bytes`, or says how long to wait for it.
    pub(crate) fn admit(&mut self, bytes: u64, now: Duration) -> Result<(), Duration> {
        if let Some(reads) = &mut self.reads {
            reads.take(1, now)?;
        }
        let Some(bucket) = &mut self.bytes else { return Ok(()) };
        let admitted = bucket.take(bytes, now);
        if let (Err(_), Some(reads)) = (&admitted, &mut self.reads) {
            reads.give_back(1);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn non_zero(n: u64) -> NonZeroU64 {
        NonZeroU64::new(n).unwrap()
    }

    proptest! {
        #[test]
        fn no_span_of_time_sees_more_than_rate_and_burst(
            rate in 1u64..5_000_000,
            burst in 1u64..2_000_000,
            steps in prop::collection::vec((0u64..200_000_000, 0u64..1_500_000), 1..60),
        ) {
            let mut bucket = TokenBucket::new(non_zero(rate), non_zero(burst), Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut taken = Vec::new();
            for (pause, tokens) in steps {
                now += Duration::from_nanos(pause);
                match bucket.take(tokens, now) {
                    Ok(()) => taken.push((now, tokens)),
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO);
                        now += wait;
                        prop_assert_eq!(bucket.take(tokens, now), Ok(()), "the stated wait is enough");
                        taken.push((now, tokens));
                    }
                }
            }
            for from in 0..taken.len() {
                let mut sum = 0u128;
                for (at, tokens) in &taken[from..] {
                    sum += u128::from(*tokens);
                    let span = (*at - taken[from].0).as_nanos();
                    let largest = taken.iter().map(|(_, tokens)| *tokens).max().unwrap_or(0);
                    let allowed = span * u128::from(rate) / SECOND
                        + u128::from(burst.max(largest)) + u128::from(largest) + 1;
                    prop_assert!(sum <= allowed, "{sum} tokens where {allowed} are allowed");
                }
            }
        }
    }

    #[test]
    fn a_steady_user_gets_the_rate() {
        let mut bucket = TokenBucket::new(non_zero(1000), non_zero(100), Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut taken = 0;
        while now < Duration::from_secs(10) {
            match bucket.take(7, now) {
                Ok(()) => taken += 7,
                Err(wait) => now += wait,
            }
        }
        assert!((10_000..=10_107).contains(&taken), "{taken}");
    }

    #[test]
    fn a_request_above_the_burst_passes_and_is_paid_for() {
        let mut bucket = TokenBucket::new(non_zero(100), non_zero(10), Duration::ZERO);
        assert_eq!(bucket.take(110, Duration::ZERO), Ok(()));
        let wait = bucket.take(10, Duration::ZERO).unwrap_err();
        assert!(bucket.take(10, Duration::from_millis(1099)).is_err(), "debt of 100, then 10");
        assert!(wait <= Duration::from_millis(1100));
        assert_eq!(bucket.take(10, Duration::from_millis(1100)), Ok(()));
    }

    #[test]
    fn a_read_held_back_for_bytes_costs_no_read_token() {
        let limits =
            Limits { bytes_per_second: Some(non_zero(10)), reads_per_second: Some(non_zero(10)) };
        let mut throttle = Throttle::new(limits, Duration::ZERO);
        assert_eq!(throttle.admit(1, Duration::ZERO), Ok(()));
        for _ in 0..5 {
            assert_eq!(throttle.admit(1, Duration::ZERO), Err(Duration::from_millis(100)));
        }
        assert_eq!(throttle.admit(1, Duration::from_millis(100)), Ok(()));
    }

    #[test]
    fn priorities_as_the_kernel_takes_them() {
        assert_eq!(IoPriority::Idle.bits(), 3 << 13);
        assert_eq!(IoPriority::BestEffort(9).bits(), 2 << 13 | 7);
    }
}
