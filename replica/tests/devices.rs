//! The store on what only root can set up: loop devices as bases, and a file system that is full.
//!
//! Fails without root; skipped only when `PINNACE_SKIP_DEVICE_TESTS` is 1, and says so.

#[cfg(test)]
mod devices {
    mod block_base;
    mod full;
    mod setup;
}
