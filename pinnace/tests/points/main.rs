//! Recovery points on a real target: listed, kept, let go, read, verified, written to files and
//! served, by the command line and by clients that nobody here wrote.
//!
//! The points come from a source made for this, which speaks the protocol over real QUIC and knows
//! every byte of every point, so that what is read can be compared with what it must be.
#![allow(clippy::unwrap_used, reason = "tests")]

mod keeping;
mod listing;
mod reading;
mod scrubbing;
mod serving;
mod site;
mod source;
#[path = "../refusals/stranger.rs"]
#[allow(dead_code, reason = "refusals need more of it")]
mod stranger;
