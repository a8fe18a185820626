//! What goes wrong.

use storage::faulty;

use crate::{
    clock::{MS, S},
    rng::Rng,
};

/// Something that goes wrong. Times are in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The agent is killed; tracking goes on in the kernel.
    AgentKill { down: u64 },
    /// The source machine loses power.
    MachineCrash { down: u64 },
    /// The target is killed within so many operations of its store.
    TargetKill { operations: u64, down: u64 },
    /// The target's machine loses power within so many operations of its store.
    TargetPowerCut { operations: u64, down: u64 },
    /// The connection is lost; each end hears of it when its time has come.
    ConnectionCut { agent_hears: u64, target_hears: u64 },
    /// The target stands still.
    TargetStall { still: u64 },
    /// The agent stands still; the machine goes on.
    AgentStall { still: u64 },
    /// An operation of the target's store fails.
    StoreError { operations: u64, error: faulty::Fault },
    /// An operation on the agent's own state fails.
    LogError { operations: u64, error: faulty::Fault },
    /// The programs don't see the next completion.
    MissedCompletion,
    /// The kernel skips the issue program of the next writes, and counts that it did.
    SkippedProgram { writes: u64 },
    /// A write passes the block layer by.
    Passthrough,
    /// The source machine is suspended: all its clocks leap.
    Leap { by: u64 },
    /// The agent can't read the disk, once, after so many reads.
    ReadError { reads: u64 },
}

impl Fault {
    /// What goes wrong in a run of which the first `active` nanoseconds are under load: one to
    /// three crashes, and at least three faults of different kinds.
    pub(crate) fn draw(rng: &mut Rng, active: u64) -> Vec<(u64, Self)> {
        let mut faults = Vec::new();
        let when = |rng: &mut Rng| rng.between(S / 20, active);
        for _ in 0..rng.between(1, 4) {
            faults.push((when(rng), Self::crash(rng)));
        }
        let mut kinds: Vec<u64> = (0..10).collect();
        for _ in 0..rng.between(3, 7) {
            let kind = kinds.swap_remove(rng.index(kinds.len()));
            // Much is decided at the beginning, during the first copy.
            let at = if rng.chance(250) { rng.spread(MS, S / 4) } else { when(rng) };
            faults.push((at, Self::of_kind(kind, rng)));
        }
        faults.sort_by_key(|(at, _)| *at);
        faults
    }

    fn crash(rng: &mut Rng) -> Self {
        let down = rng.spread(MS, 2 * S);
        let operations = rng.spread(1, 200);
        match rng.below(5) {
            0 => Self::AgentKill { down },
            1 => Self::MachineCrash { down },
            2 => Self::TargetKill { operations, down },
            _ => Self::TargetPowerCut { operations, down },
        }
    }

    fn of_kind(kind: u64, rng: &mut Rng) -> Self {
        use faulty::Fault::{Full, Io, ShortWrite, Sync};
        let operations = rng.spread(1, 400);
        let error = *rng.pick(&[Io, Full, ShortWrite, Sync, Sync]);
        match kind {
            0 => {
                let hears = |rng: &mut Rng| rng.spread(MS, 6 * S);
                Self::ConnectionCut { agent_hears: hears(rng), target_hears: hears(rng) }
            }
            1 => Self::TargetStall { still: rng.spread(MS, 3 * S) },
            2 => Self::AgentStall { still: rng.spread(MS, 3 * S) },
            3 | 4 => Self::StoreError { operations, error },
            5 => Self::LogError { operations: operations % 20, error },
            6 => Self::MissedCompletion,
            7 => Self::Passthrough,
            8 => Self::SkippedProgram { writes: rng.between(1, 40) },
            _ if rng.chance(500) => Self::Leap { by: rng.spread(MS, 100 * S) },
            _ => Self::ReadError { reads: rng.below(8) },
        }
    }

    /// Its kind, for counting.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::AgentKill { .. } => "agent kill",
            Self::MachineCrash { .. } => "machine crash",
            Self::TargetKill { .. } => "target kill",
            Self::TargetPowerCut { .. } => "target power cut",
            Self::ConnectionCut { .. } => "connection cut",
            Self::TargetStall { .. } => "target stall",
            Self::AgentStall { .. } => "agent stall",
            Self::StoreError { .. } => "store error",
            Self::LogError { .. } => "log error",
            Self::MissedCompletion => "missed completion",
            Self::SkippedProgram { .. } => "skipped program",
            Self::Passthrough => "passthrough",
            Self::Leap { .. } => "leap of time",
            Self::ReadError { .. } => "read error",
        }
    }
}
