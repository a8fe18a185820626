//! Events that are lost on purpose, and agents that are killed: each loss is found within a cycle
//! and mended by a comparison, what is no loss costs none, and in the end the replica is the disk,
//! byte for byte.

mod clocks;
mod kills;
mod programs;
mod room;
mod statistics;
mod subject;
mod successors;
