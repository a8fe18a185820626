//! Real programs on real disks, judged by what the writers logged and what really changed.
//!
//! The same judgement runs on this machine's kernel (tests of `vm-tests`) and in guests on others
//! (the program `guest`, which is also what a guest's kernel starts first). Two trackers that are
//! wrong on purpose show that the judgement can fail.

pub mod cell;
pub mod image;
pub mod issue_only;
pub mod passthrough;
mod paths;
pub mod race;
pub mod serve;
pub mod stack;
pub mod tracked;
