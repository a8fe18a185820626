//! Threads that decode frames before a reader comes to them.
//!
//! They only make haste: a frame that they don't come to, or that is damaged, the reader meets
//! itself. What they may hold of memory is the cache's.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use blocks::Extent;
use crossbeam_channel::{Sender, bounded};

use super::{Layers, Segment};

/// Frames that wait to be read ahead; one more is left to the reader.
const QUEUED_MAX: usize = 256;

/// The threads of one view.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// Nothing once they are to end.
    queue: Option<Sender<Segment>>,
    threads: Vec<JoinHandle<()>>,
}

impl ReadAhead {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub(super) fn start(layers: &Arc<Layers>, threads: usize) -> io::Result<Self> {
        let (queue, wanted) = bounded::<Segment>(QUEUED_MAX);
        let start = |n| {
            let (layers, wanted) = (Arc::clone(layers), wanted.clone());
            let work = move || {
                for segment in wanted {
                    // Whoever reads it is told.
                    let _ = layers.read_ahead(segment);
                }
            };
            thread::Builder::new().name(format!("view-{n}")).spawn(work)
        };
        let threads = (0..threads).map(start).collect::<Result<_, _>>()?;
        Ok(Self { queue: Some(queue), threads })
    }

    /// Has what is missing of `extent` decoded.
    pub(super) fn want(&self, layers: &Layers, extent: Extent) {
        let Some(queue) = &self.queue else { return };
        for segment in layers.missing(extent) {
            if queue.try_send(segment).is_err() {
                return;
            }
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}
