//! Waiting out users that are gone in a moment.
//!
//! A lock or an exclusive device stays taken for as long as any copy of its descriptor is open. A
//! process that was just forked, by us or by the one before us, has such copies until it runs its
//! program; and tools that probe a device claim it for an instant.

use std::{
    thread,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);

/// Repeats `attempt` while `is_taken` says so of its result, for half a second at most.
pub(super) fn while_taken<T>(attempt: impl Fn() -> T, is_taken: impl Fn(&T) -> bool) -> T {
    let begun = Instant::now();
    loop {
        let result = attempt();
        if !is_taken(&result) || begun.elapsed() >= LIMIT {
            return result;
        }
        thread::sleep(PAUSE);
    }
}
