//! Every decoder of bytes from a peer, a disk or a file, driven by bytes that anybody may have made.
//!
//! A [`Target`] is a function of such bytes. It panics if what it drives breaks its word: a panic
//! of the decoder itself, an answer that contradicts what it was told, memory beyond
//! [`Target::memory_max`]. Two drive the same functions: `tests/corpus.rs` replays the inputs kept
//! in `corpus/` and `regressions/`, as ordinary tests on any toolchain; the engine (`src/bin`)
//! searches new ones, guided by coverage. `docs/fuzzing.md` says how, and what is left out.
//!
//! The functions use only what the rooms export: what can't be reached from there, no peer reaches.

pub mod files;
mod input;
mod memory;
mod mend;
mod targets;

use blocks::ByteLen;

/// A decoder, and what it may need.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: of its corpus, and on the command line.
    pub name: &'static str,
    /// Takes the bytes; panics if something is wrong.
    body: fn(&[u8]),
    /// Inputs to begin with, where the corpus has none yet.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The longest input worth trying.
    pub input_len_max: usize,
    /// What one input may make it hold at once.
    pub memory_max: ByteLen,
}

impl Target {
    /// Drives the decoder with one input.
    ///
    /// # Panics
    /// If it breaks its word.
    pub fn run(&self, bytes: &[u8]) {
        let peak = memory::peak_of(|| (self.body)(bytes));
        assert!(peak <= self.memory_max, "{} needed {peak} at once", self.name);
    }

    /// The target of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

/// All targets.
pub static TARGETS: &[Target] = &[
    Target {
        name: "frames",
        body: targets::frames::run,
        seeds: targets::frames::seeds,
        input_len_max: 8 << 10,
        // A frame, and once more where it is parsed again.
        memory_max: ByteLen(4 << 20),
    },
    Target {
        name: "messages",
        body: targets::messages::run,
        seeds: targets::messages::seeds,
        input_len_max: 4 << 10,
        // A message, and what it decodes to.
        memory_max: ByteLen(4 << 20),
    },
    Target {
        name: "source-session",
        body: targets::source_session::run,
        seeds: targets::none,
        input_len_max: 2 << 10,
        memory_max: ByteLen(4 << 20),
    },
    Target {
        name: "target-session",
        body: targets::target_session::run,
        seeds: targets::none,
        input_len_max: 2 << 10,
        memory_max: ByteLen(8 << 20),
    },
    Target {
        name: "epochs",
        body: targets::epochs::run,
        seeds: targets::none,
        input_len_max: 2 << 10,
        // A store in memory, and the buffers of a worker.
        memory_max: ByteLen(16 << 20),
    },
    Target {
        name: "store",
        body: targets::store::run,
        seeds: targets::none,
        input_len_max: 8 << 10,
        memory_max: ByteLen(16 << 20),
    },
    Target {
        name: "last-logs",
        body: targets::last_logs::run,
        seeds: targets::last_logs::seeds,
        input_len_max: 4 << 10,
        memory_max: ByteLen(4 << 20),
    },
    Target {
        name: "logs",
        body: targets::logs::run,
        seeds: targets::logs::seeds,
        input_len_max: 4 << 10,
        memory_max: ByteLen(4 << 20),
    },
    Target {
        name: "nbd",
        body: targets::nbd::run,
        seeds: targets::nbd::seeds,
        input_len_max: 4 << 10,
        memory_max: ByteLen(1 << 20),
    },
    Target {
        name: "texts",
        body: targets::texts::run,
        seeds: targets::texts::seeds,
        input_len_max: 512,
        memory_max: ByteLen(1 << 20),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn greedy() -> Target {
        Target {
            name: "greedy",
            body: |bytes| drop(vec![0u8; bytes.len() << 20]),
            seeds: targets::none,
            input_len_max: 8,
            memory_max: ByteLen(2 << 20),
        }
    }

    #[test]
    fn memory_within_the_bound_passes() {
        greedy().run(&[0; 2]);
    }

    #[test]
    #[should_panic(expected = "greedy needed 3 MiB at once")]
    fn memory_beyond_the_bound_is_noticed() {
        greedy().run(&[0; 3]);
    }
}
