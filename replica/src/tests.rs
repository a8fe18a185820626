//! Tests of the store as a whole, through its public face.

mod compare;
mod crash;
mod damage;
mod faults;
mod life;
mod scenario;
mod source;
