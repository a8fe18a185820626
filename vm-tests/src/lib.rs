//! Rigs of real devices and the tests that run on real kernels.
