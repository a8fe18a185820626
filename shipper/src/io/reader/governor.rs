//! Shows the level controller, every now and then, how the pipeline runs.

use std::time::Duration;

use crate::{
    compress::Effort,
    io::processor::ProcessorMeter,
    level::{Bottleneck, LevelController, Load},
    shared::Shared,
};

/// How often it looks, while anything is shipped.
const PERIOD: Duration = Duration::from_millis(100);

/// Chooses how hard to compress.
pub(crate) struct Governor {
    /// None if compression is off.
    controller: Option<LevelController>,
    meter: ProcessorMeter,
    /// None while nothing is shipped.
    next: Option<Duration>,
}

impl Governor {
    pub(crate) fn new(controller: Option<LevelController>) -> Self {
        Self { controller, meter: ProcessorMeter::default(), next: None }
    }

    /// Looks, if it is time to. `backlog` is the share of batches that wait for a worker, of those
    /// that may; `now` is since any fixed start.
    pub(super) fn handle_round(&mut self, shared: &Shared, backlog: f32, now: Duration) {
        let Some(controller) = &mut self.controller else { return };
        if shared.flow.shipments() == 0 {
            if self.next.take().is_some() {
                controller.handle_idle();
                shared.publish(Effort::Level(controller.level()), Bottleneck::None);
            }
            return;
        }
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        self.next = Some(now + PERIOD);
        let outbox = shared.flow.under_way() as f32 / shared.flow.frames_max() as f32;
        controller.handle_load(Load { backlog, outbox, idle: self.meter.idle() });
        shared.publish(Effort::Level(controller.level()), controller.bottleneck());
    }

    /// How long until it looks again.
    pub(super) fn next_look(&self, now: Duration) -> Option<Duration> {
        self.next.map(|next| next.saturating_sub(now))
    }
}
