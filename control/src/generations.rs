//! What is to be done with a source and a replica that meet, by what each has been through.
//!
//! As in DRBD, each side knows the lines of history that its content went through. Neither side's
//! data is ever written over without a word: where both may hold something that the other lacks, or
//! the replica was promoted, the answer is to stop and ask. `docs/generations.md` has the table, and
//! a test takes its rows from there.

use blocks::{Epoch, Generation, Lineage, Shown};

/// The source's side.
#[derive(Clone, Copy, Debug)]
pub struct SourceSide<'a> {
    /// The lines of its history.
    pub lineage: &'a Lineage,
    /// The newest epoch that the replica acknowledged, as far as the source knows.
    pub acked: Epoch,
    /// Whether it may hold writes that no acknowledged epoch has: dirty chunks, or a gap.
    pub has_changed: bool,
    /// A line of the replica's that a person wants to be written over.
    pub discard: Option<Generation>,
}

/// The replica's side.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaSide<'a> {
    /// The lines of its history.
    pub lineage: &'a Lineage,
    /// The newest epoch that it holds.
    pub durable: Epoch,
    /// What it holds.
    pub content: Content,
    /// What it is to its source.
    pub role: Role,
    /// What the source's ticket says.
    pub shown: Shown,
}

/// What a replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Nothing.
    Nothing,
    /// A part of a disk.
    Part,
    /// A disk as of its newest epoch.
    Whole,
}

/// What a replica is to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It follows.
    Follower,
    /// It was promoted: what it holds may be used, and written, as the disk itself.
    Promoted,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing is there yet: the initial replication.
    Seed,
    /// A pass that was interrupted goes on.
    GoOn,
    /// Both are the same.
    NothingToDo,
    /// What is dirty is sent.
    Delta,
    /// The disk is compared with its replica, and what differs is sent.
    Resync(Resync),
    /// Stop and ask.
    Refuse(Refusal),
}

/// Why a comparison makes the replica equal to the source without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resync {
    /// The replica is older than it had acknowledged: it was set back.
    ReplicaBehind,
    /// The replica is of a line that the source has left, and holds nothing beyond that.
    OldLine,
    /// A person said that what the replica holds of its own is not wanted.
    Discarded,
}

/// Why a person must decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The replica was promoted, and the source holds nothing of its own since.
    Fenced {
        /// The newest epoch that both hold.
        since: Epoch,
    },
    /// Both may hold something that the other lacks.
    SplitBrain {
        /// The newest epoch that both hold.
        since: Epoch,
    },
    /// Another source with the same identity was here since, or this one was set back.
    AnotherSource,
    /// They have no line in common.
    Unrelated,
}

/// What is to be done with a source and a replica that meet.
pub fn judge(source: &SourceSide<'_>, replica: &ReplicaSide<'_>) -> Verdict {
    let verdict = by_histories(source, replica);
    let wanted = source.discard == Some(replica.lineage.current());
    match verdict {
        Verdict::Refuse(_) if wanted => Verdict::Resync(Resync::Discarded),
        verdict => verdict,
    }
}

fn by_histories(source: &SourceSide<'_>, replica: &ReplicaSide<'_>) -> Verdict {
    let Some(common) = source.lineage.common(replica.lineage) else {
        return match (replica.content, replica.role) {
            (Content::Nothing, Role::Follower) => Verdict::Seed,
            _ => Verdict::Refuse(Refusal::Unrelated),
        };
    };
    match (common.ours, common.theirs) {
        (None, None) => on_one_line(source, replica),
        (Some(left), None) => from_an_old_line(source, replica, left),
        // The replica went on in a line that the source knows nothing of.
        (None, Some(since)) if source.has_changed || source.acked > since => {
            Verdict::Refuse(Refusal::SplitBrain { since })
        }
        (None, Some(since)) => Verdict::Refuse(Refusal::Fenced { since }),
        (Some(ours), Some(theirs)) => {
            Verdict::Refuse(Refusal::SplitBrain { since: ours.min(theirs) })
        }
    }
}

/// Both are in the same line.
fn on_one_line(source: &SourceSide<'_>, replica: &ReplicaSide<'_>) -> Verdict {
    if replica.role == Role::Promoted {
        // A promotion begins a line of its own; where it has not, nothing is risked.
        return Verdict::Refuse(Refusal::SplitBrain { since: replica.durable });
    }
    match replica.shown {
        _ if replica.content == Content::Nothing => Verdict::Seed,
        Shown::Stale => Verdict::Refuse(Refusal::AnotherSource),
        Shown::Newer => Verdict::Resync(Resync::ReplicaBehind),
        Shown::Last if replica.durable < source.acked => Verdict::Resync(Resync::ReplicaBehind),
        Shown::Last if replica.content == Content::Part => Verdict::GoOn,
        Shown::Last if source.has_changed || replica.durable > source.acked => Verdict::Delta,
        Shown::Last => Verdict::NothingToDo,
    }
}

/// The replica is in a line that the source has left after epoch `left`.
fn from_an_old_line(source: &SourceSide<'_>, replica: &ReplicaSide<'_>, left: Epoch) -> Verdict {
    if replica.role == Role::Promoted || replica.durable > left {
        let since = left.min(replica.durable);
        return Verdict::Refuse(Refusal::SplitBrain { since });
    }
    let is_where_it_was_left = replica.durable == left && source.acked == left;
    match (replica.content, replica.shown) {
        (Content::Nothing, _) => Verdict::Seed,
        (_, Shown::Stale) => Verdict::Refuse(Refusal::AnotherSource),
        // Everything since is dirty, for nothing of the new line was acknowledged.
        (Content::Whole, Shown::Last) if is_where_it_was_left => Verdict::Delta,
        _ => Verdict::Resync(Resync::OldLine),
    }
}

#[cfg(test)]
mod tests;
