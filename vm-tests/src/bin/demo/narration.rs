//! How the demo speaks: numbered steps with the time since the beginning, and figures.

use std::time::Instant;

use blocks::ByteLen;

/// The demo's voice.
pub(crate) struct Narration {
    started: Instant,
    step: u32,
}

impl Narration {
    pub(crate) fn begin() -> Self {
        Self { started: Instant::now(), step: 0 }
    }

    /// Announces a step.
    pub(crate) fn step(&mut self, what: &str) {
        self.step += 1;
        println!("\n[{:5.1} s] {}. {what}", self.seconds(), self.step);
    }

    /// Says what was found.
    pub(crate) fn say(&self, what: &str) {
        println!("          {what}");
    }

    /// Seconds since the beginning.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

/// A rate in binary units a second.
pub(crate) fn rate(bytes: u64, seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "for people")]
    let rate = (bytes as f64 / seconds.max(1e-3)) as u64;
    format!("{}/s", ByteLen(rate))
}
