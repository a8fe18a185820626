//! What may not be said on the control stream, or not now.

use anyhow::{Result, bail, ensure};
use blocks::{DiskId, Epoch, MachineId};
use wire::message::{Features, Forget, HashRequest, Hello, RequestId, VersionRange};
use wire::session::{HASH_REQUESTS_MAX, SourceEvent};
use wire::{AgentMessage, Reason, Sealer, Text};

use super::attacker::{Attacker, GENERATION, SECTORS, closes, epoch, key, open};
use super::{attack, withstands};
use crate::stranger::End;

/// How far the conversation has come.
#[derive(Clone, Copy)]
enum After {
    /// Nothing was said.
    Nothing,
    /// The target has said welcome.
    Welcome,
    /// A disk is open, which is the one that the words are about.
    Opening,
}

/// Words that end the connection.
struct Words {
    name: &'static str,
    after: After,
    say: fn(DiskId) -> Vec<u8>,
    reason: Reason,
}

const fn words(
    name: &'static str,
    after: After,
    say: fn(DiskId) -> Vec<u8>,
    reason: Reason,
) -> Words {
    Words { name, after, say, reason }
}

use After::{Nothing, Opening, Welcome};
use Reason::{NotAuthenticated, ProtocolViolation, TooLarge, UnknownDisk, VersionMismatch};

static WORDS: [Words; 32] = [
    words("a later version", Nothing, |_| hello(MachineId([1; 16]), 2), VersionMismatch),
    words("another machine's name", Nothing, |_| hello(MachineId([1; 16]), 1), NotAuthenticated),
    words("a message of 4 GiB", Nothing, |_| vec![0xff; 4096], TooLarge),
    words("a message without a type", Nothing, |_| vec![1, 0, 0, 0, 7], ProtocolViolation),
    words("a disk before the hello", Nothing, opening, ProtocolViolation),
    words("a ping before the hello", Nothing, |_| said(&AgentMessage::Ping(1)), ProtocolViolation),
    words("the target's own words", Nothing, |_| raw(0x8009, &[0; 8]), ProtocolViolation),
    words("a second hello", Welcome, |_| hello(MachineId([1; 16]), 1), ProtocolViolation),
    words("a message that does not exist", Welcome, |_| raw(0x7777, &[1; 4]), ProtocolViolation),
    words("an enrolment", Welcome, |_| raw(0x4001, &[0; 64]), ProtocolViolation),
    words("a body that is cut off", Welcome, |_| raw(6, &[0; 7]), ProtocolViolation),
    words("a body that goes on", Welcome, |_| raw(6, &[0; 9]), ProtocolViolation),
    words("a body of 1 MiB", Welcome, |_| raw(6, &[0; (1 << 20) - 2]), ProtocolViolation),
    words("one byte too many", Welcome, |_| raw(6, &[0; (1 << 20) - 1]), TooLarge),
    words("a disk of no sectors", Welcome, |d| shaped(d, 0, 512, 4096), ProtocolViolation),
    words("a disk of 2^63 sectors", Welcome, |d| shaped(d, 1 << 63, 512, 4096), ProtocolViolation),
    words("blocks of 3 bytes", Welcome, |d| shaped(d, 8, 3, 4096), ProtocolViolation),
    words("blocks above the chunk", Welcome, |d| shaped(d, 8, 8192, 4096), ProtocolViolation),
    words("chunks of 4 GiB", Welcome, |d| shaped(d, 8, 512, u32::MAX), ProtocolViolation),
    words("a name of 64 KiB", Welcome, |d| named(d, u16::MAX, b"x"), ProtocolViolation),
    words("a name of half a letter", Welcome, |d| named(d, 1, &[0xc3]), ProtocolViolation),
    words("a name with an escape", Welcome, |d| named(d, 4, b"\x1b[2J"), ProtocolViolation),
    words("hashes of an unknown disk", Welcome, |d| hashes(d, 0, [1]), UnknownDisk),
    words("the end of an unknown epoch", Welcome, |d| said(&abort(d)), UnknownDisk),
    words("the end of an unknown disk", Welcome, |d| said(&close(d)), UnknownDisk),
    words("points of an unknown disk", Welcome, |d| said(&confirm(d, 0)), UnknownDisk),
    words("a disk twice", Opening, opening, ProtocolViolation),
    words("hashes past the end", Opening, |d| hashes(d, SECTORS / 128, [1]), ProtocolViolation),
    words("hashes without end", Opening, |d| hashes(d, u64::MAX, [1]), ProtocolViolation),
    words("one number for two", Opening, |d| hashes(d, 0, [1, 1]), ProtocolViolation),
    words("too many questions", Opening, |d| hashes(d, 0, 0..QUESTIONS), ProtocolViolation),
    words("points that are not durable", Opening, |d| said(&confirm(d, 5)), ProtocolViolation),
];

/// More than are answered while they are read.
const QUESTIONS: u64 = HASH_REQUESTS_MAX as u64 * 64;

fn said(message: &AgentMessage) -> Vec<u8> {
    message.encode().to_vec()
}

fn raw(kind: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 2).expect("a short message").to_le_bytes();
    [&len[..], &kind.to_le_bytes(), body].concat()
}

fn hello(machine: MachineId, version: u16) -> Vec<u8> {
    let (versions, features) = (VersionRange { min: version, max: version }, Features(0));
    let build = Text::lossy("hostile");
    said(&AgentMessage::Hello(Hello { versions, features, machine, build }))
}

fn opening(disk: DiskId) -> Vec<u8> {
    said(&AgentMessage::OpenDisk(open(disk, SECTORS).expect("a shape that disks have")))
}

/// A disk of another shape, which need not be one.
fn shaped(disk: DiskId, sectors: u64, logical_block: u32, chunk: u32) -> Vec<u8> {
    // Length and type, disk, generation; then the shape.
    let mut bytes = opening(disk);
    bytes[38..46].copy_from_slice(&sectors.to_le_bytes());
    bytes[46..50].copy_from_slice(&logical_block.to_le_bytes());
    bytes[50..54].copy_from_slice(&chunk.to_le_bytes());
    bytes
}

/// A disk with another name, and another length than the name's.
fn named(disk: DiskId, len: u16, name: &[u8]) -> Vec<u8> {
    let before = &opening(disk)[6..86];
    raw(2, &[before, &len.to_le_bytes(), name].concat())
}

fn hashes(disk: DiskId, first_block: u64, numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let ask = |number| {
        let request = RequestId(number);
        said(&AgentMessage::HashRequest(HashRequest { disk, request, first_block, count: 1 }))
    };
    numbers.into_iter().flat_map(ask).collect()
}

fn abort(disk: DiskId) -> AgentMessage {
    AgentMessage::AbortEpoch { disk, epoch: Epoch(1) }
}

fn close(disk: DiskId) -> AgentMessage {
    AgentMessage::CloseDisk { disk, forget: Forget::Forget }
}

fn confirm(disk: DiskId, through: u64) -> AgentMessage {
    AgentMessage::ConfirmPoints { disk, through: Epoch(through) }
}

impl Words {
    fn speak(&self, attacker: &mut Attacker<'_>) -> Result<()> {
        let (mut stranger, disk) = match self.after {
            After::Nothing => (attacker.connect()?, attacker.fresh_disk()),
            After::Welcome => (attacker.introduced()?, attacker.fresh_disk()),
            After::Opening => {
                let hold = attacker.foothold()?;
                (hold.stranger, hold.disk)
            }
        };
        stranger.say(&(self.say)(disk));
        closes(stranger, self.reason)
    }
}

#[test]
fn what_may_not_be_said_closes_the_connection() -> Result<()> {
    let speak = |words: &'static Words| attack(words.name, |attacker| words.speak(attacker));
    withstands(|_| WORDS.iter().map(speak).collect())
}

#[test]
fn what_belongs_to_others_is_out_of_reach() -> Result<()> {
    withstands(|others| {
        vec![
            attack("another machine's disk", move |attacker| {
                refused(attacker, others, SECTORS, Reason::NotAuthorised)
            }),
            attack("a disk of 8 PiB", |attacker| {
                let disk = attacker.fresh_disk();
                refused(attacker, disk, 1 << 44, Reason::DiskTooLarge)
            }),
            attack("frames of another machine's disk", move |attacker| {
                let mut stranger = attacker.introduced()?;
                let sealer = Sealer::new(&key(), others, GENERATION)?;
                stranger.send(&epoch(&sealer, 1)?, End::Finished)?;
                closes(stranger, Reason::UnknownDisk)
            }),
        ]
    })
}

/// Asks for a disk, which the target must refuse without closing the connection.
fn refused(attacker: &Attacker<'_>, disk: DiskId, sectors: u64, reason: Reason) -> Result<()> {
    let mut stranger = attacker.introduced()?;
    match stranger.open_disk(open(disk, sectors)?)? {
        SourceEvent::Refused(refused) => ensure!(refused.code == reason, "{}", refused.code),
        other => bail!("{other:?} instead of a refusal"),
    }
    stranger.session().ping(7)?;
    stranger.transmit();
    let event = stranger.next_event()?;
    ensure!(event == SourceEvent::Pong(7), "{event:?} instead of a pong");
    Ok(())
}
