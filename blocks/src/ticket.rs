//! Tickets: how a replica tells the source that was there last from another that says it is it.
//!
//! A machine that was cloned, or set back to a snapshot, has identity, certificate and keys of the
//! one that goes on, and tracking that knows nothing of what the other has sent since. Its delta on
//! top of the other's content would be wrong without a word. So the target hands out a ticket each
//! time a disk is opened, numbered and random, and asks for it at the next opening: only the source
//! that was there last has it.
//!
//! Within a session a ticket stays the same. A source that was set back with its memory shows the
//! right one, but the replica holds epochs that it never sealed: that tells it as well.
//!
//! A source may die before it has kept its new ticket. So the one before is good as well, until an
//! epoch was made durable with the new one; a source keeps a ticket before it sends anything.

use std::fmt;

use crate::Epoch;

/// What a target hands a source when a disk is opened, and asks for at the next opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Rises by one with every opening of the replica; 0 is the ticket of a source that has none.
    pub number: u64,
    /// Drawn at random, so that it can't be guessed from the number.
    pub secret: [u8; 16],
}

/// What a source says to be taken for the one that was there last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Its newest ticket.
    pub ticket: Ticket,
    /// The newest epoch it has sealed, if it knows: it does while it runs.
    pub sealed: Option<Epoch>,
}

/// The tickets that a replica remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tickets {
    /// The last one handed out.
    pub last: Ticket,
    /// The one that was shown for it.
    pub before: Ticket,
    /// The newest durable epoch when the last one was handed out.
    pub issued_at: Epoch,
}

/// What a ticket says of the source that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shown {
    /// It is the one that was here last.
    Last,
    /// It was here after the replica's last opening that the replica knows of: the replica was set
    /// back.
    Newer,
    /// Another one was here after it, or it was set back.
    Stale,
}

impl Tickets {
    /// What a ticket says, shown to a replica whose newest durable epoch is `durable`.
    pub fn judge(&self, claim: Claim, durable: Epoch) -> Shown {
        let shown = claim.ticket;
        if claim.sealed.is_some_and(|sealed| durable > sealed) {
            Shown::Stale
        } else if shown == self.last || (shown == self.before && durable == self.issued_at) {
            Shown::Last
        } else if shown.number > self.last.number {
            Shown::Newer
        } else {
            Shown::Stale
        }
    }

    /// The tickets once another was handed out to a source that showed `shown`.
    #[must_use]
    pub fn issue(&self, secret: [u8; 16], shown: Ticket, durable: Epoch) -> Self {
        let number = self.last.number.max(shown.number) + 1;
        Self { last: Ticket { number, secret }, before: shown, issued_at: durable }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replica, and the sources that say they are the one.
    struct World {
        tickets: Tickets,
        durable: Epoch,
        openings: u8,
    }

    impl World {
        /// Opens the replica with a ticket, if that is good, and returns the next one.
        fn open(&mut self, shown: Ticket) -> Option<Ticket> {
            if self.judge(shown) == Shown::Stale {
                return None;
            }
            self.openings += 1;
            self.tickets = self.tickets.issue([self.openings; 16], shown, self.durable);
            Some(self.tickets.last)
        }
    }

    impl World {
        fn judge(&self, ticket: Ticket) -> Shown {
            self.tickets.judge(Claim { ticket, sealed: None }, self.durable)
        }
    }

    fn world() -> World {
        World { tickets: Tickets::default(), durable: Epoch(0), openings: 0 }
    }

    #[test]
    fn a_source_that_dies_before_it_has_kept_its_ticket_comes_back_with_the_one_before() {
        let mut world = world();
        let first = world.open(Ticket::default()).unwrap();
        for _ in 0..3 {
            world.open(Ticket::default()).expect("it never kept the first, and sent nothing");
        }
        assert_eq!(world.open(first), None, "somebody else was here since");
        let kept = world.open(Ticket::default()).unwrap();
        world.durable = Epoch(1);
        assert_eq!(world.open(Ticket::default()), None, "an epoch was sent with the ticket");
        assert!(world.open(kept).is_some());
    }

    #[test]
    fn of_two_that_claim_one_identity_never_both_can_send() {
        // Every sequence of eight steps: who opens, and whether it sends then.
        for steps in 0..1u32 << 16 {
            let mut world = world();
            let origin = world.open(Ticket::default()).unwrap();
            let mut held = [origin; 2];
            let mut sent_last = None;
            for step in 0..8 {
                let (who, sends) =
                    ((steps >> (2 * step) & 1) as usize, steps >> (2 * step) & 2 != 0);
                let Some(next) = world.open(held[who]) else { continue };
                held[who] = next;
                // Its tracking is right only if nobody else has sent since it was last here.
                assert!(sent_last.is_none_or(|last| last == who), "{steps:#b}");
                if sends {
                    world.durable = world.durable.next();
                    sent_last = Some(who);
                }
            }
        }
    }

    #[test]
    fn an_epoch_that_was_never_sealed_tells_of_another_source_whatever_the_ticket() {
        let mut world = world();
        let ticket = world.open(Ticket::default()).unwrap();
        world.durable = Epoch(7);
        let judge = |sealed| world.tickets.judge(Claim { ticket, sealed }, world.durable);
        assert_eq!(judge(Some(Epoch(6))), Shown::Stale);
        assert_eq!((judge(Some(Epoch(7))), judge(None)), (Shown::Last, Shown::Last));
    }

    #[test]
    fn a_replica_that_was_set_back_says_so() {
        let mut world = world();
        let first = world.open(Ticket::default()).unwrap();
        let (kept, durable) = (world.tickets, world.durable);
        let second = world.open(first).unwrap();
        (world.tickets, world.durable) = (kept, durable);
        assert_eq!(world.judge(second), Shown::Newer);
        assert_eq!(world.judge(first), Shown::Last);
        let third = world.open(second).unwrap();
        assert!(third.number > second.number && world.open(third).is_some());
    }
}
