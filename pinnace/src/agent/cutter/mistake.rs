//! Mistakes in a cut, made on purpose: the tests must see that the points are none then.
//!
//! There are none without the feature `mutants`, which no release has. With it, the variable
//! `PINNACE_CUT_MISTAKE` has the agent make one.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    /// The conflict table is not asked.
    NoLook,
    /// The time is taken, and then the table is flipped.
    InstantBeforeFlip,
    /// The dirty bits are taken, and then the table is flipped.
    HarvestBeforeFlip,
    /// The table is asked when a read is issued, not when it has completed.
    LookBeforeRead,
    /// Dirty bits are cleared once their chunks have been read.
    ClearedAfterRead,
}

#[cfg(not(feature = "mutants"))]
impl Mistake {
    /// Never.
    pub(super) const fn is_on(self) -> bool {
        false
    }

    /// Nothing.
    pub(super) const fn widen(self) {}
}

#[cfg(feature = "mutants")]
impl Mistake {
    /// Whether it is to be made.
    pub(super) fn is_on(self) -> bool {
        static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| std::env::var("PINNACE_CUT_MISTAKE").ok());
        chosen.as_ref().is_some_and(|chosen| *chosen == format!("{self:?}"))
    }

    /// Makes the moment in which it does harm longer.
    pub(super) fn widen(self) {
        if self.is_on() {
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
    }
}
