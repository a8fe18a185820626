//! What may not come on a data stream: no frames, damaged ones, and ones that don't belong.

use anyhow::{Context, Result, ensure};
use blocks::{DiskId, Generation};
use wire::{DataKey, Reason, Sealer};

use super::attacker::{Attacker, Foothold, GENERATION, SECTORS, closes, epoch, frame, key, link};
use super::{Attack, attack, withstands};
use crate::stranger::End;

/// Bytes on one stream, for an open disk whose first epoch is 1, that end the connection.
struct Bytes {
    name: &'static str,
    send: fn(&Foothold) -> Result<Vec<u8>>,
    reason: Reason,
}

const fn bytes(
    name: &'static str,
    send: fn(&Foothold) -> Result<Vec<u8>>,
    reason: Reason,
) -> Bytes {
    Bytes { name, send, reason }
}

use Reason::{
    BadFrame, GenerationMismatch, ProtocolViolation, Replay, TooLarge, UnknownDisk, VersionMismatch,
};

static BYTES: [Bytes; 22] = [
    bytes("noise", |_| Ok(vec![0xa5; 100_000]), BadFrame),
    bytes("half a frame", |hold| Ok(epoch(&hold.sealer, 1)?[..2000].to_vec()), BadFrame),
    bytes("half a header", |hold| Ok(epoch(&hold.sealer, 1)?[..50].to_vec()), BadFrame),
    bytes("an epoch without its end", |hold| content(hold, 0), ProtocolViolation),
    bytes("a flipped bit of a header", |hold| flipped(hold, 30), BadFrame),
    bytes("a flipped bit of a table", |hold| flipped(hold, 110), BadFrame),
    bytes("a flipped bit of a payload", |hold| flipped(hold, 1000), BadFrame),
    bytes("a frame of version 2", |hold| mended(hold, 4, &[2, 0]), VersionMismatch),
    bytes("a frame of 4 GiB", |hold| mended(hold, 16, &[0xff; 4]), TooLarge),
    bytes("data of 4 GiB", |hold| mended(hold, 12, &[0xff; 4]), TooLarge),
    bytes("65,535 extents", |hold| mended(hold, 10, &[0xff; 2]), TooLarge),
    bytes("no extents", |hold| mended(hold, 10, &[0; 2]), BadFrame),
    bytes("an epoch that nothing can follow", |hold| mended(hold, 68, &[0xff; 8]), BadFrame),
    bytes("an epoch before the one it follows", |hold| mended(hold, 76, &[9]), BadFrame),
    bytes("a kind that does not exist", |hold| mended(hold, 6, &[9]), BadFrame),
    bytes("past the end of the disk", |hold| at(hold, SECTORS - 4), ProtocolViolation),
    bytes("a disk that is not open", |_| of(DiskId([200; 16]), GENERATION), UnknownDisk),
    bytes("another generation", |hold| of(hold.disk, Generation([1; 16])), GenerationMismatch),
    bytes("a frame twice", |hold| Ok(content(hold, 0)?.repeat(2)), Replay),
    bytes("frames backwards", |hold| Ok([content(hold, 5)?, content(hold, 4)?].concat()), Replay),
    bytes("a frame after the end", after_the_end, ProtocolViolation),
    bytes("two epochs on one stream", two_epochs, ProtocolViolation),
];

fn content(hold: &Foothold, sequence: u64) -> Result<Vec<u8>> {
    frame(&hold.sealer, link(1), sequence, (0, 8))
}

fn at(hold: &Foothold, sector: u64) -> Result<Vec<u8>> {
    frame(&hold.sealer, link(1), 0, (sector, 8))
}

fn of(disk: DiskId, generation: Generation) -> Result<Vec<u8>> {
    epoch(&Sealer::new(&key(), disk, generation)?, 1)
}

fn flipped(hold: &Foothold, at: usize) -> Result<Vec<u8>> {
    let mut bytes = epoch(&hold.sealer, 1)?;
    bytes[at] ^= 1;
    Ok(bytes)
}

/// An epoch whose first header holds something else, under a checksum that agrees.
fn mended(hold: &Foothold, at: usize, field: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = epoch(&hold.sealer, 1)?;
    bytes[at..at + field.len()].copy_from_slice(field);
    let checksum = crc32c(&bytes[..100]);
    bytes[100..104].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn after_the_end(hold: &Foothold) -> Result<Vec<u8>> {
    Ok([epoch(&hold.sealer, 1)?, content(hold, 9)?].concat())
}

fn two_epochs(hold: &Foothold) -> Result<Vec<u8>> {
    Ok([content(hold, 0)?, frame(&hold.sealer, link(2), 1, (0, 8))?].concat())
}

impl Bytes {
    fn strike(&self, attacker: &mut Attacker<'_>) -> Result<()> {
        let mut hold = attacker.foothold()?;
        let bytes = (self.send)(&hold)?;
        hold.stranger.send(&bytes, End::Finished)?;
        closes(hold.stranger, self.reason)
    }
}

#[test]
fn what_is_no_frame_or_out_of_place_closes_the_connection() -> Result<()> {
    let strike = |bytes: &'static Bytes| attack(bytes.name, |attacker| bytes.strike(attacker));
    withstands(|_| BYTES.iter().map(strike).chain(in_turns()).collect())
}

/// What takes more than one stream, or comes at another time.
fn in_turns() -> [Attack; 5] {
    [
        attack("frames before the hello", |attacker| {
            let mut early = attacker.connect()?;
            let sealer = Sealer::new(&key(), DiskId([1; 16]), GENERATION)?;
            early.send(&epoch(&sealer, 1)?, End::Finished)?;
            early.say_hello(attacker.id, wire::message::VersionRange::SUPPORTED);
            // The two ways are not ordered.
            let code = early.closed().context("a frame before the hello")?;
            ensure!([ProtocolViolation, UnknownDisk].iter().any(|it| code == *it), "{code}");
            Ok(())
        }),
        attack("an epoch that is durable", |attacker| {
            let mut hold = attacker.foothold()?;
            let first = epoch(&hold.sealer, 1)?;
            hold.begin(1)?;
            hold.succeeds(&first)?;
            hold.stranger.send(&first, End::Finished)?;
            closes(hold.stranger, Replay)
        }),
        attack("an epoch on two streams", |attacker| {
            let mut hold = attacker.foothold()?;
            let first = content(&hold, 0)?;
            hold.stranger.send(&first, End::LeftOpen)?;
            hold.stranger.send(&first, End::LeftOpen)?;
            closes(hold.stranger, Replay)
        }),
        attack("frames of two keys in one epoch", |attacker| {
            let mut hold = attacker.foothold()?;
            let other = Sealer::new(&key(), hold.disk, GENERATION)?;
            let mixed = [content(&hold, 0)?, frame(&other, link(1), 1, (8, 8))?].concat();
            hold.stranger.send(&mixed, End::Finished)?;
            closes(hold.stranger, ProtocolViolation)
        }),
        attack("a fifth epoch at once", |attacker| {
            let mut hold = attacker.foothold()?;
            for number in 1..=5 {
                let bytes = frame(&hold.sealer, link(number), 0, (0, 8))?;
                hold.stranger.send(&bytes, End::LeftOpen)?;
            }
            closes(hold.stranger, ProtocolViolation)
        }),
    ]
}

/// A forger: all checksums hold, and the key is not the disk's.
pub(super) fn forger(disk: DiskId) -> Result<Sealer> {
    Ok(Sealer::new(&DataKey::from_bytes([4; 32]), disk, GENERATION)?)
}

/// CRC-32C, bit by bit: the only one a test needs.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
