//! What a target does when its source breaks the protocol. Each ends the session with the code
//! that names what was broken, and leaves what was durable alone.

use blocks::{ByteLen, DiskId, Epoch, EpochKind, Generation, MachineId};
use bytes::Bytes;
use proptest::prelude::*;

use super::pair::*;
use crate::close::{CloseCode, Reason};
use crate::frame::{CheckedFrame, Codec, Content, FrameError, FrameExtent, Sequence};
use crate::message::{
    AgentMessage, Features, Forget, HashRequest, HashedFrom, Hello, LeafRequest, RequestId,
    VersionRange,
};
use crate::seal::{EpochLink, FrameSpec, Sealer};
use crate::session::{
    EPOCHS_IN_FLIGHT_MAX, SourceConfig, StreamEnd, StreamId, TargetConfig, TargetSession,
};
use crate::text::Text;

fn link(epoch: u64, follows: u64) -> EpochLink {
    EpochLink { kind: EpochKind::Delta, epoch: Epoch(epoch), follows: Epoch(follows) }
}

fn hello(machine: MachineId) -> AgentMessage {
    AgentMessage::Hello(Hello {
        versions: VersionRange::SUPPORTED,
        features: Features(0),
        machine,
        build: Text::lossy("hostile"),
    })
}

/// What a fresh target answers to these messages.
fn after(messages: &[AgentMessage]) -> Option<CloseCode> {
    let mut target = TargetSession::new(target_config());
    messages.iter().for_each(|message| target.handle_control(&message.encode()));
    close_code(&std::iter::from_fn(|| target.poll_action()).collect::<Vec<_>>())
}

/// What a target with disk 1 open at epoch 5 answers to a message.
fn answer_to(message: &AgentMessage) -> Option<CloseCode> {
    let mut pair = Pair::open(Epoch(5));
    pair.target.handle_control(&message.encode());
    close_code(&pair.pump().1)
}

fn violation() -> Option<CloseCode> {
    Some(Reason::ProtocolViolation.into())
}

#[test]
fn nothing_comes_before_the_hello_and_no_hello_after_it() {
    assert_eq!(after(&[AgentMessage::Ping(1)]), violation());
    assert_eq!(after(&[AgentMessage::OpenDisk(open_request(DISK))]), violation());
    assert_eq!(after(&[hello(MACHINE), hello(MACHINE)]), violation());
    assert_eq!(after(&[hello(MACHINE), AgentMessage::Ping(1)]), None);
    let mut pair = Pair::new();
    let frames = epoch_frames(&pair.sealer, link(1, 0), 1);
    pair.source.poll_transmit();
    assert_eq!(pair.closes_on(2, &frames), violation());
}

#[test]
fn a_machine_can_not_speak_for_another() {
    let answer = after(&[hello(MachineId([9; 16]))]);
    assert_eq!(answer, Some(Reason::NotAuthenticated.into()));
}

#[test]
fn disks_that_are_not_open_are_unknown() {
    let unknown = Some(Reason::UnknownDisk.into());
    let request = HashRequest { disk: OTHER_DISK, request: RequestId(1), first_block: 0, count: 1 };
    assert_eq!(answer_to(&AgentMessage::HashRequest(request)), unknown);
    let abort = AgentMessage::AbortEpoch { disk: OTHER_DISK, epoch: Epoch(6) };
    assert_eq!(answer_to(&abort), unknown);
    let close = AgentMessage::CloseDisk { disk: OTHER_DISK, forget: Forget::Keep };
    assert_eq!(answer_to(&close), unknown);
    let confirm = AgentMessage::ConfirmPoints { disk: OTHER_DISK, through: Epoch(5) };
    assert_eq!(answer_to(&confirm), unknown);
    let stranger = Sealer::new(&key(), OTHER_DISK, GENERATION).unwrap();
    let frames = epoch_frames(&stranger, link(6, 5), 1);
    assert_eq!(Pair::open(Epoch(5)).closes_on(2, &frames), unknown);
}

#[test]
fn no_point_is_confirmed_before_it_is_durable() {
    let confirm = |epoch| AgentMessage::ConfirmPoints { disk: DISK, through: Epoch(epoch) };
    assert_eq!(answer_to(&confirm(5)), None);
    assert_eq!(answer_to(&confirm(6)), violation());
}

#[test]
fn a_disk_is_not_opened_twice_nor_too_many_of_them() {
    assert_eq!(answer_to(&AgentMessage::OpenDisk(open_request(DISK))), violation());
    let open = |i: u16| {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&i.to_le_bytes());
        AgentMessage::OpenDisk(open_request(DiskId(id)))
    };
    let opens = |count: u16| {
        after(&std::iter::once(hello(MACHINE)).chain((0..count).map(open)).collect::<Vec<_>>())
    };
    assert_eq!(opens(256), None);
    assert_eq!(opens(257), violation());
}

#[test]
fn frames_of_another_generation_are_refused() {
    let fork = Sealer::new(&key(), DISK, Generation([9; 16])).unwrap();
    let frames = epoch_frames(&fork, link(6, 5), 1);
    let code = Pair::open(Epoch(5)).closes_on(2, &frames);
    assert_eq!(code, Some(Reason::GenerationMismatch.into()));
}

#[test]
fn an_epoch_that_is_durable_or_in_flight_is_a_replay() {
    let replay = Some(Reason::Replay.into());
    for epoch in [1, 4, 5] {
        let mut pair = Pair::open(Epoch(5));
        let frames = epoch_frames(&pair.sealer, link(epoch, epoch - 1), 1);
        assert_eq!(pair.closes_on(2, &frames), replay, "epoch {epoch}");
    }
    let mut pair = Pair::open(Epoch(5));
    let frames = epoch_frames(&pair.sealer, link(6, 5), 1);
    assert_eq!(pair.closes_on(2, &frames), None);
    assert_eq!(pair.closes_on(6, &frames), replay);
    let mut pair = Pair::open(Epoch(5));
    assert_eq!(pair.closes_on(2, &frames), None);
    pair.target.handle_durable(DISK, Epoch(6));
    assert_eq!(pair.closes_on(6, &frames), replay);
}

#[test]
fn a_repeated_or_older_frame_is_a_replay() {
    for replayed in [0, 1] {
        let mut pair = Pair::open(Epoch(5));
        let frames = epoch_frames(&pair.sealer, link(6, 5), 3);
        assert_eq!(pair.closes_on(2, &frames[..2]), None);
        let again = frames[replayed..=replayed].to_vec();
        assert_eq!(pair.closes_on(2, &again), Some(Reason::Replay.into()));
    }
}

#[test]
fn frames_of_another_epoch_disk_or_session_do_not_mix() {
    let own = Sealer::new(&key(), DISK, GENERATION).unwrap();
    let other_session = Sealer::new(&key(), DISK, GENERATION).unwrap();
    let other_disk = Sealer::new(&key(), OTHER_DISK, GENERATION).unwrap();
    for intruder in [
        content_frame(&own, link(7, 5), 1, 0),
        content_frame(&own, link(6, 4), 1, 0),
        content_frame(&own, EpochLink { kind: EpochKind::Seed, ..link(6, 5) }, 1, 0),
        content_frame(&other_session, link(6, 5), 1, 0),
        content_frame(&other_disk, link(6, 5), 1, 0),
        end_frame(&other_session, link(6, 5), 1, 1),
    ] {
        let mut pair = Pair::open(Epoch(5));
        let frames = [content_frame(&own, link(6, 5), 0, 0), intruder];
        assert_eq!(pair.closes_on(2, &frames), violation());
    }
}

#[test]
fn nothing_comes_after_the_end() {
    let mut pair = Pair::open(Epoch(5));
    let mut frames = epoch_frames(&pair.sealer, link(6, 5), 1);
    frames.push(content_frame(&pair.sealer, link(6, 5), 9, 0));
    assert_eq!(pair.closes_on(2, &frames), violation());
    let mut pair = Pair::open(Epoch(5));
    assert_eq!(pair.closes_on(2, &frames[..2]), None);
    pair.target.handle_durable(DISK, Epoch(6));
    assert_eq!(pair.closes_on(2, &frames[2..]), violation());
}

#[test]
fn an_extent_past_the_end_of_the_disk_is_refused() {
    for (sector, code) in [(SECTORS - 1, None), (SECTORS, violation())] {
        let mut pair = Pair::open(Epoch(5));
        let frame = content_frame(&pair.sealer, link(6, 5), 0, sector);
        assert_eq!(pair.closes_on(2, &[frame]), code);
    }
}

#[test]
fn a_stream_that_ends_before_its_epoch_is_refused() {
    let mut pair = Pair::open(Epoch(5));
    let frames = epoch_frames(&pair.sealer, link(6, 5), 1);
    assert_eq!(pair.closes_on(2, &frames[..1]), None);
    pair.target.handle_stream_end(StreamId(2), StreamEnd::Finished);
    assert_eq!(names(&pair.pump().1)[0], "abort 6");
}

#[test]
fn more_epochs_than_may_be_in_flight_are_refused() {
    let mut pair = Pair::open(Epoch(5));
    for i in 0..=EPOCHS_IN_FLIGHT_MAX as u64 {
        let frame = content_frame(&pair.sealer, link(6 + i, 5 + i), 0, 0);
        let code = pair.closes_on(i, &[frame]);
        assert_eq!(code.is_some(), i == EPOCHS_IN_FLIGHT_MAX as u64);
    }
}

#[test]
fn more_bytes_than_the_window_are_refused() {
    let mut pair = Pair::open(Epoch(5));
    let extents = [FrameExtent { start: blocks::Sector(0), sectors: 2048, content: Content::Data }];
    let data = vec![1; 1 << 20];
    let mut codes = (0..5).map(|i| {
        let sequence = Sequence(i);
        let spec = FrameSpec { link: link(6, 5), sequence, codec: Codec::Raw, extents: &extents };
        let frame = CheckedFrame::parse(pair.sealer.seal(&spec, &data).unwrap()).unwrap();
        pair.closes_on(2, &[frame])
    });
    assert!(codes.by_ref().take(3).all(|code| code.is_none()));
    assert_eq!(codes.next().unwrap(), violation());
}

#[test]
fn requests_for_hashes_have_limits() {
    let request = |first_block, count| {
        let disk = DISK;
        AgentMessage::HashRequest(HashRequest { disk, request: RequestId(1), first_block, count })
    };
    assert_eq!(answer_to(&request(31, 1)), None);
    assert_eq!(answer_to(&request(31, 2)), violation());
    assert_eq!(answer_to(&request(u64::MAX, 1)), violation());
    let mut pair = Pair::open(Epoch(5));
    pair.target.handle_control(&request(0, 1).encode());
    pair.target.handle_control(&request(0, 1).encode());
    assert_eq!(close_code(&pair.pump().1), violation(), "one number for two requests");
}

#[test]
fn requests_for_leaves_have_limits_and_must_be_agreed_on() {
    let request = |blocks: &[u64]| {
        let (disk, request, from) = (DISK, RequestId(1), HashedFrom::Medium);
        AgentMessage::LeafRequest(LeafRequest { disk, request, from, blocks: blocks.to_vec() })
    };
    assert_eq!(answer_to(&request(&[31])), violation(), "nobody has agreed on leaves");
    let after = |requests: &[AgentMessage]| {
        let source = SourceConfig { features: Features::LEAVES, ..source_config() };
        let target = TargetConfig { features: Features::LEAVES, ..target_config() };
        let mut pair = Pair::with(source, target);
        pair.pump();
        pair.open_disk(Epoch(5));
        requests.iter().for_each(|request| pair.target.handle_control(&request.encode()));
        close_code(&pair.pump().1)
    };
    assert_eq!(after(&[request(&[0, 31])]), None);
    assert_eq!(after(&[request(&[31, 32])]), violation());
    assert_eq!(after(&[request(&[u64::MAX])]), violation());
    assert_eq!(after(&[request(&[0]), request(&[1])]), violation(), "one number for two requests");
}

#[test]
fn a_damaged_frame_closes_the_session() {
    let mut pair = Pair::open(Epoch(5));
    pair.target.handle_bad_frame(StreamId(2), FrameError::Magic);
    assert_eq!(close_code(&pair.pump().1), Some(Reason::BadFrame.into()));
    let too_large = FrameError::TooLarge { field: "data length", value: 9, limit: 8 };
    assert_eq!(too_large.reason(), Reason::TooLarge);
    assert_eq!(FrameError::Version(2).reason(), Reason::VersionMismatch);
}

#[test]
fn a_message_of_the_wrong_direction_is_refused() {
    let mut target = TargetSession::new(target_config());
    target.handle_control(&hello(MACHINE).encode());
    let welcome = target.poll_transmit().unwrap();
    target.handle_control(&welcome);
    let actions: Vec<_> = std::iter::from_fn(|| target.poll_action()).collect();
    assert_eq!(close_code(&actions), violation());
}

proptest! {
    #[test]
    fn garbage_on_the_control_stream_never_panics(chunks in prop::collection::vec(
        prop::collection::vec(any::<u8>(), 0..200), 0..10)
    ) {
        let mut pair = Pair::open(Epoch(5));
        for chunk in chunks {
            pair.target.handle_control(&chunk);
        }
        pair.pump();
    }

    #[test]
    fn a_damaged_message_never_panics(at in 0usize..200, value: u8) {
        let mut pair = Pair::open(Epoch(5));
        let mut bytes = hello(MACHINE).encode().to_vec();
        bytes.extend_from_slice(&AgentMessage::OpenDisk(open_request(OTHER_DISK)).encode());
        let at = at % bytes.len();
        bytes[at] = value;
        pair.target.handle_control(&Bytes::from(bytes));
        pair.pump();
    }
}

#[test]
fn credit_is_not_due_for_what_failed() {
    let mut pair = Pair::open(Epoch(5));
    let frames = epoch_frames(&pair.sealer, link(6, 5), 1);
    assert_eq!(pair.closes_on(2, &frames), None);
    pair.target.handle_failed(DISK, Epoch(6), Reason::StoreFailed.into(), "");
    pair.target.handle_consumed(DISK, Epoch(6), ByteLen(u64::MAX));
}
