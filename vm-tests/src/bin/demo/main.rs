//! The main job, shown: real disks are tracked, shipped, cut off, resumed, and proven identical; and
//! recovery points, made under load.
//!
//! Two disks of different class, made for this and gone afterwards, each with a file system in
//! use. Exit code 0 only if the newest point is identical to the disks, byte for byte, and an earlier
//! one holds what it must.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};

mod disk;
mod narration;
mod points;
mod story;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("interrupted; everything was cleaned up");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("\nFAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo makes loop and zram disks, which takes root");
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("taking over the interrupt")?;
    }
    story::tell(&Patience(interrupted))
}

/// Waits that end early, with an error, when the user interrupts.
///
/// Whatever was made is undone by its guards on the way out.
pub(crate) struct Patience(Arc<AtomicBool>);

#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

impl Patience {
    /// An error once the user has interrupted.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Sleeps, unless interrupted.
    pub(crate) fn sleep(&self, seconds: f64) -> Result<()> {
        let end = std::time::Instant::now() + std::time::Duration::from_secs_f64(seconds);
        while std::time::Instant::now() < end {
            self.check()?;
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    }

    /// Asks until there is an answer, unless interrupted or `seconds` have passed.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        seconds: u64,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        vm_tests::wait_until(what, std::time::Duration::from_secs(seconds), || {
            self.check()?;
            ask()
        })
    }
}
