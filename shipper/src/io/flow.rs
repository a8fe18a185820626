//! How much may be under way: permits.
//!
//! A batch holds a permit from the moment its reads are planned until its frame was taken by the
//! receiver, or it turned out to need none. That bounds the frames that wait for their turn or for a
//! slow receiver, which no longer hold a buffer of the pool.
//!
//! Invariants: `held by a shipment <= max(1, frames_max / shipments)` when a permit is given;
//! `held by all <= frames_max + shipments`. A shipment without a permit always gets one, so that a
//! receiver who stops taking frames of one can't hold up another: buffers are never held by
//! receivers, and permits not by each other.
//!
//! Only the reader gives permits; anybody gives them back, by dropping them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use super::wake::Waker;

/// What all shipments of an engine share.
#[derive(Debug)]
pub(crate) struct Flow {
    frames_max: usize,
    held: AtomicUsize,
    shipments: AtomicUsize,
    pub(crate) waker: Waker,
}

/// What one shipment may have under way.
#[derive(Debug)]
pub(crate) struct Window {
    flow: Arc<Flow>,
    held: AtomicUsize,
    cancelled: AtomicBool,
}

/// One batch may be under way.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Window>);

impl Flow {
    pub(crate) fn new(frames_max: usize, waker: Waker) -> Self {
        Self { frames_max, held: 0.into(), shipments: 0.into(), waker }
    }

    /// How many shipments there are.
    pub(crate) fn shipments(&self) -> usize {
        self.shipments.load(SeqCst)
    }

    /// How many batches are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.held.load(SeqCst)
    }

    /// How many may be.
    pub(crate) fn frames_max(&self) -> usize {
        self.frames_max
    }
}

impl Window {
    /// The window of a new shipment.
    pub(crate) fn new(flow: &Arc<Flow>) -> Self {
        flow.shipments.fetch_add(1, SeqCst);
        Self { flow: Arc::clone(flow), held: 0.into(), cancelled: false.into() }
    }

    /// A permit for one more batch, if there is one.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Permit> {
        let held = self.held.load(SeqCst);
        let share = self.flow.frames_max / self.flow.shipments().max(1);
        let room = held < share && self.flow.under_way() < self.flow.frames_max;
        if held > 0 && !room {
            return None;
        }
        self.held.fetch_add(1, SeqCst);
        self.flow.held.fetch_add(1, SeqCst);
        Some(Permit(Arc::clone(self)))
    }

    /// Makes everybody drop what belongs to this shipment.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, SeqCst);
        self.flow.waker.wake();
    }

    /// Whether it was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.flow.shipments.fetch_sub(1, SeqCst);
        self.flow.waker.wake();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, SeqCst);
        self.0.flow.held.fetch_sub(1, SeqCst);
        self.0.flow.waker.wake_if_wanted();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::wake;

    #[test]
    fn a_new_shipment_always_gets_a_permit() {
        let (waker, _sleeper) = wake::pair().unwrap();
        let flow = Arc::new(Flow::new(4, waker));
        let first = Arc::new(Window::new(&flow));
        let mut held: Vec<_> = std::iter::from_fn(|| first.admit()).collect();
        assert_eq!(held.len(), 4);

        let second = Arc::new(Window::new(&flow));
        held.extend(second.admit());
        assert_eq!(held.len(), 5, "its first is never refused");
        assert!(second.admit().is_none());

        held.drain(..3);
        assert!(first.admit().is_some(), "one held of a share of two");
        assert_eq!(flow.under_way(), 2);
        held.clear();
        drop((first, second));
        assert_eq!((flow.under_way(), flow.shipments()), (0, 0));
    }
}
