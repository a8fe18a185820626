//! What a seed stands for: the disks, the load, the network, and what goes wrong when.

use blocks::{ByteLen, ChunkSize, Geometry};

use crate::{
    clock::{MS, S, US},
    faults::Fault,
    kernel::Class,
    network::Quality,
    rng::Rng,
};

/// One disk of the source.
#[derive(Clone, Debug)]
pub(crate) struct DiskPlan {
    pub(crate) geometry: Geometry,
    pub(crate) class: Class,
    /// Whether it has a volatile cache.
    pub(crate) has_cache: bool,
    /// Records the ring of hints has room for.
    pub(crate) ring: usize,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) disks: Vec<DiskPlan>,
    /// How many streams write to them.
    pub(crate) streams: u32,
    pub(crate) network: Quality,
    /// The longest pause between two writes of a stream, in nanoseconds.
    pub(crate) pause_max: u64,
    /// From when to when the applications rest, so that the cross-check finds a quiet moment.
    pub(crate) quiet: (u64, u64),
    /// The longest time until a delta is folded, in nanoseconds.
    pub(crate) fold_max: u64,
    /// The longest time a write takes, in nanoseconds.
    pub(crate) latency_max: u64,
    /// Between two epochs, in nanoseconds.
    pub(crate) interval: u64,
    /// Between two points, in nanoseconds; none are made if it is zero.
    pub(crate) point_every: u64,
    /// The largest segment of a pass.
    pub(crate) segment: ByteLen,
    /// A delta of so much becomes a comparison.
    pub(crate) dirty_threshold_permille: u16,
    /// When everything that goes wrong has gone wrong, and the load ends.
    pub(crate) active: u64,
    /// What goes wrong, and when.
    pub(crate) faults: Vec<(u64, Fault)>,
}

impl Scenario {
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let active = rng.between(2 * S, 5 * S);
        let quiet_from = rng.between(S / 5, S);
        let disks = 1 + rng.below(2);
        let streams = u32::try_from(rng.between(1, 5)).expect("a few");
        Self {
            disks: (0..disks).map(|_| disk(&mut rng)).collect(),
            streams,
            network: Quality {
                delay_max: *rng.pick(&[200 * US, 5 * MS, 60 * MS]),
                per_byte: *rng.pick(&[1, 20, 200]),
                piece_max: *rng.pick(&[500, 9_000, 64_000]),
            },
            pause_max: *rng.pick(&[4 * MS, 20 * MS, 80 * MS, 500 * MS]),
            quiet: (quiet_from, quiet_from + *rng.pick(&[0, 1400 * MS, 1800 * MS])),
            fold_max: *rng.pick(&[4 * MS, 4 * MS, 3 * S]),
            latency_max: *rng.pick(&[100 * US, MS, 12 * MS]),
            interval: *rng.pick(&[40 * MS, 150 * MS, 600 * MS]),
            point_every: *rng.pick(&[0, 30 * MS, 30 * MS, 200 * MS]),
            segment: ByteLen(*rng.pick(&[64 << 10, 128 << 10, 1 << 20])),
            dirty_threshold_permille: *rng.pick(&[500, 900]),
            active,
            faults: Fault::draw(&mut rng, active),
        }
    }
}

fn disk(rng: &mut Rng) -> DiskPlan {
    let chunks = rng.between(20, 100);
    // The last chunk may be short.
    let sectors = chunks * 8 - rng.below(8);
    DiskPlan {
        geometry: Geometry::new(sectors, 512, ChunkSize::DEFAULT).expect("a small disk"),
        class: if rng.chance(500) { Class::Request } else { Class::Bio },
        has_cache: rng.chance(500),
        ring: usize::try_from(*rng.pick(&[2, 8, 64])).expect("few"),
    }
}
