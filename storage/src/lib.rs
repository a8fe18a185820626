//! Durable bytes: the Storage seam, files, durable rename, A/B slots, and a faulty implementation for tests.
