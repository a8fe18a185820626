//! What all threads of an engine share.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicI32, AtomicU8, Ordering::Relaxed},
};

use crate::{
    compress::Effort,
    io::{flow::Flow, pool::Pool},
    latency::StageLatencies,
    level::Bottleneck,
};

/// What all threads of an engine share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pool: Arc<Pool>,
    pub(crate) flow: Arc<Flow>,
    pub(crate) latencies: StageLatencies,
    /// Why the reader ended before the engine did.
    pub(crate) fault: OnceLock<std::io::Error>,
    /// A zstd level, or [`STORE`].
    level: AtomicI32,
    bottleneck: AtomicU8,
}

/// Stands for no compression. No zstd level is that low.
const STORE: i32 = i32::MIN;

impl Shared {
    pub(crate) fn new(pool: Arc<Pool>, flow: Arc<Flow>, effort: Effort) -> Self {
        let shared = Self {
            pool,
            flow,
            latencies: StageLatencies::new(),
            fault: OnceLock::new(),
            level: STORE.into(),
            bottleneck: (Bottleneck::None as u8).into(),
        };
        shared.publish(effort, Bottleneck::None);
        shared
    }

    /// How hard to compress now.
    pub(crate) fn effort(&self) -> Effort {
        match self.level.load(Relaxed) {
            STORE => Effort::Store,
            level => Effort::Level(level),
        }
    }

    /// What holds the pipeline back.
    pub(crate) fn bottleneck(&self) -> Bottleneck {
        let number = self.bottleneck.load(Relaxed);
        let found = Bottleneck::ALL.into_iter().find(|bottleneck| *bottleneck as u8 == number);
        found.unwrap_or(Bottleneck::None)
    }

    /// Says how hard to compress, and why.
    pub(crate) fn publish(&self, effort: Effort, bottleneck: Bottleneck) {
        let level = match effort {
            Effort::Store => STORE,
            Effort::Level(level) => level,
        };
        self.level.store(level, Relaxed);
        self.bottleneck.store(bottleneck as u8, Relaxed);
    }
}
