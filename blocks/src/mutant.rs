//! Deliberate mistakes, to prove that tests notice them.
//!
//! Each is one wrong step at the place in the product where it would be made. Without the feature
//! `mutants` none can be switched on, and the compiler removes the question. The simulator is run
//! once for each, and so are tests of the room it is made in (`cargo xtask mutants`): one that
//! nobody notices is a hole in the checks.

/// A mistake that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// The harvest clears dirty bits only after the blocks were read (model of the programs).
    ClearedAfterRead,
    /// The harvest does not note as pending what it clears (model of the programs).
    PendingNotKept,
    /// Discards and zeroes are not marked (model of the programs).
    DiscardIgnored,
    /// An epoch is sealed from the ring's records; what the ring has lost is not swept up.
    RingOverflowIgnored,
    /// What was pending is forgotten as soon as it is sealed.
    PendingDroppedAtSeal,
    /// What an aborted epoch held is not dirty again.
    AbortForgets,
    /// A lasting deficit of the cross-check is no gap.
    DeficitIgnored,
    /// An epoch is acknowledged although its journal was not synced.
    AckBeforeSync,
    /// The catalogue is flipped before the delta has its name durably.
    FlipBeforeName,
    /// A flip of the catalogue is not synced.
    FlipNotSynced,
    /// The newest pending delta is folded first.
    FoldedOutOfOrder,
    /// The base is not synced before the catalogue says that a delta is in it.
    FoldNotSynced,
    /// A sealer gives a nonce twice.
    NonceReused,
    /// After an unclean stop of the machine tracking goes on as if nothing had been missed.
    UncleanStopIgnored,
    /// A cut ignores that a block was written while it was read.
    ConflictIgnored,
    /// A cut ignores that the kernel skipped a program that notes conflicts.
    SkippedProgramIgnored,
    /// One disk of a point is read anew after the cut (model of the agent).
    PointOfTwoInstants,
    /// A pass is over once it has met the end of the disk, whatever was marked behind it.
    PassEndsEarly,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::ClearedAfterRead,
        Self::PendingNotKept,
        Self::DiscardIgnored,
        Self::RingOverflowIgnored,
        Self::PendingDroppedAtSeal,
        Self::AbortForgets,
        Self::DeficitIgnored,
        Self::AckBeforeSync,
        Self::FlipBeforeName,
        Self::FlipNotSynced,
        Self::FoldedOutOfOrder,
        Self::FoldNotSynced,
        Self::NonceReused,
        Self::UncleanStopIgnored,
        Self::ConflictIgnored,
        Self::SkippedProgramIgnored,
        Self::PointOfTwoInstants,
        Self::PassEndsEarly,
    ];

    /// Whether this thread is to make the mistake, or this process: that of the name in the
    /// variable `PINNACE_MUTANT`.
    #[cfg(feature = "mutants")]
    pub fn is_on(self) -> bool {
        SWITCHED_ON.get().or_else(of_environment) == Some(self)
    }

    /// Never: the feature `mutants` is off.
    #[cfg(not(feature = "mutants"))]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Has this thread make one mistake, or none.
    #[cfg(feature = "mutants")]
    pub fn switch(to: Option<Self>) {
        SWITCHED_ON.set(to);
    }
}

#[cfg(feature = "mutants")]
thread_local! {
    static SWITCHED_ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

#[cfg(feature = "mutants")]
fn of_environment() -> Option<Mutant> {
    static NAMED: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();
    *NAMED.get_or_init(|| {
        let name = std::env::var("PINNACE_MUTANT").ok()?;
        Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name)
    })
}
