//! What to keep and when to act. Pure: everything here is a function of what it is given.
//!
//! A [`Policy`] says how often points are made and how long they are kept; its [`Ladder`] thins
//! the points out as they age; [`make_room`] chooses what goes when space is short. A [`ResyncWindow`] says when comparisons may begin. The target
//! carries out what they say: dropping a point merges it into its successor.

pub mod generations;
mod ladder;
mod point;
mod policy;
mod protection;
mod remedy;
mod retry;
mod room;
mod span;
mod window;

pub use ladder::{Interval, KeepReason, Kept, Ladder, LadderError, ParseLadderError, Rung};
pub use point::{Point, UnixNs};
pub use policy::{Due, Limits, Policy, PolicyError};
pub use protection::{Facts, ProtectionState, Replicated};
pub use remedy::{Circumstances, explain};
pub use retry::{EpochRetry, FailureClass, LONGEST, Next, Retry};
pub use room::{Candidate, Held, Room, make_room};
pub use span::{ParseSpanError, Span};
pub use window::{MinuteOfDay, ResyncWindow, WindowError};
