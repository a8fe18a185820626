//! `O_DIRECT` through io_uring, up to [`DEPTH`] writes at a time.
//!
//! Each slot owns its buffer. While a write is in flight its slot is neither reused nor dropped;
//! the ring is dropped before the slots, and on an error everything in flight is waited for.

use std::{fs::File, os::fd::AsRawFd};

use anyhow::{Context, Result, ensure};
use io_uring::{IoUring, opcode, types};
use memmap2::MmapMut;
use nix::libc;

use super::{
    Plan, Session, WriterReport,
    plan::Step,
    session::{Pending, bytes_of},
};

const DEPTH: u32 = 8;

struct Slot {
    buffer: MmapMut,
    in_flight: Option<(Pending, usize)>,
}

struct Queue {
    ring: IoUring,
    file: File,
    slots: Vec<Slot>,
}

pub(super) fn run(mut session: Session, plan: Plan) -> Result<WriterReport> {
    let file = session.open(libc::O_DIRECT)?;
    let largest = plan.largest();
    let slot = || {
        let buffer = MmapMut::map_anon(largest).context("memory for a writer")?;
        Ok(Slot { buffer, in_flight: None })
    };
    let slots = (0..DEPTH).map(|_| slot()).collect::<Result<_>>()?;
    let ring = IoUring::new(DEPTH).context("setting io_uring up")?;
    let mut queue = Queue { ring, file, slots };
    let outcome = queue.write_all(&mut session, plan);
    queue.drain(&mut session)?;
    outcome.map(|()| session.report())
}

impl Queue {
    fn write_all(&mut self, session: &mut Session, plan: Plan) -> Result<()> {
        for step in plan {
            let free = loop {
                match self.slots.iter().position(|slot| slot.in_flight.is_none()) {
                    Some(free) => break free,
                    None => self.reap(session)?,
                }
            };
            self.submit(session, free, &step)?;
        }
        Ok(())
    }

    fn submit(&mut self, session: &mut Session, index: usize, step: &Step) -> Result<()> {
        let len = bytes_of(step);
        let slot = &mut self.slots[index];
        let pending = session.stamped(step, &mut slot.buffer[..len])?;
        let bytes = u32::try_from(len).context("the length of a write")?;
        let file = types::Fd(self.file.as_raw_fd());
        let entry = opcode::Write::new(file, slot.buffer.as_ptr(), bytes)
            .offset(step.extent.start.bytes())
            .build()
            .user_data(index as u64);
        // SAFETY: the buffer belongs to the slot, which stays marked as in flight, and therefore
        // untouched and alive, until its completion is reaped; `self.file` outlives the ring's use.
        unsafe { self.ring.submission().push(&entry) }.context("a full submission queue")?;
        slot.in_flight = Some((pending, len));
        self.ring.submit().context("submitting")?;
        Ok(())
    }

    /// Waits for at least one completion and settles all that are there.
    fn reap(&mut self, session: &mut Session) -> Result<()> {
        match self.ring.submit_and_wait(1) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => drop(result.context("waiting for io_uring")?),
        }
        let mut outcome = Ok(());
        for completion in self.ring.completion() {
            let index = usize::try_from(completion.user_data()).expect("a slot's index");
            let (pending, len) = self.slots[index].in_flight.take().expect("it was submitted");
            let written = match u32::try_from(completion.result()) {
                Ok(written) if written as usize == len => Ok(()),
                Ok(written) => Err(std::io::Error::other(format!("{written} of {len} bytes"))),
                Err(_) => Err(std::io::Error::from_raw_os_error(-completion.result())),
            };
            outcome = outcome.and(session.settle(&pending, written));
        }
        outcome
    }

    /// Waits for everything in flight; only then may the buffers go.
    fn drain(&mut self, session: &mut Session) -> Result<()> {
        let mut outcome = Ok(());
        let mut rounds = 0;
        while self.slots.iter().any(|slot| slot.in_flight.is_some()) {
            outcome = outcome.and(self.reap(session));
            rounds += 1;
            ensure!(rounds < 10_000, "io_uring does not complete");
        }
        outcome
    }
}
