//! What the commands that measure share: where something was measured, and how a document gets it.

pub mod document;
pub mod machine;
