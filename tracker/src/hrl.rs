//! The HRL file.
