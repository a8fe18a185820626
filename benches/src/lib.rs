//! What the commands that measure share: where something was measured, what is kept of it, how a
//! document gets it, and the database that is measured with.

pub mod document;
pub mod figures;
pub mod machine;
pub mod postgres;
