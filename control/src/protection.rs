//! Where the protection of a disk stands.
//!
//! A state is never set: it follows from [`Facts`], one step at a time along the edges of the
//! diagram in `docs/protection.md`, so that no fact can be forgotten and every change of state is
//! one that has a meaning. What a person must mend and what a person has paused lie over the rest:
//! when they end, the disk is where its copy is.
//!
//! Invariants: a gap is never shown as protected or lagging; a replica that was never whole is
//! never shown as anything better than its initial replication.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a disk's protection. A disk that is not protected has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtectionState {
    /// The first copy is being made, or waits to go on.
    InitialReplication,
    /// The replica follows within the objective.
    Protected,
    /// The replica follows, and is older than the objective.
    Lagging,
    /// Writes may be missing from what was tracked: a comparison is due.
    ResyncRequired,
    /// The disk is being compared with its replica.
    Resynchronising,
    /// A person has stopped the sending; tracking goes on.
    Paused,
    /// Nothing goes on before a person acts.
    Critical,
}

/// What the replica is, as far as the source knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replicated {
    /// Not whole yet.
    Never,
    /// Behind by what is known to be dirty, and by nothing else.
    Follows,
    /// There is a gap.
    Suspect,
}

/// What a state follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facts {
    /// What the replica is.
    pub replicated: Replicated,
    /// Whether what is due can be sent now.
    pub sending: bool,
    /// Whether the replica is older than the objective.
    pub late: bool,
    /// Whether a person has paused it.
    pub paused: bool,
    /// Whether it waits for a person.
    pub refused: bool,
}

impl ProtectionState {
    /// All of them, in the order of the diagram.
    pub const ALL: [Self; 7] = [
        Self::InitialReplication,
        Self::Protected,
        Self::Lagging,
        Self::ResyncRequired,
        Self::Resynchronising,
        Self::Paused,
        Self::Critical,
    ];

    /// Whether all is as it should be.
    pub const fn is_green(self) -> bool {
        matches!(self, Self::Protected)
    }

    /// The state after one step, or the same if the facts want no other.
    #[must_use]
    pub fn step(self, facts: &Facts) -> Self {
        match (self, facts.replicated) {
            _ if facts.refused => Self::Critical,
            _ if facts.paused => Self::Paused,
            (_, Replicated::Never) => Self::InitialReplication,
            (Self::ResyncRequired | Self::Resynchronising, Replicated::Suspect)
                if facts.sending =>
            {
                Self::Resynchronising
            }
            (_, Replicated::Suspect) => Self::ResyncRequired,
            (Self::Protected | Self::Lagging, Replicated::Follows) if facts.late => Self::Lagging,
            (_, Replicated::Follows) => Self::Protected,
        }
    }

    /// The states that are passed, until the facts want no other; the last is where it stands.
    pub fn steps(self, facts: &Facts) -> impl Iterator<Item = Self> {
        let mut state = self;
        std::iter::from_fn(move || {
            let next = state.step(facts);
            (next != state).then(|| {
                state = next;
                next
            })
        })
    }
}

impl fmt::Display for ProtectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InitialReplication => "Initial replication",
            Self::Protected => "Protected",
            Self::Lagging => "Lagging",
            Self::ResyncRequired => "Resync required",
            Self::Resynchronising => "Resynchronising",
            Self::Paused => "Paused",
            Self::Critical => "Critical",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{ProtectionState::*, *};

    fn all_facts() -> impl Iterator<Item = Facts> {
        let replicated = [Replicated::Never, Replicated::Follows, Replicated::Suspect];
        replicated.into_iter().flat_map(|replicated| {
            (0..16u8).map(move |bits| Facts {
                replicated,
                sending: bits & 1 != 0,
                late: bits & 2 != 0,
                paused: bits & 4 != 0,
                refused: bits & 8 != 0,
            })
        })
    }

    /// Every edge that any facts can make any state take.
    fn edges() -> BTreeSet<(ProtectionState, ProtectionState)> {
        let states = ProtectionState::ALL.into_iter();
        let all = states.flat_map(|state| all_facts().map(move |facts| (state, facts)));
        all.map(|(from, facts)| (from, from.step(&facts))).filter(|(from, to)| from != to).collect()
    }

    #[test]
    fn where_a_disk_stands_follows_from_the_facts_and_not_from_where_it_stood() {
        for facts in all_facts() {
            let stands = |from: ProtectionState| {
                let passed: Vec<_> = from.steps(&facts).take(9).collect();
                assert!(passed.len() <= 3, "{from} by {facts:?}: {passed:?}");
                passed.last().copied().unwrap_or(from)
            };
            let stood: BTreeSet<_> = ProtectionState::ALL.map(stands).into();
            assert_eq!(stood.len(), 1, "{facts:?}: {stood:?}");
        }
    }

    #[test]
    fn a_gap_is_never_shown_as_green_and_a_part_never_as_a_whole() {
        for (facts, from) in all_facts().flat_map(|f| ProtectionState::ALL.map(|s| (f, s))) {
            for state in std::iter::once(from.step(&facts)).chain(from.steps(&facts)) {
                let allowed: &[_] = match facts.replicated {
                    _ if facts.refused => &[Critical],
                    _ if facts.paused => &[Paused],
                    Replicated::Never => &[InitialReplication],
                    Replicated::Suspect => &[ResyncRequired, Resynchronising],
                    Replicated::Follows => &[Protected, Lagging],
                };
                assert!(allowed.contains(&state), "{state} from {from} by {facts:?}");
            }
        }
    }

    #[test]
    fn the_diagram_has_exactly_the_edges_that_exist() {
        let document = include_str!("../../docs/protection.md");
        let named = |name: &str| -> Vec<ProtectionState> {
            let is = |state: &ProtectionState| name == "any" || format!("{state:?}") == name;
            ProtectionState::ALL.into_iter().filter(is).collect()
        };
        let mut drawn = BTreeSet::new();
        for line in document.lines() {
            let Some((from, rest)) = line.trim().split_once(" --> ") else { continue };
            let (to, _) = rest.split_once(':').expect("every edge says when it is taken");
            let (from, to) = (named(from.trim()), named(to.trim()));
            assert!(!from.is_empty() && !to.is_empty(), "no states of ours: {line}");
            drawn.extend(from.iter().flat_map(|from| to.iter().map(|to| (*from, *to))));
        }
        drawn.retain(|(from, to)| from != to);
        assert_eq!(drawn, edges());
    }
}
