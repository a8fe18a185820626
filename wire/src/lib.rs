//! Frames, their sealing, and the sans-I/O sessions of both ends.
