//! Waking the reader while it sleeps in the kernel.
//!
//! A pipe, whose readable end the ring watches; it is written to only if the reader sleeps, so
//! that a wake-up costs nothing while there is work.
//!
//! No wake-up is lost: a waker sets `notified` before it looks at `asleep`, the sleeper sets
//! `asleep` before it looks at `notified`, and all four are sequentially consistent. So either
//! the sleeper sees the notice, or the waker sees the sleeper.
//!
//! Most of what happens is nothing that the reader waits for: while it has all that it can use, a
//! buffer that comes back need not wake it. So it says when it wants more, and looks again after it
//! has said so; who gives something gives it before looking whether it is wanted. With a fence
//! between the two on either side, the reader finds what was given, or the giver the wish.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst, fence},
    },
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

#[derive(Debug, Default)]
struct State {
    notified: AtomicBool,
    asleep: AtomicBool,
    wanting: AtomicBool,
}

/// Wakes the reader.
#[derive(Clone, Debug)]
pub(crate) struct Waker {
    state: Arc<State>,
    pipe: Arc<PipeWriter>,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Sleeper {
    state: Arc<State>,
    pipe: PipeReader,
}

pub(crate) fn pair() -> io::Result<(Waker, Sleeper)> {
    let (reader, writer) = io::pipe()?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let state = Arc::new(State::default());
    let waker = Waker { state: Arc::clone(&state), pipe: Arc::new(writer) };
    Ok((waker, Sleeper { state, pipe: reader }))
}

impl Waker {
    /// Makes the reader look for work again, now or when it would next fall asleep.
    pub(crate) fn wake(&self) {
        self.state.notified.store(true, SeqCst);
        if self.state.asleep.swap(false, SeqCst) {
            // It holds at most one byte for each time the reader fell asleep, and the reader
            // empties it, so this does not block. It fails only if the reader is gone.
            let _ = (&*self.pipe).write(&[0]);
        }
    }

    /// The same, if the reader wants what has just been given to it: a batch, a permit, a buffer.
    pub(crate) fn wake_if_wanted(&self) {
        fence(SeqCst);
        if self.state.wanting.load(SeqCst) {
            self.wake();
        }
    }
}

impl Sleeper {
    /// Forgets earlier wake-ups and wishes: to be called before looking for work.
    pub(crate) fn begin_round(&self) {
        self.state.notified.store(false, SeqCst);
        self.state.wanting.store(false, SeqCst);
    }

    /// Wants to be woken for whatever is given from here on. What was given before is there: look.
    pub(crate) fn want(&self) {
        self.state.wanting.store(true, SeqCst);
        fence(SeqCst);
    }

    /// Says that the reader is about to sleep, and whether it may: not if it was woken since the
    /// round began.
    pub(crate) fn may_sleep(&self) -> bool {
        self.state.asleep.store(true, SeqCst);
        if self.state.notified.load(SeqCst) {
            self.state.asleep.store(false, SeqCst);
            return false;
        }
        true
    }

    /// Says that the reader is awake.
    pub(crate) fn awake(&self) {
        self.state.asleep.store(false, SeqCst);
    }

    /// Empties the pipe.
    ///
    /// It may be empty already. The kernel tells who watches a pipe of a byte only after it has let
    /// go of the pipe: by then that byte may be gone, read on account of an earlier event, and a
    /// read that blocks would wait for a waker that believes the reader awake.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        match self.pipe.read(&mut [0; 64]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            read => read.map(drop),
        }
    }
}

impl AsFd for Sleeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::{sync::atomic::AtomicU64, thread};

    /// Does work that a thread hands out, asleep in between. Hangs if a wake-up is lost.
    fn work(hand_out: impl Fn(&Waker) + Send + 'static, wants: bool) {
        let (waker, mut sleeper) = pair().unwrap();
        let work = Arc::new(AtomicU64::new(0));
        const ROUNDS: u64 = 20_000;
        let producer = thread::spawn({
            let work = Arc::clone(&work);
            move || {
                for _ in 0..ROUNDS {
                    work.fetch_add(1, SeqCst);
                    hand_out(&waker);
                }
                waker
            }
        });
        let mut done = 0;
        while done < ROUNDS {
            sleeper.begin_round();
            if wants {
                sleeper.want();
            }
            done = work.load(SeqCst);
            if done < ROUNDS && sleeper.may_sleep() {
                poll(&mut [PollFd::new(sleeper.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)
                    .unwrap();
                sleeper.drain().unwrap();
            }
            sleeper.awake();
        }
        drop(producer.join().unwrap());
    }

    #[test]
    fn no_wake_up_is_lost() {
        work(Waker::wake, false);
        work(Waker::wake_if_wanted, true);
    }

    #[test]
    fn nobody_is_woken_for_what_is_not_wanted() {
        let (waker, sleeper) = pair().unwrap();
        sleeper.want();
        sleeper.begin_round();
        waker.wake_if_wanted();
        assert!(sleeper.may_sleep());
        sleeper.want();
        waker.wake_if_wanted();
        assert!(!sleeper.may_sleep());
    }

    #[test]
    fn an_empty_pipe_does_not_block() {
        let (waker, mut sleeper) = pair().unwrap();
        sleeper.drain().unwrap();
        assert!(sleeper.may_sleep());
        waker.wake();
        sleeper.drain().unwrap();
        // The event of a byte that an earlier event's read has taken.
        sleeper.drain().unwrap();
    }
}
