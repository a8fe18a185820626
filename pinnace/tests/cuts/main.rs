//! Recovery points made by the real binary on real disks: each is one instant, under load.
//!
//! The disks are zram, which hides nothing from tracking, and small, so that at full speed every
//! block is rewritten many times a second: at a light load a wrong cut looks like a right one.

mod frozen;
mod judge;
mod killed;
#[cfg(feature = "mutants")]
mod mistakes;
mod overload;
mod verified;
