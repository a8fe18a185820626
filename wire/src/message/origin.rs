//! What a source says it has been through, by which the target judges whether the two belong
//! together.

use blocks::{ANCESTORS_MAX, Ancestor, Claim, Epoch, Generation, Lineage, Ticket};

use crate::layout::{LayoutError, Reader, Writer};

/// What a source has been through, beside the line it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The lines that it came through, newest first; at most [`ANCESTORS_MAX`].
    pub past: Vec<Ancestor>,
    /// The newest epoch that it knows to be acknowledged.
    pub acked: Epoch,
    /// Whether it may hold writes that no acknowledged epoch has.
    pub has_changed: bool,
    /// What tells it from another that says it is it.
    pub claim: Claim,
    /// A line of the replica's that a person wants to be written over.
    pub discard: Option<Generation>,
}

const HAS_CHANGED: u8 = 1 << 0;
const HAS_SEALED: u8 = 1 << 1;
const HAS_DISCARD: u8 = 1 << 2;

impl Origin {
    pub(super) fn write(&self, body: &mut Writer) {
        let past = &self.past[..self.past.len().min(ANCESTORS_MAX)];
        body.u8(u8::try_from(past.len()).expect("cut to ANCESTORS_MAX"));
        for line in past {
            body.array(&line.generation.0);
            body.u64(line.through.0);
        }
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        body.u8(flag(self.has_changed, HAS_CHANGED)
            | flag(self.claim.sealed.is_some(), HAS_SEALED)
            | flag(self.discard.is_some(), HAS_DISCARD));
        body.u64(self.acked.0);
        write_ticket(&self.claim.ticket, body);
        body.u64(self.claim.sealed.unwrap_or_default().0);
        body.array(&self.discard.map_or([0; 16], |generation| generation.0));
    }

    /// Reads what was said of a source that is in the line `current`.
    pub(super) fn read(body: &mut Reader<'_>, current: Generation) -> Result<Self, LayoutError> {
        let count = body.u8()?;
        let mut past = Vec::new();
        for _ in 0..usize::from(count).min(ANCESTORS_MAX + 1) {
            let (generation, through) = (Generation(body.array()?), Epoch(body.u64()?));
            past.push(Ancestor { generation, through });
        }
        if Lineage::new(current, past.clone()).is_err() {
            return Err(LayoutError::Field { field: "lines of history", value: count.into() });
        }
        let flags = body.u8()?;
        if flags & !(HAS_CHANGED | HAS_SEALED | HAS_DISCARD) != 0 {
            return Err(LayoutError::Field { field: "flags", value: flags.into() });
        }
        let (acked, ticket) = (Epoch(body.u64()?), read_ticket(body)?);
        let (sealed, discard) = (Epoch(body.u64()?), Generation(body.array()?));
        let (has_sealed, has_discard) = (flags & HAS_SEALED != 0, flags & HAS_DISCARD != 0);
        // What is not there is zero, so that a message has one form.
        if (!has_sealed && sealed != Epoch::NONE) || (!has_discard && discard.0 != [0; 16]) {
            return Err(LayoutError::Field { field: "flags", value: flags.into() });
        }
        Ok(Self {
            past,
            acked,
            has_changed: flags & HAS_CHANGED != 0,
            claim: Claim { ticket, sealed: has_sealed.then_some(sealed) },
            discard: has_discard.then_some(discard),
        })
    }
}

pub(super) fn write_ticket(ticket: &Ticket, body: &mut Writer) {
    body.u64(ticket.number);
    body.array(&ticket.secret);
}

pub(super) fn read_ticket(body: &mut Reader<'_>) -> Result<Ticket, LayoutError> {
    Ok(Ticket { number: body.u64()?, secret: body.array()? })
}
