//! The one clock of the agent that is compared with the kernel's.

use std::time::Duration;

use blocks::MonotonicNs;

/// The kernel's monotonic clock, as the programs read it.
pub(super) fn now() -> MonotonicNs {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let time = nix::time::clock_gettime(clock).expect("the monotonic clock is always there");
    let time = Duration::from(time);
    MonotonicNs(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
