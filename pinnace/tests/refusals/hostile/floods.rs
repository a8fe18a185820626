//! Too much of everything, and too little: what takes memory, threads or patience of the target.

use std::time::{Duration, Instant};

use anyhow::Result;
use blocks::{DiskId, Epoch, EpochKind, RetractReason};
use wire::message::{OpenDisk, RetractPoints};
use wire::{AgentMessage, EpochLink, Reason, Sealer, Text};

use super::attacker::{Attacker, GENERATION, SECTORS, closes, frame, key, link, open, outlives};
use super::{attack, withstands};
use crate::stranger::{End, Stranger};

/// How long somebody goes on who says too much.
const FLOOD: Duration = Duration::from_secs(2);
/// As many as QUIC lets an agent open at once.
const STREAMS: usize = 256;

#[test]
fn floods_are_contained() -> Result<()> {
    withstands(|_| {
        vec![
            attack("pings without end", |attacker| {
                said_over_and_over(attacker, |_| AgentMessage::Ping(1))
            }),
            attack("retractions without end", |attacker| {
                said_over_and_over(attacker, |disk| {
                    let (after, through) = (Epoch::NONE, Epoch(1));
                    let reason = RetractReason::Gap;
                    AgentMessage::RetractPoints(RetractPoints { disk, after, through, reason })
                })
            }),
            attack("aborts without end", |attacker| {
                said_over_and_over(attacker, |disk| AgentMessage::AbortEpoch {
                    disk,
                    epoch: Epoch(1),
                })
            }),
            attack("disks without end, all too large", |attacker| {
                let mut stranger = attacker.introduced()?;
                for _ in 0..2000 {
                    let request = AgentMessage::OpenDisk(open(attacker.fresh_disk(), 1 << 44)?);
                    stranger.say_within(&request.encode(), FLOOD);
                }
                outlives(attacker, stranger)
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

/// Says something about an open disk again and again, and listens to no answer.
fn said_over_and_over(attacker: &mut Attacker<'_>, say: fn(DiskId) -> AgentMessage) -> Result<()> {
    let mut hold = attacker.foothold()?;
    let bytes = say(hold.disk).encode().repeat(1000);
    let began = Instant::now();
    while began.elapsed() < FLOOD && hold.stranger.say_within(&bytes, FLOOD) {}
    attacker.is_not_alone()?;
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
