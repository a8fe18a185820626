//! The compiled BPF programs, and all that whoever loads or reads them must agree on.
//!
//! Two do: `ebpf`, with libbpf, for the agent; and `early-attach`, with aya, before there is a root
//! file system. What one has pinned the other takes up, so everything about it is here, once: the
//! programs ([`OBJECT`]), the names of pins ([`pins`], [`hooks`]), the shapes of maps ([`table`],
//! [`meta`], [`ring`], [`shape`]) and which disk is which ([`device`]). Nothing here loads anything.

#[cfg(target_endian = "big")]
compile_error!("maps shared with the kernel are read as little-endian words");

mod counters;
pub mod device;
pub mod hooks;
pub mod kernel;
pub mod limits;
pub mod mapped;
pub mod meta;
pub mod pins;
pub mod ring;
pub mod shape;
pub mod spec;
pub mod table;

pub use counters::Counters;

/// As loaders want it: words of the file are read in place.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static PINNACE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/pinnace.o")));

/// The tracking programs.
pub static OBJECT: &[u8] = &PINNACE.0;

/// A program that does nothing, at the same hook, to measure what the way to it costs.
pub static EMPTY_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/empty.o"));

/// A number for the programs of this build: a hash of theirs (FNV-1a).
pub fn build() -> u64 {
    OBJECT.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
