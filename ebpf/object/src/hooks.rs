//! The hooks and their programs, and the maps, as both are pinned.

use crate::{
    device::DiskClass,
    limits::{COPIES, COPIES_AT_START},
};

/// The maps as their pins are called, with the name that they have in the object.
pub const MAPS: [(&str, &str); 8] = [
    ("table", ".data.table"),
    ("dirty", "dirty"),
    ("coarse", "coarse"),
    ("ring", "ring"),
    ("counters", "counters"),
    ("conflicts", "conflicts"),
    ("in_flight", "in_flight"),
    ("spilled", "spilled"),
];

/// The hooks, in the order in which they are attached: starts are seen before completions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A request goes to the driver.
    RequestIssue,
    /// It comes back undone.
    RequestRequeue,
    /// It is done, or a part of it.
    RequestComplete,
    /// A bio that entered a disk goes on to another.
    BioRemap,
    /// A bio enters a disk.
    BioQueue,
    /// It is done.
    BioComplete,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::BioRemap,
        Self::RequestIssue,
        Self::RequestRequeue,
        Self::RequestComplete,
        Self::BioQueue,
        Self::BioComplete,
    ];
    /// Those that are attached whatever is tracked, since most disks need them.
    pub const ALWAYS: [Self; 3] = [Self::RequestIssue, Self::RequestRequeue, Self::RequestComplete];

    /// Those that a disk of a class needs besides.
    pub const fn needed_besides(class: DiskClass) -> &'static [Self] {
        match class {
            DiskClass::RequestBased => &[],
            DiskClass::BioBased => &[Self::BioQueue, Self::BioComplete],
            DiskClass::Multipath => &[Self::BioRemap],
        }
    }

    /// Those that disks of these classes need, in the order of attachment.
    pub fn needed_by(classes: impl IntoIterator<Item = DiskClass>) -> Vec<Self> {
        let mut needed = Self::ALWAYS.to_vec();
        classes.into_iter().for_each(|class| needed.extend(Self::needed_besides(class)));
        Self::ALL.into_iter().filter(|hook| needed.contains(hook)).collect()
    }

    /// The programs that note conflicts: one at each hook where writes are issued. A copy that is
    /// skipped at completion would lose a mark, so there are three; one that is skipped here makes
    /// an attempt at a cut void, which its count of misses is enough for.
    pub const NOTING: [&str; 2] = ["rq_issue_1", "bio_queue_1"];

    /// The kernel's name of it.
    pub const fn tracepoint(self) -> &'static str {
        match self {
            Self::RequestIssue => "block_rq_issue",
            Self::RequestRequeue => "block_rq_requeue",
            Self::RequestComplete => "block_rq_complete",
            Self::BioRemap => "block_bio_remap",
            Self::BioQueue => "block_bio_queue",
            Self::BioComplete => "block_bio_complete",
        }
    }

    /// The names of its programs, in the order in which they must run.
    pub fn programs(self) -> impl Iterator<Item = String> {
        let (name, copies) = match self {
            Self::RequestIssue => ("rq_issue", 1),
            Self::RequestRequeue => ("rq_requeue", 1),
            Self::RequestComplete => ("rq_complete", COPIES),
            Self::BioRemap => ("bio_remap", COPIES_AT_START),
            Self::BioQueue => ("bio_queue", COPIES_AT_START),
            Self::BioComplete => ("bio_complete", COPIES),
        };
        (1..=copies).map(move |copy| format!("{name}_{copy}"))
    }
}
