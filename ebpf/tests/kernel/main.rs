//! The programs on the running kernel, with real devices. Needs root.
//!
//! zram completes writes in the writer's own context, so no event is ever hidden there and tests
//! on it are exact. Where a kernel hides completions of loop devices from programs (see
//! `docs/tracking.md`), the cross-check must say so: tests on loops accept a miss only then.

mod bench;
mod capacity;
mod completeness;
mod conflicts;
mod cost;
mod discovery;
mod in_flight;
mod lifecycle;
mod marks;
mod taints;
mod upgrade;
