//! Simulated connections: ordered within a stream, not between streams, and lost as a whole.
//!
//! A connection has a control stream each way and data streams from source to target, as a QUIC
//! connection of the product has. Bytes come in pieces that are cut anywhere, each after a delay.
//! When a connection is cut, what is on the way is gone, at any byte; each end hears of it later,
//! on its own, or keeps waiting until its patience ends.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::rng::Rng;

/// The number of a connection, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// One direction of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// The agent's control bytes.
    ToTarget,
    /// The target's control bytes.
    ToAgent,
    /// A data stream of the agent's.
    Data(u64),
}

/// What arrives.
#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    Bytes(Bytes),
    /// The stream ends in order.
    End,
    /// The stream was cut off by its sender.
    Reset,
}

/// How slow and how coarse a network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// The longest usual delay, in nanoseconds.
    pub(crate) delay_max: u64,
    /// Nanoseconds a byte takes.
    pub(crate) per_byte: u64,
    /// The longest piece, in bytes.
    pub(crate) piece_max: usize,
}

#[derive(Debug, Default)]
struct Stream {
    on_the_way: VecDeque<Arrival>,
    last_arrival: u64,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) quality: Quality,
    rng: Rng,
    connections: BTreeMap<ConnectionId, BTreeMap<Lane, Stream>>,
    next: u64,
}

impl Network {
    pub(crate) fn new(quality: Quality, rng: Rng) -> Self {
        Self { quality, rng, connections: BTreeMap::new(), next: 0 }
    }

    pub(crate) fn connect(&mut self) -> ConnectionId {
        self.next += 1;
        let id = ConnectionId(self.next);
        self.connections.insert(id, BTreeMap::new());
        id
    }

    /// Everything on the way is gone.
    pub(crate) fn cut(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
    }

    /// Sends; returns when each piece of it arrives.
    pub(crate) fn send(
        &mut self,
        id: ConnectionId,
        lane: Lane,
        now: u64,
        arrivals: impl IntoIterator<Item = Arrival>,
    ) -> Vec<u64> {
        let Some(lanes) = self.connections.get_mut(&id) else { return Vec::new() };
        let stream = lanes.entry(lane).or_default();
        let mut times = Vec::new();
        let mut put = |arrival: Arrival, len: usize, rng: &mut Rng| {
            let usual = rng.spread(self.quality.delay_max / 64 + 1, self.quality.delay_max + 1);
            let delay = usual + self.quality.per_byte * len as u64;
            stream.last_arrival = stream.last_arrival.max(now + delay);
            stream.on_the_way.push_back(arrival);
            times.push(stream.last_arrival);
        };
        for arrival in arrivals {
            match arrival {
                Arrival::Bytes(mut rest) => {
                    while !rest.is_empty() {
                        let most = rest.len().min(self.quality.piece_max);
                        // Whole frames and cut ones.
                        let len =
                            if self.rng.chance(500) { most } else { 1 + self.rng.index(most) };
                        put(Arrival::Bytes(rest.split_to(len)), len, &mut self.rng);
                    }
                }
                other => put(other, 0, &mut self.rng),
            }
        }
        times
    }

    /// The next piece of a stream arrives, if the connection is still there.
    pub(crate) fn arrive(&mut self, id: ConnectionId, lane: Lane) -> Option<Arrival> {
        self.connections.get_mut(&id)?.get_mut(&lane)?.on_the_way.pop_front()
    }
}
