//! Too much of everything, and too little: what takes memory, threads or patience of the target.

use anyhow::Result;
use blocks::{Epoch, EpochKind, RetractReason};
use wire::message::{OpenDisk, RetractPoints};
use wire::{AgentMessage, EpochLink, Reason, Sealer, Text};

use super::attacker::{Attacker, GENERATION, SECTORS, closes, frame, key, link, open, outlives};
use super::{attack, withstands};
use crate::stranger::{End, Stranger};

/// As many as QUIC lets an agent open at once.
const STREAMS: usize = 256;

#[test]
fn floods_are_contained() -> Result<()> {
    withstands(|_| {
        vec![
            attack("a million pings", |attacker| {
                said_over_and_over(attacker, 1 << 20, |_| AgentMessage::Ping(1))
            }),
            attack("200,000 retractions", |attacker| {
                said_over_and_over(attacker, 200_000, |disk| {
                    let (after, through) = (Epoch::NONE, Epoch(1));
                    let reason = RetractReason::Gap;
                    AgentMessage::RetractPoints(RetractPoints { disk, after, through, reason })
                })
            }),
            attack("200,000 aborts", |attacker| {
                said_over_and_over(attacker, 200_000, |disk| AgentMessage::AbortEpoch {
                    disk,
                    epoch: Epoch(1),
                })
            }),
            attack("more than the window", beyond_the_window),
            attack("an epoch that is always about to come", waiting_for_the_first),
            attack("as many streams as there are", silent_streams),
            attack("four epochs of every disk", epochs_of_many_disks),
            attack("a hundred connections", |attacker| {
                let all: Vec<_> = (0..100).map(|_| attacker.introduced()).collect::<Result<_>>()?;
                outlives(attacker, all.into_iter().next_back().expect("a hundred"))
            }),
            attack("a message byte by byte", |attacker| {
                let mut stranger = attacker.connect()?;
                let bytes = AgentMessage::Ping(1).encode();
                bytes.iter().for_each(|byte| stranger.say(&[*byte]));
                closes(stranger, Reason::ProtocolViolation)
            }),
            attack("a message that is never finished", |attacker| {
                let mut stranger = attacker.introduced()?;
                stranger.say(&[0, 0, 16, 0]);
                stranger.say(&vec![0; 1 << 19]);
                outlives(attacker, stranger)
            }),
        ]
    })
}

/// Says something about an open disk so many times, and leaves.
fn said_over_and_over(
    attacker: &mut Attacker<'_>,
    times: usize,
    say: fn(blocks::DiskId) -> AgentMessage,
) -> Result<()> {
    let mut hold = attacker.foothold()?;
    let bytes = say(hold.disk).encode().repeat(1000);
    for _ in 0..times / 1000 {
        hold.stranger.say(&bytes);
    }
    outlives(attacker, hold.stranger)
}

fn beyond_the_window(attacker: &mut Attacker<'_>) -> Result<()> {
    let mut hold = attacker.foothold()?;
    hold.stranger.send(&frame(&hold.sealer, link(1), 0, (0, 8))?, End::LeftOpen)?;
    let mut bytes = Vec::new();
    for sequence in 0..64 {
        bytes.extend(frame(&hold.sealer, link(2), sequence, (0, 2048))?);
    }
    hold.stranger.send(&bytes, End::Finished)?;
    closes(hold.stranger, Reason::ProtocolViolation)
}

/// Epochs that wait for one that never ends, each with as much as fits.
fn waiting_for_the_first(attacker: &mut Attacker<'_>) -> Result<()> {
    let mut hold = attacker.foothold()?;
    for number in 1..=4 {
        let mut bytes = Vec::new();
        for sequence in 0..6 {
            bytes.extend(frame(&hold.sealer, link(number), sequence, (0, 2048))?);
        }
        hold.stranger.send(&bytes, End::LeftOpen)?;
    }
    outlives(attacker, hold.stranger)
}

/// Streams with the first half of a frame each.
fn silent_streams(attacker: &mut Attacker<'_>) -> Result<()> {
    let mut hold = attacker.foothold()?;
    let bytes = frame(&hold.sealer, link(1), 0, (0, 2048))?;
    for _ in 0..STREAMS {
        hold.stranger.send(&bytes[..100_000], End::LeftOpen)?;
    }
    outlives(attacker, hold.stranger)
}

/// As many epochs at once as two machines may have, which is as many as tokio has threads that may
/// block; whoever else needs one must not wait for it.
fn epochs_of_many_disks(attacker: &mut Attacker<'_>) -> Result<()> {
    let mut accomplice = attacker.accomplice()?;
    let strangers = [begin_everywhere(attacker)?, begin_everywhere(&mut accomplice)?];
    attacker.is_not_alone()?;
    drop(strangers);
    attacker.is_welcome()
}

/// Begins four epochs each of as many disks as there are streams for, and ends none.
fn begin_everywhere(attacker: &mut Attacker<'_>) -> Result<Stranger> {
    let mut stranger = attacker.introduced()?;
    for _ in 0..STREAMS / 4 {
        let disk = attacker.fresh_disk();
        let request = OpenDisk { name: Text::lossy("one of many"), ..open(disk, SECTORS)? };
        stranger.open_disk(request)?;
        let sealer = Sealer::new(&key(), disk, GENERATION)?;
        for number in 1..=4 {
            let link = EpochLink { kind: EpochKind::Compare, ..link(number) };
            stranger.send(&frame(&sealer, link, 0, (0, 8))?, End::LeftOpen)?;
        }
    }
    Ok(stranger)
}
