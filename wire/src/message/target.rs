//! What the target says.

use blocks::{ByteLen, DiskId, Epoch, Generation, MachineId, Ticket};
use bytes::Bytes;

use super::origin::{read_ticket, write_ticket};
use super::{Envelope, Features, HASH_COUNT_MAX, Leaves, MessageError, RequestId, encode};
use crate::close::{CloseCode, Detail};
use crate::layout::{LayoutError, Reader, Writer};

/// A message of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetMessage {
    /// The first message: the answer to the agent's hello.
    Welcome(Welcome),
    /// A disk is open, and this is where to go on.
    DiskOpened(DiskOpened),
    /// A disk can't be replicated here, or no longer.
    DiskRefused(DiskRefused),
    /// An epoch is durable: its dirty bits may be forgotten.
    EpochDurable {
        /// Its disk.
        disk: DiskId,
        /// The epoch.
        epoch: Epoch,
    },
    /// An epoch is lost: its dirty bits must be sent again in a later one.
    EpochFailed(EpochFailed),
    /// The answer to a request for hashes.
    Hashes(Hashes),
    /// So many bytes of an epoch's frames were consumed; as many more may be sent.
    Credit {
        /// The disk.
        disk: DiskId,
        /// The epoch whose frames were consumed.
        epoch: Epoch,
        /// Bytes of frames consumed since the last credit.
        consumed: ByteLen,
    },
    /// A disk was closed as asked; if it was to be forgotten, it is.
    DiskClosed {
        /// The disk.
        disk: DiskId,
    },
    /// The answer to a ping.
    Pong(u64),
    /// The answer to a request for hashes of leaves.
    Leaves(Leaves),
}

/// The answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version both ends speak from now on.
    pub version: u16,
    /// The features both ends have.
    pub features: Features,
    /// The target's machine.
    pub target: MachineId,
    /// Bytes of frames of one disk that may be sent and not consumed yet.
    pub window: ByteLen,
}

/// Where to go on with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOpened {
    /// The disk.
    pub disk: DiskId,
    /// The line of its history that the replica belongs to: the one that was asked for.
    pub generation: Generation,
    /// The newest epoch that the replica holds.
    pub last_durable: Epoch,
    /// The newest epoch whose points were confirmed; at most `last_durable`.
    pub confirmed: Epoch,
    /// What that amounts to.
    pub state: ReplicaState,
    /// What to show at the next opening, and to keep before anything is sent.
    pub ticket: Ticket,
}

/// What a replica holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ReplicaState {
    /// Nothing.
    Empty = 0,
    /// A part of the disk: the initial synchronisation or a comparison has not completed.
    Partial = 1,
    /// The disk as of the newest epoch.
    Follows = 2,
}

/// Why a disk can't be replicated here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRefused {
    /// The disk.
    pub disk: DiskId,
    /// The reason.
    pub code: CloseCode,
    /// A few words more.
    pub detail: Detail,
    /// The line that the replica is in, where the reason is that it is not the source's: what a
    /// person names who wants it to be written over. Never all zeroes.
    pub replica: Option<Generation>,
}

/// Why an epoch is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochFailed {
    /// Its disk.
    pub disk: DiskId,
    /// The epoch.
    pub epoch: Epoch,
    /// The reason.
    pub code: CloseCode,
    /// A few words more.
    pub detail: Detail,
}

/// BLAKE3 hashes of blocks of the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// The disk.
    pub disk: DiskId,
    /// The request this answers.
    pub request: RequestId,
    /// The first block.
    pub first_block: u64,
    /// A hash for each block, at most [`HASH_COUNT_MAX`] of them; more are not sent.
    pub hashes: Vec<[u8; 32]>,
}

const WELCOME: u16 = 0x8001;
const DISK_OPENED: u16 = 0x8002;
const DISK_REFUSED: u16 = 0x8003;
const EPOCH_DURABLE: u16 = 0x8004;
const EPOCH_FAILED: u16 = 0x8005;
const HASHES: u16 = 0x8006;
const CREDIT: u16 = 0x8007;
const DISK_CLOSED: u16 = 0x8008;
const PONG: u16 = 0x8009;
const LEAVES: u16 = 0x800a;

impl TargetMessage {
    /// The message with its envelope.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Welcome(welcome) => encode(WELCOME, |body| welcome.write(body)),
            Self::DiskOpened(opened) => encode(DISK_OPENED, |body| opened.write(body)),
            Self::DiskRefused(refused) => encode(DISK_REFUSED, |body| refused.write(body)),
            Self::EpochDurable { disk, epoch } => encode(EPOCH_DURABLE, |body| {
                body.array(&disk.0);
                body.u64(epoch.0);
            }),
            Self::EpochFailed(failed) => encode(EPOCH_FAILED, |body| failed.write(body)),
            Self::Hashes(hashes) => encode(HASHES, |body| hashes.write(body)),
            Self::Credit { disk, epoch, consumed } => encode(CREDIT, |body| {
                body.array(&disk.0);
                body.u64(epoch.0);
                body.u64(consumed.0);
            }),
            Self::DiskClosed { disk } => encode(DISK_CLOSED, |body| body.array(&disk.0)),
            Self::Pong(number) => encode(PONG, |body| body.u64(*number)),
            Self::Leaves(leaves) => encode(LEAVES, |body| leaves.write(body)),
        }
    }

    /// The message in an envelope.
    pub fn decode(envelope: &Envelope) -> Result<Self, MessageError> {
        let kind = envelope.kind;
        let mut body = Reader::new(&envelope.body);
        let message = match kind {
            WELCOME => Welcome::read(&mut body).map(Self::Welcome),
            DISK_OPENED => DiskOpened::read(&mut body).map(Self::DiskOpened),
            DISK_REFUSED => DiskRefused::read(&mut body).map(Self::DiskRefused),
            EPOCH_DURABLE => read_durable(&mut body),
            EPOCH_FAILED => EpochFailed::read(&mut body).map(Self::EpochFailed),
            HASHES => Hashes::read(&mut body).map(Self::Hashes),
            CREDIT => read_credit(&mut body),
            DISK_CLOSED => body.array().map(|disk| Self::DiskClosed { disk: DiskId(disk) }),
            PONG => body.u64().map(Self::Pong),
            LEAVES => Leaves::read(&mut body).map(Self::Leaves),
            _ => return Err(MessageError::Type(kind)),
        };
        let checked = message.and_then(|message| body.end().map(|()| message));
        checked.map_err(|source| MessageError::Layout { kind, source })
    }
}

impl Welcome {
    fn write(&self, body: &mut Writer) {
        body.u16(self.version);
        body.u64(self.features.0);
        body.array(&self.target.0);
        body.u64(self.window.0);
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        Ok(Self {
            version: body.u16()?,
            features: Features(body.u64()?),
            target: MachineId(body.array()?),
            window: ByteLen(body.u64()?),
        })
    }
}

impl DiskOpened {
    fn write(&self, body: &mut Writer) {
        body.array(&self.disk.0);
        body.array(&self.generation.0);
        body.u64(self.last_durable.0);
        body.u64(self.confirmed.0);
        body.u8(self.state as u8);
        write_ticket(&self.ticket, body);
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        Ok(Self {
            disk: DiskId(body.array()?),
            generation: Generation(body.array()?),
            last_durable: body.epoch()?,
            confirmed: body.epoch()?,
            state: match body.u8()? {
                0 => ReplicaState::Empty,
                1 => ReplicaState::Partial,
                2 => ReplicaState::Follows,
                value => return Err(LayoutError::Field { field: "state", value: value.into() }),
            },
            ticket: read_ticket(body)?,
        })
    }
}

impl DiskRefused {
    fn write(&self, body: &mut Writer) {
        body.array(&self.disk.0);
        body.u32(self.code.number());
        body.text(&self.detail);
        body.array(&self.replica.map_or([0; 16], |generation| generation.0));
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        Ok(Self {
            disk: DiskId(body.array()?),
            code: CloseCode::from_number(body.u32()?),
            detail: body.text()?,
            replica: Some(Generation(body.array()?)).filter(|line| line.0 != [0; 16]),
        })
    }
}

impl EpochFailed {
    fn write(&self, body: &mut Writer) {
        body.array(&self.disk.0);
        body.u64(self.epoch.0);
        body.u32(self.code.number());
        body.text(&self.detail);
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        Ok(Self {
            disk: DiskId(body.array()?),
            epoch: body.epoch()?,
            code: CloseCode::from_number(body.u32()?),
            detail: body.text()?,
        })
    }
}

impl Hashes {
    fn write(&self, body: &mut Writer) {
        let hashes = &self.hashes[..self.hashes.len().min(HASH_COUNT_MAX as usize)];
        body.array(&self.disk.0);
        body.u64(self.request.0);
        body.u64(self.first_block);
        body.u32(u32::try_from(hashes.len()).expect("cut to HASH_COUNT_MAX"));
        hashes.iter().for_each(|hash| body.array(hash));
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        let disk = DiskId(body.array()?);
        let request = RequestId(body.u64()?);
        let first_block = body.u64()?;
        let count = body.u32()?;
        if count > HASH_COUNT_MAX {
            return Err(LayoutError::Field { field: "count of hashes", value: count.into() });
        }
        let (hashes, _) = body.bytes(count as usize * 32)?.as_chunks::<32>();
        Ok(Self { disk, request, first_block, hashes: hashes.to_vec() })
    }
}

fn read_durable(body: &mut Reader<'_>) -> Result<TargetMessage, LayoutError> {
    Ok(TargetMessage::EpochDurable { disk: DiskId(body.array()?), epoch: body.epoch()? })
}

fn read_credit(body: &mut Reader<'_>) -> Result<TargetMessage, LayoutError> {
    Ok(TargetMessage::Credit {
        disk: DiskId(body.array()?),
        epoch: body.epoch()?,
        consumed: ByteLen(body.u64()?),
    })
}
