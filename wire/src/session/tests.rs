//! Both ends driven against each other in memory.

mod flow;
mod hostile_source;
mod hostile_target;
mod interleaving;
mod pair;
