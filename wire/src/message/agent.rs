//! What the source's agent says.

use blocks::{ChunkSize, DiskId, Epoch, Generation, Geometry, MachineId, RetractReason};
use bytes::Bytes;

use super::{Envelope, Features, LeafRequest, MessageError, Origin, VersionRange, encode};
use crate::key::DataKey;
use crate::layout::{LayoutError, Reader, Writer};
use crate::text::Text;

/// Hashes asked for in one request at most: 256 MiB of disk.
pub const HASH_COUNT_MAX: u32 = 4096;

/// The name and version of a build, as it shows in logs.
pub type BuildName = Text<64>;

/// The name of a disk on its machine, as people know it. Never part of a path.
pub type DiskName = Text<255>;

/// The number of a request for hashes, chosen by the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A message of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentMessage {
    /// The first message: who speaks, and how.
    Hello(Hello),
    /// Asks to replicate a disk.
    OpenDisk(OpenDisk),
    /// Asks for hashes of the replica's content.
    HashRequest(HashRequest),
    /// Gives an epoch up; the answer is that it failed, or that it is durable after all.
    AbortEpoch {
        /// Its disk.
        disk: DiskId,
        /// The epoch.
        epoch: Epoch,
    },
    /// Ends the replication of a disk in this session.
    CloseDisk {
        /// The disk.
        disk: DiskId,
        /// What becomes of the replica.
        forget: Forget,
    },
    /// Asks for a [`Pong`](super::TargetMessage::Pong) with the same number.
    Ping(u64),
    /// No write that a point must hold was missed by tracking: the disk's points of epochs up to
    /// this one, which is durable, may be relied on.
    ConfirmPoints {
        /// The disk.
        disk: DiskId,
        /// The newest epoch that this is known of.
        through: Epoch,
    },
    /// Points that were never confirmed may lack writes.
    RetractPoints(RetractPoints),
    /// Asks for hashes of the leaves of blocks of the replica.
    LeafRequest(LeafRequest),
}

/// The first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions the agent speaks.
    pub versions: VersionRange,
    /// What the agent is able to do beyond its version.
    pub features: Features,
    /// The machine.
    pub machine: MachineId,
    /// The build of the agent.
    pub build: BuildName,
}

/// A request to replicate a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenDisk {
    /// The disk.
    pub disk: DiskId,
    /// The line of its history.
    pub generation: Generation,
    /// Its shape.
    pub geometry: Geometry,
    /// Its name on the machine.
    pub name: DiskName,
    /// The key its frames' session keys are derived from.
    pub key: DataKey,
    /// What it has been through.
    pub origin: Origin,
}

/// A request for hashes of [`COMPARE_BLOCK`](crate::COMPARE_BLOCK) bytes of the replica each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRequest {
    /// The disk.
    pub disk: DiskId,
    /// The number of the request.
    pub request: RequestId,
    /// The first block.
    pub first_block: u64,
    /// How many blocks: `1..=HASH_COUNT_MAX`.
    pub count: u32,
}

/// What becomes of a replica whose disk is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Forget {
    /// It is kept, and replication may go on later.
    Keep = 0,
    /// It is deleted, with its key.
    Forget = 1,
}

/// Says that points of a disk may lack writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetractPoints {
    /// The disk.
    pub disk: DiskId,
    /// Points of epochs up to this one stay as they are.
    pub after: Epoch,
    /// The last epoch whose point is retracted. Greater than `after`; it may still be on its way.
    pub through: Epoch,
    /// Why.
    pub reason: RetractReason,
}

const HELLO: u16 = 0x0001;
const OPEN_DISK: u16 = 0x0002;
const HASH_REQUEST: u16 = 0x0003;
const ABORT_EPOCH: u16 = 0x0004;
const CLOSE_DISK: u16 = 0x0005;
const PING: u16 = 0x0006;
const CONFIRM_POINTS: u16 = 0x0007;
const RETRACT_POINTS: u16 = 0x0008;
const LEAF_REQUEST: u16 = 0x0009;

impl AgentMessage {
    /// The message with its envelope.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Hello(hello) => encode(HELLO, |body| hello.write(body)),
            Self::OpenDisk(open) => encode(OPEN_DISK, |body| open.write(body)),
            Self::HashRequest(request) => encode(HASH_REQUEST, |body| request.write(body)),
            Self::AbortEpoch { disk, epoch } => encode(ABORT_EPOCH, |body| {
                body.array(&disk.0);
                body.u64(epoch.0);
            }),
            Self::CloseDisk { disk, forget } => encode(CLOSE_DISK, |body| {
                body.array(&disk.0);
                body.u8(*forget as u8);
            }),
            Self::Ping(number) => encode(PING, |body| body.u64(*number)),
            Self::ConfirmPoints { disk, through } => encode(CONFIRM_POINTS, |body| {
                body.array(&disk.0);
                body.u64(through.0);
            }),
            Self::RetractPoints(retract) => encode(RETRACT_POINTS, |body| retract.write(body)),
            Self::LeafRequest(request) => encode(LEAF_REQUEST, |body| request.write(body)),
        }
    }

    /// The message in an envelope.
    pub fn decode(envelope: &Envelope) -> Result<Self, MessageError> {
        let kind = envelope.kind;
        let mut body = Reader::new(&envelope.body);
        let message = match kind {
            HELLO => Hello::read(&mut body).map(Self::Hello),
            OPEN_DISK => OpenDisk::read(&mut body).map(Self::OpenDisk),
            HASH_REQUEST => HashRequest::read(&mut body).map(Self::HashRequest),
            ABORT_EPOCH => read_abort(&mut body),
            CLOSE_DISK => read_close(&mut body),
            PING => body.u64().map(Self::Ping),
            CONFIRM_POINTS => read_confirm(&mut body),
            RETRACT_POINTS => RetractPoints::read(&mut body).map(Self::RetractPoints),
            LEAF_REQUEST => LeafRequest::read(&mut body).map(Self::LeafRequest),
            _ => return Err(MessageError::Type(kind)),
        };
        // A later version may say more in its first message; it must still be understood far
        // enough to answer that it is too new.
        let checked = match message {
            Ok(Self::Hello(hello)) => Ok(Self::Hello(hello)),
            Ok(message) => body.end().map(|()| message),
            Err(error) => Err(error),
        };
        checked.map_err(|source| MessageError::Layout { kind, source })
    }
}

impl Hello {
    fn write(&self, body: &mut Writer) {
        body.u16(self.versions.min);
        body.u16(self.versions.max);
        body.u64(self.features.0);
        body.array(&self.machine.0);
        body.text(&self.build);
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        Ok(Self {
            versions: VersionRange { min: body.u16()?, max: body.u16()? },
            features: Features(body.u64()?),
            machine: MachineId(body.array()?),
            build: body.text()?,
        })
    }
}

impl OpenDisk {
    fn write(&self, body: &mut Writer) {
        body.array(&self.disk.0);
        body.array(&self.generation.0);
        body.u64(self.geometry.sectors());
        body.u32(self.geometry.logical_block());
        body.u32(1 << self.geometry.chunk().log2());
        body.array(self.key.expose());
        body.text(&self.name);
        self.origin.write(body);
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        let (disk, generation) = (DiskId(body.array()?), Generation(body.array()?));
        Ok(Self {
            disk,
            generation,
            geometry: read_geometry(body)?,
            key: DataKey::from_bytes(body.array()?),
            name: body.text()?,
            origin: Origin::read(body, generation)?,
        })
    }
}

impl HashRequest {
    fn write(&self, body: &mut Writer) {
        body.array(&self.disk.0);
        body.u64(self.request.0);
        body.u64(self.first_block);
        body.u32(self.count);
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        let request = Self {
            disk: DiskId(body.array()?),
            request: RequestId(body.u64()?),
            first_block: body.u64()?,
            count: body.u32()?,
        };
        match request.count {
            1..=HASH_COUNT_MAX => Ok(request),
            count => Err(LayoutError::Field { field: "count of hashes", value: count.into() }),
        }
    }
}

impl RetractPoints {
    fn write(&self, body: &mut Writer) {
        body.array(&self.disk.0);
        body.u64(self.after.0);
        body.u64(self.through.0);
        body.u8(self.reason as u8);
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        let (disk, after, through) = (DiskId(body.array()?), body.epoch()?, body.epoch()?);
        let reason = body.u8()?;
        let unknown = LayoutError::Field { field: "reason", value: reason.into() };
        let reason = RetractReason::from_u8(reason).ok_or(unknown)?;
        let retract = Self { disk, after, through, reason };
        let value = retract.through.0;
        let rises = retract.after < retract.through;
        if rises { Ok(retract) } else { Err(LayoutError::Field { field: "last epoch", value }) }
    }
}

fn read_confirm(body: &mut Reader<'_>) -> Result<AgentMessage, LayoutError> {
    Ok(AgentMessage::ConfirmPoints { disk: DiskId(body.array()?), through: body.epoch()? })
}

fn read_geometry(body: &mut Reader<'_>) -> Result<Geometry, LayoutError> {
    let (sectors, logical_block, chunk) = (body.u64()?, body.u32()?, body.u32()?);
    let chunk = ChunkSize::from_bytes(chunk.into())
        .map_err(|_| LayoutError::Field { field: "chunk size", value: chunk.into() })?;
    Geometry::new(sectors, logical_block, chunk)
        .map_err(|_| LayoutError::Field { field: "length in sectors", value: sectors })
}

fn read_abort(body: &mut Reader<'_>) -> Result<AgentMessage, LayoutError> {
    Ok(AgentMessage::AbortEpoch { disk: DiskId(body.array()?), epoch: body.epoch()? })
}

fn read_close(body: &mut Reader<'_>) -> Result<AgentMessage, LayoutError> {
    let disk = DiskId(body.array()?);
    let forget = match body.u8()? {
        0 => Forget::Keep,
        1 => Forget::Forget,
        value => return Err(LayoutError::Field { field: "fate", value: value.into() }),
    };
    Ok(AgentMessage::CloseDisk { disk, forget })
}
