//! Attaches the tracking programs before the root file system is mounted.
//!
//! After an orderly stop of the machine its last log holds all that was dirty, if nothing has written
//! to the disk since. Only who attaches the programs before anything writes can know that: this does,
//! in the initramfs, and leaves in the kernel what it found. The agent, once it runs, takes up the
//! pins and believes the log, or has the disk compared. `docs/boot.md` argues it.
//!
//! [`attach`] does all of it; [`Loaded`] is the loader: the object that `ebpf` loads with libbpf,
//! loaded with aya, so that nothing but this program is needed where it runs.
//!
//! Nothing here decides what is dirty, reads a log, or stays behind as a process. Whatever goes wrong
//! ends in a comparison, never in a boot that hangs.

mod attach;
mod disk;
mod load;

pub use attach::{AttachError, Outcome, Refusal, attach};
pub use disk::{AddError, Added};
pub use load::{LoadError, Loaded};
