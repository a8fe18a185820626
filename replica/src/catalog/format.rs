//! The record of a catalogue as bytes. `docs/replica-store.md` has the tables.
//!
//! Version 1 is the first 384 bytes with what version 2 added spare. In version 2 the ranges of
//! retracted epochs, the pins, the past lines of history and the tickets follow the fixed part.

use blocks::{
    ANCESTORS_MAX, Ancestor, ChunkSize, DiskId, Epoch, Generation, Geometry, Lineage, MachineId,
    PointRecord, RetractReason, Ticket, Tickets,
};
use storage::SLOT_PAYLOAD_MAX;
use wire::frame::{POINT_RECORD_LEN, decode_point, encode_point};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use super::{
    BaseKind, Completeness, DiskState, NAME_LEN_MAX, Record, RecordError, ReplicaRole, VERSION,
    marks::{Marks, PINS_MAX, RETRACTIONS_MAX, Retraction},
};

#[cfg(test)]
mod tests;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRecord {
    version: U16,
    content: u8,
    base: u8,
    name_len: U16,
    reserved: U16,
    disk: [u8; 16],
    generation: [u8; 16],
    machine: [u8; 16],
    sectors: U64,
    logical_block: U32,
    chunk_len: U32,
    last_durable: U64,
    folded: U64,
    name: [u8; 256],
    /// Spare in version 1, as are the rest of the fields.
    confirmed: U64,
    retractions: U16,
    pins: U16,
    has_base_point: u8,
    reserved_point: [u8; 3],
    hashed: U64,
    past: U16,
    role: u8,
    has_tickets: u8,
    spare: [u8; 12],
    // In version 2 follow the record of the base's point, or zeroes, and the lists.
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRetraction {
    first: U64,
    last: U64,
    reason: u8,
    reserved: [u8; 7],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawAncestor {
    generation: [u8; 16],
    through: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTicket {
    number: U64,
    secret: [u8; 16],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTickets {
    last: RawTicket,
    before: RawTicket,
    issued_at: U64,
}

const FIXED_LEN: usize = size_of::<RawRecord>() + POINT_RECORD_LEN;
const _: () = assert!(size_of::<RawRecord>() == 384 && FIXED_LEN == 448);
const LISTS_LEN_MAX: usize =
    RETRACTIONS_MAX * size_of::<RawRetraction>() + PINS_MAX * size_of::<U64>();
const ORIGIN_LEN_MAX: usize = ANCESTORS_MAX * size_of::<RawAncestor>() + size_of::<RawTickets>();
const _: () = assert!(FIXED_LEN + LISTS_LEN_MAX + ORIGIN_LEN_MAX <= SLOT_PAYLOAD_MAX);

impl Record {
    pub(super) fn encode(&self) -> Result<Vec<u8>, RecordError> {
        let mut name = [0; 256];
        let name_len = u16::try_from(self.name.len()).ok();
        let name_len = name_len.filter(|len| usize::from(*len) <= NAME_LEN_MAX);
        let name_len = name_len.ok_or(RecordError::Field("name"))?;
        name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let Marks { confirmed, retractions, pins } = &self.marks;
        let count = |len: usize| u16::try_from(len).expect("the marks are in order").into();
        let raw = RawRecord {
            version: VERSION.into(),
            content: match self.state.completeness {
                Completeness::Empty => 1,
                Completeness::Partial => 2,
                Completeness::Follows => 3,
            },
            base: match self.base {
                BaseKind::File => 1,
                BaseKind::Device => 2,
            },
            name_len: name_len.into(),
            reserved: U16::ZERO,
            disk: self.disk.0,
            generation: self.generation().0,
            machine: self.machine.0,
            sectors: self.geometry.sectors().into(),
            logical_block: self.geometry.logical_block().into(),
            chunk_len: (1 << self.geometry.chunk().log2()).into(),
            last_durable: self.state.last_durable.0.into(),
            folded: self.folded.0.into(),
            name,
            confirmed: confirmed.0.into(),
            retractions: count(retractions.len()),
            pins: count(pins.len()),
            has_base_point: self.base_point.is_some().into(),
            reserved_point: [0; 3],
            hashed: self.hashed.into(),
            past: count(self.lineage.past().len()),
            role: match self.role {
                ReplicaRole::Follower => 0,
                ReplicaRole::Promoted => 1,
            },
            has_tickets: (self.tickets != Tickets::default()).into(),
            spare: [0; 12],
        };
        let base_point = self.base_point.as_ref().map_or([0; POINT_RECORD_LEN], encode_point);
        let mut bytes = [raw.as_bytes(), &base_point].concat();
        for Retraction { first, last, reason } in retractions {
            let (first, last) = (first.0.into(), last.0.into());
            let raw = RawRetraction { first, last, reason: *reason as u8, reserved: [0; 7] };
            bytes.extend_from_slice(raw.as_bytes());
        }
        bytes.extend(pins.iter().flat_map(|pin| pin.0.to_le_bytes()));
        for line in self.lineage.past() {
            let (generation, through) = (line.generation.0, line.through.0.into());
            bytes.extend_from_slice(RawAncestor { generation, through }.as_bytes());
        }
        if self.tickets != Tickets::default() {
            bytes.extend_from_slice(RawTickets::of(&self.tickets).as_bytes());
        }
        Ok(bytes)
    }

    pub(super) fn decode_of(disk: DiskId, bytes: &[u8]) -> Result<Self, RecordError> {
        let record = Self::decode(bytes)?;
        if record.disk == disk { Ok(record) } else { Err(RecordError::OtherDisk(record.disk)) }
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let length = || RecordError::Length(bytes.len());
        let version = u16::from_le_bytes(*bytes.first_chunk().ok_or_else(length)?);
        let (raw, rest) = RawRecord::ref_from_prefix(bytes).map_err(|_| length())?;
        let current = Generation(raw.generation);
        let (base_point, marks, origin) = match version {
            1 if rest.is_empty() => {
                let begun = (Lineage::begin(current), ReplicaRole::Follower, Tickets::default());
                (None, Marks::default(), begun)
            }
            VERSION => {
                let (point, marks, rest) = decode_history(raw, rest, bytes.len())?;
                (point, marks, decode_origin(raw, rest, bytes.len())?)
            }
            1 => return Err(length()),
            version => return Err(RecordError::Version(version)),
        };
        let name = raw.name.get(..usize::from(raw.name_len.get()));
        let name = name.and_then(|name| str::from_utf8(name).ok());
        let chunk = ChunkSize::from_bytes(u64::from(raw.chunk_len.get())).ok();
        let geometry =
            chunk.and_then(|c| Geometry::new(raw.sectors.get(), raw.logical_block.get(), c).ok());
        let (lineage, role, tickets) = origin;
        let record = Self {
            disk: DiskId(raw.disk),
            lineage,
            role,
            tickets,
            machine: MachineId(raw.machine),
            geometry: geometry.ok_or(RecordError::Field("geometry"))?,
            base: match raw.base {
                1 => BaseKind::File,
                2 => BaseKind::Device,
                _ => return Err(RecordError::Field("kind of base")),
            },
            state: DiskState {
                last_durable: Epoch(raw.last_durable.get()),
                completeness: match raw.content {
                    1 => Completeness::Empty,
                    2 => Completeness::Partial,
                    3 => Completeness::Follows,
                    _ => return Err(RecordError::Field("content")),
                },
            },
            folded: Epoch(raw.folded.get()),
            name: name.ok_or(RecordError::Field("name"))?.to_owned(),
            base_point,
            hashed: if version == 1 { 0 } else { raw.hashed.get() },
            marks,
        };
        record.check()
    }
}

impl RawTickets {
    fn of(tickets: &Tickets) -> Self {
        let raw =
            |ticket: Ticket| RawTicket { number: ticket.number.into(), secret: ticket.secret };
        let Tickets { last, before, issued_at } = *tickets;
        Self { last: raw(last), before: raw(before), issued_at: issued_at.0.into() }
    }

    fn tickets(&self) -> Tickets {
        let ticket = |raw: &RawTicket| Ticket { number: raw.number.get(), secret: raw.secret };
        let issued_at = Epoch(self.issued_at.get());
        Tickets { last: ticket(&self.last), before: ticket(&self.before), issued_at }
    }
}

/// What a replica has been through, at the end of a record of `len` bytes.
fn decode_origin(
    raw: &RawRecord,
    rest: &[u8],
    len: usize,
) -> Result<(Lineage, ReplicaRole, Tickets), RecordError> {
    let length = || RecordError::Length(len);
    let past = usize::from(raw.past.get());
    let (past, rest) =
        <[RawAncestor]>::ref_from_prefix_with_elems(rest, past).map_err(|_| length())?;
    let ancestor = |raw: &RawAncestor| Ancestor {
        generation: Generation(raw.generation),
        through: Epoch(raw.through.get()),
    };
    let past = past.iter().map(ancestor).collect();
    let lineage = Lineage::new(Generation(raw.generation), past);
    let lineage = lineage.map_err(|_| RecordError::Field("lines of history"))?;
    let role = match raw.role {
        0 => ReplicaRole::Follower,
        1 => ReplicaRole::Promoted,
        _ => return Err(RecordError::Field("role")),
    };
    let tickets = match raw.has_tickets {
        0 if rest.is_empty() => Tickets::default(),
        0 => return Err(length()),
        1 => RawTickets::ref_from_bytes(rest).map_err(|_| length())?.tickets(),
        _ => return Err(RecordError::Field("tickets")),
    };
    Ok((lineage, role, tickets))
}

/// The point of the base and the marks, and what follows them.
fn decode_history<'a>(
    raw: &RawRecord,
    rest: &'a [u8],
    len: usize,
) -> Result<(Option<PointRecord>, Marks, &'a [u8]), RecordError> {
    let length = || RecordError::Length(len);
    let (retractions, pins) = (usize::from(raw.retractions.get()), usize::from(raw.pins.get()));
    let (point, rest) = rest.split_first_chunk::<POINT_RECORD_LEN>().ok_or_else(length)?;
    let point = match raw.has_base_point {
        0 => None,
        1 => Some(decode_point(point).ok_or(RecordError::Field("point of the base"))?),
        _ => return Err(RecordError::Field("point of the base")),
    };
    let (ranges, rest) =
        <[RawRetraction]>::ref_from_prefix_with_elems(rest, retractions).map_err(|_| length())?;
    let (pins, rest) = <[U64]>::ref_from_prefix_with_elems(rest, pins).map_err(|_| length())?;
    let range = |raw: &RawRetraction| {
        let (first, last) = (Epoch(raw.first.get()), Epoch(raw.last.get()));
        Some(Retraction { first, last, reason: RetractReason::from_u8(raw.reason)? })
    };
    let ranges: Option<Vec<Retraction>> = ranges.iter().map(range).collect();
    let marks = Marks {
        confirmed: Epoch(raw.confirmed.get()),
        retractions: ranges.ok_or(RecordError::Field("retractions"))?,
        pins: pins.iter().map(|pin| Epoch(pin.get())).collect(),
    };
    Ok((point, marks, rest))
}
