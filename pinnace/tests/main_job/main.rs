//! The main job, done by the real binary: disks that are written to without pause have a replica
//! that follows, whatever is killed, cut or paused, and in the end both are the same.
//!
//! A zram disk hides nothing from tracking, so there nothing may ever open a gap. On a loop disk
//! the cross-check may find writes that no program saw; the comparison that follows mends it.

mod cycles;
mod gaps;
mod generations;
mod identity;
mod interrupted;
mod lifecycle;
mod metrics;
mod resync;
mod subject;
