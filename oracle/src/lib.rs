//! The judge of recovery points. The product never imports it.
//!
//! Writers stamp every sector ([`Stamp`]) and log every write ([`Record`]) outside of the disk.
//! From the log comes a [`History`]; a point's content, unit by unit, is [`Observed`]; and
//! [`judge`] says whether that content is the state of the disks at one instant of the claimed
//! window, or prints two blocks that no instant suits together.
//!
//! Beside it: the chain rule that needs no clock ([`check_chains`]), the rule for the points of a
//! group of hosts ([`check_group`]), for a run of points ([`RunChecker`]), and for a disk with a
//! volatile cache after a power cut ([`check_power_cut`]).
//!
//! Times are compared, never read: real and virtual clocks serve alike. Where two times are equal
//! the point gets the benefit, so virtual clocks should tick between events.

mod chain;
mod check;
mod content;
mod counterexample;
mod explain;
mod group;
mod history;
mod instants;
mod layout;
mod power_cut;
mod random;
mod record;
mod run;
mod stamp;
mod unit_index;

pub use chain::{ChainReport, check_chains};
pub use check::{Verdict, check, judge};
pub use content::{Content, Observed, Opacity};
pub use counterexample::{Counterexample, UnitWitness, Witness, WriteLine};
pub use group::{At, Edge, GroupError, check_group};
pub use history::{History, HistoryError, Initial};
pub use instants::{Instants, Window};
pub use layout::{Layout, Unit};
pub use power_cut::{Flush, check_power_cut};
pub use random::Random;
pub use record::{Issue, Outcome, Record, WriteKind};
pub use run::{Limits, Published, RunChecker, RunError, RunReport};
pub use stamp::{Fill, Stamp, StampError};

#[cfg(test)]
mod tests;
