//! The judge is judged: against brute force, on true states, and by mutants.

mod agreement;
mod corners;
mod force;
mod mutants;
mod world;
