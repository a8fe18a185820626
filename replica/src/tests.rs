//! Tests of the store as a whole, through its public face.

mod compare;
mod crash;
mod damage;
mod faults;
mod golden;
mod history;
mod life;
mod random;
mod scenario;
mod source;

pub(crate) use source::point;
