//! No write is missed: what the programs in the kernel mark, against two independent oracles.
//!
//! The writers' own log, kept outside the device, says what was written. A comparison of the whole
//! disk before and after says what really changed. Every chunk that either names must be marked.

mod files;
mod race;
mod writes;
