//! What two honest ends do.

use blocks::{ByteLen, Epoch, EpochKind, RetractReason};

use super::pair::*;
use crate::EpochLink;
use crate::close::{CloseCode, Reason};
use crate::message::{Features, Forget, HashedFrom, LeavesOfBlock, RetractPoints, VersionRange};
use crate::session::{
    SourceConfig, SourceError, SourceEvent, StreamEnd, StreamId, TargetAction, TargetConfig,
    WINDOW_MIN,
};

#[test]
fn hello_and_welcome_agree_on_version_and_features() {
    let mut pair = Pair::new();
    let (events, actions) = pair.pump();
    let [SourceEvent::Welcomed(welcome)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((welcome.version, welcome.features, welcome.target), (1, Features(0b10), TARGET));
    let [TargetAction::Welcomed { hello, version: 1 }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((hello.machine, hello.build.as_str()), (MACHINE, "pinnace test"));
}

#[test]
fn without_a_common_version_both_ends_learn_it() {
    let newer = VersionRange { min: 2, max: 3 };
    let mut pair = Pair::with(source_config(), TargetConfig { versions: newer, ..target_config() });
    let (_, actions) = pair.pump();
    let [TargetAction::Close { code, detail }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(*code, Reason::VersionMismatch);
    pair.source.handle_closed(*code, detail.as_str());
    let (events, _) = pair.pump();
    assert!(matches!(&events[..], [SourceEvent::Closed { code, .. }]
        if *code == Reason::VersionMismatch));
    assert_eq!(pair.source.ping(1), Err(SourceError::NotReady));
}

#[test]
fn an_epoch_goes_from_first_frame_to_durable() {
    let mut pair = Pair::open(Epoch::NONE);
    let frames = pair.begin(1, 2);
    pair.deliver(2, &frames);
    pair.target.handle_stream_end(StreamId(2), StreamEnd::Finished);
    let (events, actions) = pair.pump();
    assert!(events.is_empty(), "nothing is durable before the commit");
    assert_eq!(names(&actions), ["begin 1", "append 1", "append 1", "end 1", "commit 1"]);
    pair.target.handle_durable(DISK, Epoch(1));
    let (events, actions) = pair.pump();
    assert_eq!(heard(&events), ["durable 1"]);
    assert!(actions.is_empty());
}

#[test]
fn epochs_become_durable_in_order_whatever_the_order_of_their_streams() {
    let mut pair = Pair::open(Epoch(3));
    let (first, second) = (pair.begin(4, 1), pair.begin(6, 1));
    assert_eq!(second[0].header().follows, Epoch(4));
    pair.deliver(6, &second);
    assert_eq!(names(&pair.pump().1), ["begin 6", "append 6", "end 6"]);
    pair.deliver(2, &first);
    assert_eq!(names(&pair.pump().1), ["begin 4", "append 4", "end 4", "commit 4"]);
    pair.target.handle_durable(DISK, Epoch(4));
    assert_eq!(names(&pair.pump().1), ["commit 6"]);
    pair.target.handle_durable(DISK, Epoch(6));
    assert_eq!(heard(&pair.pump().0), ["durable 6"]);
}

#[test]
fn a_failed_epoch_takes_those_built_on_it_along() {
    let mut pair = Pair::open(Epoch::NONE);
    let (first, second, third) = (pair.begin(1, 1), pair.begin(2, 1), pair.begin(3, 1));
    pair.deliver(1, &first);
    pair.deliver(2, &second);
    pair.pump();
    pair.target.handle_failed(DISK, Epoch(1), Reason::StoreFull.into(), "no space");
    let (events, actions) = pair.pump();
    assert_eq!(heard(&events), ["failed 1", "failed 2"]);
    assert!(matches!(&events[0], SourceEvent::Failed(it) if it.code == Reason::StoreFull));
    assert_eq!(names(&actions), ["stop 1", "stop 2", "abort 2"]);
    // The third was on its way when its predecessor failed.
    pair.deliver(3, &third);
    let (events, actions) = pair.pump();
    assert_eq!((heard(&events), names(&actions)), (vec!["failed 3".into()], vec!["stop 3".into()]));
    // The next one is built on what is durable, which is nothing.
    let next = pair.begin(4, 1);
    assert_eq!(next[0].header().follows, Epoch::NONE);
    pair.deliver(4, &next);
    assert_eq!(names(&pair.pump().1).last().unwrap(), "commit 4");
}

#[test]
fn a_doomed_epoch_that_comes_after_later_ones_are_durable_fails() {
    let mut pair = Pair::open(Epoch::NONE);
    let (first, doomed) = (pair.begin(1, 1), pair.begin(2, 1));
    pair.deliver(1, &first);
    pair.target.handle_failed(DISK, Epoch(1), Reason::StoreFull.into(), "");
    pair.pump();
    let next = pair.begin(3, 1);
    pair.deliver(3, &next);
    pair.target.handle_durable(DISK, Epoch(3));
    pair.pump();
    pair.deliver(2, &doomed);
    let (events, actions) = pair.pump();
    assert_eq!((heard(&events), names(&actions)), (vec!["failed 2".into()], vec!["stop 2".into()]));
}

#[test]
fn while_an_epoch_is_given_up_nothing_is_built_on_it() {
    let mut pair = Pair::open(Epoch::NONE);
    let frames = pair.begin(1, 2);
    pair.deliver(2, &frames[..1]);
    pair.pump();
    pair.source.abort_epoch(DISK, Epoch(1)).unwrap();
    let begun = pair.source.begin_epoch(DISK, Epoch(2), EpochKind::Delta);
    assert_eq!(begun, Err(SourceError::AbortPending(Epoch(1))));
    let (events, actions) = pair.pump();
    assert_eq!(
        (heard(&events), names(&actions)),
        (vec!["failed 1".into()], vec!["stop 2".into(), "abort 1".into()])
    );
    // What was on its way is thrown away.
    pair.deliver(2, &frames[1..]);
    assert!(pair.pump().1.is_empty());
    assert_eq!(pair.begin(2, 1)[0].header().follows, Epoch::NONE);
}

#[test]
fn an_epoch_sealed_on_another_than_the_newest_is_not_begun() {
    let mut pair = Pair::open(Epoch::NONE);
    let first = pair.begin(1, 1);
    let sealed = |epoch, follows| EpochLink {
        kind: EpochKind::Delta,
        epoch: Epoch(epoch),
        follows: Epoch(follows),
    };
    // Sealed by somebody who has not heard of epoch 1.
    let begun = pair.source.begin_sealed(DISK, sealed(2, 0));
    let refused = SourceError::SealedOnAnother { follows: Epoch(0), newest: Epoch(1) };
    assert_eq!(begun, Err(refused));
    assert_eq!(pair.source.begin_sealed(DISK, sealed(2, 1)), Ok(()));
    pair.deliver(2, &first);
    pair.target.handle_durable(DISK, Epoch(1));
    assert_eq!(heard(&pair.pump().0), ["durable 1"]);
}

#[test]
fn an_epoch_given_up_too_late_is_durable_after_all() {
    let mut pair = Pair::open(Epoch::NONE);
    let frames = pair.begin(1, 1);
    pair.deliver(2, &frames);
    pair.pump();
    pair.source.abort_epoch(DISK, Epoch(1)).unwrap();
    assert_eq!(names(&pair.pump().1), [""; 0]);
    pair.target.handle_durable(DISK, Epoch(1));
    assert_eq!(heard(&pair.pump().0), ["durable 1"]);
    assert_eq!(pair.begin(2, 1)[0].header().follows, Epoch(1));
}

#[test]
fn an_epoch_given_up_before_it_arrived_is_answered_and_its_frames_are_not_wanted() {
    let mut pair = Pair::open(Epoch::NONE);
    let frames = pair.begin(1, 1);
    pair.source.abort_epoch(DISK, Epoch(1)).unwrap();
    assert_eq!(heard(&pair.pump().0), ["failed 1"]);
    pair.deliver(2, &frames);
    assert_eq!(names(&pair.pump().1), ["stop 2"]);
}

#[test]
fn a_reset_stream_fails_its_epoch_once() {
    let mut pair = Pair::open(Epoch::NONE);
    let frames = pair.begin(1, 2);
    pair.deliver(2, &frames[..1]);
    pair.target.handle_stream_end(StreamId(2), StreamEnd::Reset);
    pair.source.abort_epoch(DISK, Epoch(1)).unwrap();
    let (events, actions) = pair.pump();
    assert_eq!(heard(&events), ["failed 1"]);
    assert_eq!(names(&actions), ["begin 1", "append 1", "abort 1"]);
}

#[test]
fn a_cut_connection_aborts_and_the_next_resumes_after_the_last_durable_epoch() {
    let mut pair = Pair::open(Epoch::NONE);
    for (epoch, stream) in [(1, 1), (2, 2)] {
        let frames = pair.begin(epoch, 2);
        pair.deliver(stream, &frames);
    }
    let third = pair.begin(3, 3);
    pair.deliver(3, &third[..2]);
    pair.pump();
    pair.target.handle_durable(DISK, Epoch(1));
    pair.pump();
    // Epoch 2 is being committed and goes on; 3 is thrown away.
    pair.target.handle_lost();
    assert_eq!(names(&pair.pump().1), ["abort 3"]);
    pair.target.handle_durable(DISK, Epoch(2));
    assert_eq!(pair.target.poll_transmit(), None);
    pair.source.handle_closed(Reason::TimedOut.into(), "");
    assert!(matches!(pair.pump().0[..], [SourceEvent::Closed { .. }]));

    let mut pair = Pair::open(Epoch(2));
    let frames = pair.begin(3, 1);
    assert_eq!(frames[0].header().follows, Epoch(2));
    pair.deliver(9, &frames);
    assert_eq!(names(&pair.pump().1).last().unwrap(), "commit 3");
}

#[test]
fn the_window_closes_and_opens_with_credit() {
    let mut pair = Pair::open(Epoch::NONE);
    assert_eq!(pair.source.room(DISK), WINDOW_MIN);
    assert_eq!(pair.source.room(OTHER_DISK), ByteLen(0));
    let frames = pair.begin(1, 3);
    pair.source.handle_sending(DISK, Epoch(1), WINDOW_MIN);
    assert_eq!(pair.source.room(DISK), ByteLen(0));
    pair.deliver(2, &frames);
    let len = frames.iter().map(|frame| len_of(frame).0).sum();
    pair.target.handle_consumed(DISK, Epoch(1), ByteLen(len));
    assert!(pair.pump().0.is_empty(), "small change is kept back");
    pair.target.handle_durable(DISK, Epoch(1));
    pair.pump();
    assert_eq!(pair.source.room(DISK), WINDOW_MIN, "an epoch that ended holds nothing");
}

#[test]
fn credit_comes_back_in_eighths_of_the_window() {
    let mut pair = Pair::open(Epoch::NONE);
    let link = pair.source.begin_epoch(DISK, Epoch(1), EpochKind::Seed).unwrap();
    let mut sent = 0;
    let mut events = Vec::new();
    for sequence in 0.. {
        let frame = content_frame(&pair.sealer, link, sequence, 0);
        let len = len_of(&frame);
        sent += len.0;
        pair.source.handle_sending(DISK, Epoch(1), len);
        pair.deliver(2, &[frame]);
        pair.target.handle_consumed(DISK, Epoch(1), len);
        events.extend(pair.pump().0);
        if !events.is_empty() {
            break;
        }
    }
    assert!(matches!(events[..], [SourceEvent::Credited { disk: DISK }]));
    assert!((WINDOW_MIN.0 / 8..WINDOW_MIN.0 / 8 + 1024).contains(&sent));
    assert_eq!(pair.source.room(DISK), WINDOW_MIN);
}

#[test]
fn hashes_are_asked_for_within_limits_and_answered() {
    let mut pair = Pair::open(Epoch(1));
    let request = pair.source.request_hashes(DISK, 30, 2).unwrap();
    let (_, actions) = pair.pump();
    assert_eq!(names(&actions), ["hash 30"]);
    pair.target.handle_hashes(DISK, request, vec![[7; 32], [8; 32]]);
    let (events, _) = pair.pump();
    let [SourceEvent::Hashes(hashes)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((hashes.request, hashes.first_block, hashes.hashes[1]), (request, 30, [8; 32]));
    for (first, count) in [(31, 2), (0, 0), (u64::MAX, 1), (0, 4097)] {
        let refused = pair.source.request_hashes(DISK, first, count);
        assert_eq!(refused, Err(SourceError::Blocks), "{first}+{count}");
    }
    for _ in 0..16 {
        pair.source.request_hashes(DISK, 0, 1).unwrap();
    }
    assert_eq!(pair.source.request_hashes(DISK, 0, 1), Err(SourceError::TooManyRequests));
}

#[test]
fn leaves_are_asked_for_where_both_ends_know_of_them() {
    let none = Features::default();
    let with = |source, target| {
        let source = SourceConfig { features: source, ..source_config() };
        let mut pair = Pair::with(source, TargetConfig { features: target, ..target_config() });
        pair.pump();
        pair.open_disk(Epoch(4));
        pair
    };
    for mut pair in [with(Features::LEAVES, none), with(none, Features::LEAVES)] {
        let refused = pair.source.request_leaves(DISK, HashedFrom::Kept, vec![1]);
        assert_eq!(refused, Err(SourceError::NoLeaves));
    }
    let mut pair = with(Features::LEAVES, Features::SUPPORTED);
    let request = pair.source.request_leaves(DISK, HashedFrom::Kept, vec![3, 31]).unwrap();
    let (_, actions) = pair.pump();
    let [TargetAction::HashLeaves(asked)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((&asked.blocks[..], asked.from), (&[3, 31][..], HashedFrom::Kept));
    let of_block = LeavesOfBlock { decayed: 0, hashes: [[7; 32]; 16] };
    pair.target.handle_leaves((DISK, request), Epoch(4), vec![of_block; 2]);
    let (events, _) = pair.pump();
    let [SourceEvent::Leaves(leaves)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((leaves.request, leaves.as_of), (request, Epoch(4)));
    assert_eq!(leaves.blocks, [of_block; 2]);
    for blocks in [vec![], vec![32], vec![2, 1], vec![1, 1], (0..257).collect()] {
        let refused = pair.source.request_leaves(DISK, HashedFrom::Medium, blocks);
        assert_eq!(refused, Err(SourceError::Blocks));
    }
}

#[test]
fn a_closed_disk_is_aborted_then_closed_and_late_frames_are_not_wanted() {
    let mut pair = Pair::open(Epoch::NONE);
    let (first, second) = (pair.begin(1, 2), pair.begin(2, 1));
    pair.deliver(2, &first[..1]);
    pair.pump();
    pair.source.close_disk(DISK, Forget::Forget).unwrap();
    let (_, actions) = pair.pump();
    assert_eq!(names(&actions), ["stop 2", "abort 1", "close Forget"]);
    pair.deliver(2, &first[1..]);
    pair.deliver(6, &second);
    pair.target.handle_disk_closed(DISK);
    let (events, actions) = pair.pump();
    assert_eq!(events, [SourceEvent::DiskClosed { disk: DISK }]);
    assert_eq!(names(&actions), ["stop 6"]);
    let again = pair.source.open_disk(open_request(DISK));
    assert_eq!(again, Err(SourceError::OpenedBefore(DISK)));
}

#[test]
fn a_refused_disk_may_be_asked_for_again() {
    let mut pair = Pair::new();
    pair.pump();
    pair.source.open_disk(open_request(DISK)).unwrap();
    pair.pump();
    pair.target.handle_disk_refused(DISK, Reason::DiskBusy.into(), "another session");
    let (events, _) = pair.pump();
    assert!(matches!(&events[..], [SourceEvent::Refused(it)] if it.code == Reason::DiskBusy));
    pair.open_disk(Epoch(4));
}

#[test]
fn a_disk_that_breaks_is_refused_with_all_its_epochs() {
    let mut pair = Pair::open(Epoch::NONE);
    let frames = pair.begin(1, 1);
    pair.deliver(2, &frames[..1]);
    pair.pump();
    pair.source.close_disk(DISK, Forget::Keep).unwrap();
    pair.target.handle_disk_refused(DISK, Reason::StoreFailed.into(), "fsync failed");
    let (events, actions) = pair.pump();
    assert!(matches!(&events[..], [SourceEvent::Refused(_)]), "{events:?}");
    assert_eq!(names(&actions), ["stop 2", "abort 1"]);
}

#[test]
fn control_bytes_may_come_one_at_a_time() {
    let mut pair = Pair::new();
    let hello = pair.source.poll_transmit().unwrap();
    hello.chunks(1).for_each(|byte| pair.target.handle_control(byte));
    let welcome = pair.target.poll_transmit().unwrap();
    welcome.chunks(1).for_each(|byte| pair.source.handle_control(byte));
    assert!(matches!(pair.source.poll_event(), Some(SourceEvent::Welcomed(_))));
    pair.source.ping(42).unwrap();
    assert_eq!(pair.pump().0, [SourceEvent::Pong(42)]);
}

#[test]
fn a_target_that_shuts_down_aborts_and_says_so() {
    let mut pair = Pair::open(Epoch::NONE);
    let frames = pair.begin(1, 1);
    pair.deliver(2, &frames[..1]);
    pair.pump();
    pair.target.close(Reason::ShuttingDown, "bye");
    let (_, actions) = pair.pump();
    assert_eq!(
        names(&actions),
        ["abort 1".to_owned(), format!("CLOSE {}", CloseCode::from(Reason::ShuttingDown))]
    );
    pair.deliver(2, &frames[1..]);
    pair.target.handle_disk_opened(DISK, position(Epoch(1)));
    pair.target.close(Reason::Done, "again");
    assert!(pair.pump().1.is_empty(), "nothing follows");
}

#[test]
fn points_are_confirmed_once_they_are_durable_and_retracted_any_time() {
    let mut pair = Pair::open(Epoch(5));
    let refused = pair.source.confirm_points(DISK, Epoch(6));
    assert_eq!(refused, Err(SourceError::NotDurable { epoch: Epoch(6), durable: Epoch(5) }));
    pair.source.confirm_points(DISK, Epoch(5)).unwrap();
    let reason = RetractReason::CrossCheck;
    let retract = RetractPoints { disk: DISK, after: Epoch(5), through: Epoch(7), reason };
    pair.source.retract_points(retract).unwrap();
    let (_, actions) = pair.pump();
    assert_eq!(names(&actions), ["confirm 5", "retract 5 to 7"]);
    pair.source.close_disk(DISK, Forget::Keep).unwrap();
    assert_eq!(pair.source.retract_points(retract), Err(SourceError::NotOpen(DISK)));
}
