//! What a source does when its target breaks the protocol.

use blocks::{ByteLen, Epoch, EpochKind, Generation, Ticket};
use proptest::prelude::*;

use super::pair::*;
use crate::close::{CloseCode, Detail, Reason};
use crate::message::{
    DiskOpened, DiskRefused, EpochFailed, Features, Hashes, ReplicaState, RequestId, TargetMessage,
    Welcome,
};
use crate::session::{SourceError, SourceEvent, SourceSession, WINDOW_MIN};

const WELCOME: Welcome =
    Welcome { version: 1, features: Features(0b01), target: TARGET, window: WINDOW_MIN };

fn closed(events: &[SourceEvent]) -> Option<CloseCode> {
    events.iter().find_map(|event| match event {
        SourceEvent::Closed { code, .. } => Some(*code),
        _ => None,
    })
}

fn after_hello(message: &TargetMessage) -> Option<CloseCode> {
    let mut source = SourceSession::new(source_config());
    source.handle_control(&message.encode());
    closed(&std::iter::from_fn(|| source.poll_event()).collect::<Vec<_>>())
}

/// What a source with disk 1 open at epoch 5, and epochs 6 and 7 in flight, does.
fn answer_to(message: &TargetMessage) -> Option<CloseCode> {
    let mut pair = Pair::open(Epoch(5));
    pair.begin(6, 1);
    pair.begin(7, 1);
    pair.source.handle_sending(DISK, Epoch(6), ByteLen(1000));
    pair.source.handle_ending(DISK, Epoch(6));
    pair.source.handle_control(&message.encode());
    closed(&pair.pump().0)
}

fn violation() -> Option<CloseCode> {
    Some(Reason::ProtocolViolation.into())
}

#[test]
fn a_welcome_must_be_within_what_was_offered() {
    let welcome = |welcome| after_hello(&TargetMessage::Welcome(welcome));
    assert_eq!(welcome(WELCOME), None);
    let mismatch = Some(Reason::VersionMismatch.into());
    assert_eq!(welcome(Welcome { version: 2, ..WELCOME }), mismatch);
    assert_eq!(welcome(Welcome { features: Features(0b100), ..WELCOME }), violation());
    assert_eq!(welcome(Welcome { window: ByteLen(100), ..WELCOME }), violation());
    assert_eq!(after_hello(&TargetMessage::Pong(1)), violation());
    assert_eq!(answer_to(&TargetMessage::Welcome(WELCOME)), violation());
}

#[test]
fn only_what_was_asked_is_answered() {
    let opened = DiskOpened {
        disk: OTHER_DISK,
        generation: GENERATION,
        last_durable: Epoch(1),
        confirmed: Epoch::NONE,
        state: ReplicaState::Follows,
        ticket: Ticket::default(),
    };
    let refused = DiskRefused {
        disk: OTHER_DISK,
        code: Reason::StoreFull.into(),
        detail: Detail::default(),
        replica: None,
    };
    let hashes =
        Hashes { disk: DISK, request: RequestId(1), first_block: 0, hashes: vec![[0; 32]] };
    for message in [
        TargetMessage::DiskOpened(opened),
        TargetMessage::DiskOpened(DiskOpened { disk: DISK, ..opened }),
        TargetMessage::DiskRefused(refused),
        TargetMessage::DiskClosed { disk: DISK },
        TargetMessage::Hashes(hashes),
    ] {
        assert_eq!(answer_to(&message), violation(), "{message:?}");
    }
}

#[test]
fn a_disk_of_another_generation_is_not_taken() {
    let mut pair = Pair::new();
    pair.pump();
    pair.source.open_disk(open_request(DISK)).unwrap();
    let opened = DiskOpened {
        disk: DISK,
        generation: Generation([9; 16]),
        last_durable: Epoch(1),
        confirmed: Epoch::NONE,
        state: ReplicaState::Follows,
        ticket: Ticket::default(),
    };
    pair.source.handle_control(&TargetMessage::DiskOpened(opened).encode());
    assert_eq!(closed(&pair.pump().0), Some(Reason::GenerationMismatch.into()));
}

#[test]
fn an_epoch_is_durable_only_after_the_one_it_follows() {
    let durable = |epoch| answer_to(&TargetMessage::EpochDurable { disk: DISK, epoch });
    assert_eq!(durable(Epoch(6)), None);
    for epoch in [5, 7, 8] {
        assert_eq!(durable(Epoch(epoch)), violation(), "epoch {epoch}");
    }
    let failed = |epoch| {
        answer_to(&TargetMessage::EpochFailed(EpochFailed {
            disk: DISK,
            epoch,
            code: Reason::StoreFull.into(),
            detail: Detail::default(),
        }))
    };
    assert_eq!(failed(Epoch(7)), None);
    assert_eq!(failed(Epoch(8)), violation());
}

#[test]
fn an_epoch_that_was_not_sent_whole_is_not_durable() {
    for ended in [false, true] {
        let mut pair = Pair::open(Epoch(5));
        let frames = pair.begin(6, 2);
        pair.source.handle_sending(DISK, Epoch(6), len_of(&frames[0]));
        if ended {
            pair.source.handle_ending(DISK, Epoch(6));
        }
        let durable = TargetMessage::EpochDurable { disk: DISK, epoch: Epoch(6) };
        pair.source.handle_control(&durable.encode());
        let expected = if ended { None } else { violation() };
        assert_eq!(closed(&pair.pump().0), expected, "ended: {ended}");
    }
}

#[test]
fn an_epoch_built_on_a_failed_one_is_never_durable() {
    let mut pair = Pair::open(Epoch(5));
    pair.begin(6, 1);
    pair.begin(7, 1);
    let failed = EpochFailed {
        disk: DISK,
        epoch: Epoch(6),
        code: Reason::StoreFull.into(),
        detail: Detail::default(),
    };
    pair.source.handle_control(&TargetMessage::EpochFailed(failed).encode());
    let durable = TargetMessage::EpochDurable { disk: DISK, epoch: Epoch(7) };
    pair.source.handle_control(&durable.encode());
    assert_eq!(closed(&pair.pump().0), violation());
}

#[test]
fn credit_is_not_given_for_what_was_not_sent() {
    let credit = |epoch, consumed| {
        let (epoch, consumed) = (Epoch(epoch), ByteLen(consumed));
        answer_to(&TargetMessage::Credit { disk: DISK, epoch, consumed })
    };
    assert_eq!(credit(6, 1000), None);
    assert_eq!(credit(6, 1001), violation());
    assert_eq!(credit(9, 1), violation());
}

#[test]
fn what_the_caller_may_not_do_is_refused_without_harm() {
    let mut source = SourceSession::new(source_config());
    assert_eq!(source.open_disk(open_request(DISK)), Err(SourceError::NotReady));
    let mut pair = Pair::open(Epoch(5));
    let mut begin = |disk, epoch| pair.source.begin_epoch(disk, Epoch(epoch), EpochKind::Delta);
    assert_eq!(begin(OTHER_DISK, 6), Err(SourceError::NotOpen(OTHER_DISK)));
    let stale = SourceError::EpochNotRising { epoch: Epoch(5), newest: Epoch(5) };
    assert_eq!(begin(DISK, 5), Err(stale));
    for epoch in 6..10 {
        begin(DISK, epoch).unwrap();
    }
    assert_eq!(begin(DISK, 10), Err(SourceError::TooManyEpochs));
}

proptest! {
    #[test]
    fn garbage_on_the_control_stream_never_panics(chunks in prop::collection::vec(
        prop::collection::vec(any::<u8>(), 0..200), 0..10)
    ) {
        let mut pair = Pair::open(Epoch(5));
        for chunk in chunks {
            pair.source.handle_control(&chunk);
        }
        pair.pump();
    }
}
