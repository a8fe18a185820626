//! Tests of the store as a whole, through its public face.

mod compare;
mod crash;
mod damage;
mod exhaustive;
mod faults;
mod generations;
mod golden;
mod history;
mod life;
mod merging;
mod random;
mod room;
mod scenario;
mod scrub;
mod source;
mod views;

pub(crate) use source::point;
