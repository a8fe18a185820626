//! Deterministic simulation of the whole pipeline.
//!
//! The product's own cores ([`tracker`], the pure parts of [`shipper`], the sessions and frames of
//! [`wire`], the store of [`replica`]) run over simulated disks, network, storage and clock. One
//! number decides everything that happens in a run: the same seed is the same run, and its trace
//! has the same hash. `docs/simulator.md` says what is real, what is simulated, and what is not
//! covered.

mod agent;
mod checks;
mod clock;
mod conflicts;
mod content;
mod disk;
mod faults;
mod history;
mod kernel;
mod machine;
mod network;
mod rng;
mod run;
mod scenario;
mod second_opinion;
mod target;
mod trace;
mod world;

pub use run::{Keep, OnFailure, Outcome, Summary, run, run_many};
