//! What the commands that measure share: where something was measured, what is kept of it, and
//! how a document gets it.

pub mod document;
pub mod figures;
pub mod machine;
