//! Programs that somebody has detached behind this process's back.

use std::{thread, time::Duration};

use super::Tracking;
use crate::{
    load::{self, LoadError},
    pins,
};

/// Ample for the kernel to detach what is no longer pinned, which it does in its own time.
const DETACHED_WITHIN: Duration = Duration::from_millis(100);

impl Tracking {
    /// Attaches again what should be attached and is not, and says whether anything was. What was
    /// written meanwhile was not seen: every disk must be compared.
    ///
    /// A link is held by its pin alone, so one look at the names finds what is missing.
    ///
    /// # Errors
    /// If a program can't be attached; then nothing is tracked, and what is written is lost.
    pub fn restore_programs(&mut self) -> Result<bool, LoadError> {
        let wanted = self.needed_hooks();
        let links = || wanted.iter().flat_map(|hook| hook.programs());
        if links().all(|name| self.pins.link(&name).exists()) {
            return Ok(false);
        }
        // All of them: copies run in the order in which they were attached.
        links().try_for_each(|name| pins::remove(&self.pins.link(&name)))?;
        thread::sleep(DETACHED_WITHIN);
        wanted.iter().try_for_each(|hook| load::attach(&self.pins, *hook))?;
        Ok(true)
    }
}
