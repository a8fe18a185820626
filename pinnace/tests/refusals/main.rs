//! What is refused: with a clear sentence, the right exit code, and nothing lost. While it is, a
//! disk that is rightly protected is written to, and its replica follows to the last byte.

mod bystander;
mod certificates;
mod configuration;
mod disks;
mod enrolment;
mod hostile;
mod impostor;
mod stores;
mod stranger;
