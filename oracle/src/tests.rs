//! The judge is judged: against brute force, on true states, and by mutants.

mod agreement;
mod corners;
mod force;
mod groups;
mod mutants;
mod world;
