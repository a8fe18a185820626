//! Every message, byte by byte.

use blocks::{
    Ancestor, ByteLen, ChunkSize, Claim, DiskId, Epoch, Generation, Geometry, MachineId,
    RetractReason, Ticket,
};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::close::{CloseCode, Detail, Reason};
use crate::key::DataKey;
use crate::layout::LayoutError;
use crate::text::Text;

const DISK: DiskId = DiskId([0xd1; 16]);

fn agent_messages() -> Vec<(AgentMessage, &'static str)> {
    let mut messages = first_agent_messages();
    messages.push(leaf_request());
    messages
}

fn leaf_request() -> (AgentMessage, &'static str) {
    (
        AgentMessage::LeafRequest(LeafRequest {
            disk: DISK,
            request: RequestId(9),
            from: HashedFrom::Medium,
            blocks: vec![3, 260],
        }),
        "2f000000 0900 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0900000000000000 01 02000000 \
         0300000000000000 0401000000000000",
    )
}

fn first_agent_messages() -> Vec<(AgentMessage, &'static str)> {
    vec![
        (
            AgentMessage::Hello(Hello {
                versions: VersionRange { min: 1, max: 2 },
                features: Features(3),
                machine: MachineId([0xaa; 16]),
                build: Text::lossy("pinnace 0.1.0"),
            }),
            "2d000000 0100 0100 0200 0300000000000000 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \
             0d00 70696e6e61636520302e312e30",
        ),
        (
            AgentMessage::OpenDisk(OpenDisk {
                disk: DISK,
                generation: Generation([0x9e; 16]),
                geometry: Geometry::new(2048, 4096, ChunkSize::from_bytes(65536).unwrap()).unwrap(),
                name: Text::lossy("vda"),
                key: DataKey::from_bytes([0x4b; 32]),
                origin: Origin {
                    past: vec![Ancestor { generation: Generation([0x9d; 16]), through: Epoch(3) }],
                    acked: Epoch(4),
                    has_changed: true,
                    claim: Claim {
                        ticket: Ticket { number: 6, secret: [0x71; 16] },
                        sealed: Some(Epoch(5)),
                    },
                    discard: Some(Generation([0x9c; 16])),
                },
            }),
            "a9000000 0200 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 9e9e9e9e9e9e9e9e9e9e9e9e9e9e9e9e \
             0008000000000000 00100000 00000100 \
             4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b 0300 766461 \
             01 9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d9d 0300000000000000 07 0400000000000000 \
             0600000000000000 71717171717171717171717171717171 0500000000000000 \
             9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c",
        ),
        (
            AgentMessage::HashRequest(HashRequest {
                disk: DISK,
                request: RequestId(7),
                first_block: 8,
                count: 9,
            }),
            "26000000 0300 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0700000000000000 0800000000000000 \
             09000000",
        ),
        (
            AgentMessage::AbortEpoch { disk: DISK, epoch: Epoch(5) },
            "1a000000 0400 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0500000000000000",
        ),
        (
            AgentMessage::CloseDisk { disk: DISK, forget: Forget::Forget },
            "13000000 0500 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 01",
        ),
        (AgentMessage::Ping(6), "0a000000 0600 0600000000000000"),
        (
            AgentMessage::ConfirmPoints { disk: DISK, through: Epoch(5) },
            "1a000000 0700 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0500000000000000",
        ),
        (
            AgentMessage::RetractPoints(RetractPoints {
                disk: DISK,
                after: Epoch(4),
                through: Epoch(6),
                reason: RetractReason::MissedIssue,
            }),
            "23000000 0800 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0400000000000000 0600000000000000 \
             02",
        ),
    ]
}

fn target_messages() -> Vec<(TargetMessage, &'static str)> {
    vec![
        (
            TargetMessage::Welcome(Welcome {
                version: 1,
                features: Features(2),
                target: MachineId([0xbb; 16]),
                window: ByteLen(1 << 24),
            }),
            "24000000 0180 0100 0200000000000000 bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb \
             0000000100000000",
        ),
        (
            TargetMessage::DiskOpened(DiskOpened {
                disk: DISK,
                generation: Generation([0x9e; 16]),
                last_durable: Epoch(4),
                confirmed: Epoch(3),
                state: ReplicaState::Follows,
                ticket: Ticket { number: 7, secret: [0x72; 16] },
            }),
            "4b000000 0280 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 9e9e9e9e9e9e9e9e9e9e9e9e9e9e9e9e \
             0400000000000000 0300000000000000 02 \
             0700000000000000 72727272727272727272727272727272",
        ),
        (
            TargetMessage::DiskRefused(DiskRefused {
                disk: DISK,
                code: Reason::ReplicaTooSmall.into(),
                detail: Detail::lossy("no"),
                replica: Some(Generation([0x9b; 16])),
            }),
            "2a000000 0380 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0b020000 0200 6e6f \
             9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b",
        ),
        (
            TargetMessage::EpochDurable { disk: DISK, epoch: Epoch(5) },
            "1a000000 0480 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0500000000000000",
        ),
        (
            TargetMessage::EpochFailed(EpochFailed {
                disk: DISK,
                epoch: Epoch(6),
                code: CloseCode::Unknown(0x1ff),
                detail: Detail::default(),
            }),
            "20000000 0580 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0600000000000000 ff010000 0000",
        ),
        (
            TargetMessage::Hashes(Hashes {
                disk: DISK,
                request: RequestId(7),
                first_block: 8,
                hashes: vec![[0xee; 32]],
            }),
            "46000000 0680 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0700000000000000 0800000000000000 \
             01000000 eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
        ),
        (
            TargetMessage::Credit { disk: DISK, epoch: Epoch(5), consumed: ByteLen(4096) },
            "22000000 0780 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0500000000000000 0010000000000000",
        ),
        (
            TargetMessage::DiskClosed { disk: DISK },
            "12000000 0880 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
        ),
        (TargetMessage::Pong(6), "0a000000 0980 0600000000000000"),
    ]
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Cuts one whole message out of its envelope.
fn envelope(bytes: &[u8]) -> Envelope {
    let mut decoder = MessageDecoder::new();
    decoder.push(bytes);
    let envelope = decoder.next_message().unwrap().unwrap();
    assert!(decoder.is_empty());
    envelope
}

#[test]
fn golden_bytes_of_version_1() {
    for (message, golden) in agent_messages() {
        assert_eq!(message.encode(), unhex(golden), "{message:?}");
        assert_eq!(AgentMessage::decode(&envelope(&unhex(golden))), Ok(message));
    }
    for (message, golden) in target_messages() {
        assert_eq!(message.encode(), unhex(golden), "{message:?}");
        assert_eq!(TargetMessage::decode(&envelope(&unhex(golden))), Ok(message));
    }
}

#[test]
fn a_body_cut_at_any_byte_or_too_long_is_refused() {
    let bodies = |kind: u16, body: &Bytes| -> Vec<Envelope> {
        let mut bodies: Vec<_> =
            (0..body.len()).map(|len| Envelope { kind, body: body.slice(..len) }).collect();
        bodies.push(Envelope { kind, body: [body, &[0][..]].concat().into() });
        bodies
    };
    for (message, _) in agent_messages() {
        let whole = envelope(&message.encode());
        for cut in bodies(whole.kind, &whole.body) {
            let longer = cut.body.len() > whole.body.len();
            let hello = matches!(message, AgentMessage::Hello(_));
            assert_eq!(AgentMessage::decode(&cut).is_ok(), longer && hello, "{message:?}");
        }
    }
    for (message, _) in target_messages() {
        let whole = envelope(&message.encode());
        for cut in bodies(whole.kind, &whole.body) {
            assert!(TargetMessage::decode(&cut).is_err(), "{message:?}");
        }
    }
}

#[test]
fn directions_do_not_mix() {
    for (message, _) in agent_messages() {
        let envelope = envelope(&message.encode());
        assert_eq!(TargetMessage::decode(&envelope), Err(MessageError::Type(envelope.kind)));
    }
    for (message, _) in target_messages() {
        let envelope = envelope(&message.encode());
        assert_eq!(AgentMessage::decode(&envelope), Err(MessageError::Type(envelope.kind)));
    }
}

#[test]
fn a_message_beyond_the_limit_is_refused_before_room_is_made() {
    for len in [MESSAGE_LEN_MAX + 1, u32::MAX] {
        let mut decoder = MessageDecoder::new();
        decoder.push(&len.to_le_bytes());
        assert_eq!(decoder.next_message(), Err(MessageError::TooLarge(len)));
        assert_eq!(MessageError::TooLarge(len).reason(), Reason::TooLarge);
    }
    for len in [0, 1] {
        let mut decoder = MessageDecoder::new();
        decoder.push(&u32::to_le_bytes(len));
        assert_eq!(decoder.next_message(), Err(MessageError::NoType(len)));
    }
}

#[test]
fn values_without_a_meaning_are_refused() {
    let change = |golden: &str, at: usize, value: &[u8]| {
        let mut bytes = unhex(golden);
        bytes[6 + at..6 + at + value.len()].copy_from_slice(value);
        envelope(&bytes)
    };
    let agent = agent_messages();
    let refused = |envelope: &Envelope| match AgentMessage::decode(envelope) {
        Err(MessageError::Layout { source: LayoutError::Field { field, .. }, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&change(agent[1].1, 32, &[0; 8])), "length in sectors");
    assert_eq!(refused(&change(agent[1].1, 32, &[255; 8])), "length in sectors");
    assert_eq!(refused(&change(agent[1].1, 44, &[1, 0, 0, 0])), "chunk size");
    assert_eq!(refused(&change(agent[2].1, 32, &[0; 4])), "count of hashes");
    assert_eq!(refused(&change(agent[2].1, 32, &4097u32.to_le_bytes())), "count of hashes");
    assert_eq!(refused(&change(agent[4].1, 16, &[2])), "fate");
    assert_eq!(refused(&change(agent[7].1, 16, &[6])), "last epoch");
    assert_eq!(refused(&change(agent[7].1, 32, &[9])), "reason");
    assert_eq!(refused(&change(agent[8].1, 24, &[2])), "source");
    assert_eq!(refused(&change(agent[8].1, 25, &[0; 4])), "count of blocks");
    assert_eq!(refused(&change(agent[8].1, 25, &257u32.to_le_bytes())), "count of blocks");
    assert_eq!(refused(&change(agent[8].1, 37, &3u64.to_le_bytes())), "next block");
    assert_eq!(refused(&change(agent[0].1, 28, &[65])), "length of a text");
    let target = target_messages();
    let decode = |envelope: &Envelope| TargetMessage::decode(envelope).is_err();
    assert!(decode(&change(target[1].1, 48, &[3])), "state");
    assert!(decode(&change(target[5].1, 32, &u32::MAX.to_le_bytes())), "count of hashes");
    assert!(decode(&change(target[2].1, 22, b"\x1b[")), "control characters");
}

#[test]
fn the_most_hashes_fit_a_message_and_no_more_are_sent() {
    let hashes = vec![[1; 32]; HASH_COUNT_MAX as usize + 1];
    let message =
        TargetMessage::Hashes(Hashes { disk: DISK, request: RequestId(1), first_block: 0, hashes });
    let TargetMessage::Hashes(decoded) =
        TargetMessage::decode(&envelope(&message.encode())).unwrap()
    else {
        panic!("another message");
    };
    assert_eq!(decoded.hashes.len(), HASH_COUNT_MAX as usize);
}

#[test]
fn the_leaves_of_blocks_byte_by_byte() {
    let hashes = std::array::from_fn(|place| [u8::try_from(place).unwrap(); 32]);
    let block = LeavesOfBlock { decayed: 0x8001, hashes };
    let leaves = |count| Leaves {
        disk: DISK,
        request: RequestId(9),
        as_of: Epoch(4),
        blocks: vec![block; count],
    };
    let bytes = TargetMessage::Leaves(leaves(1)).encode();
    let head = "28020000 0a80 d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1 0900000000000000 0400000000000000 \
                01000000 0180";
    assert_eq!(bytes[..44], unhex(head));
    assert_eq!(bytes[44..], hashes.concat());
    let decode = |bytes: &[u8]| TargetMessage::decode(&envelope(bytes));
    assert_eq!(decode(&bytes), Ok(TargetMessage::Leaves(leaves(1))));
    let short = Envelope { kind: 0x800a, body: bytes.slice(6..bytes.len() - 1) };
    assert!(TargetMessage::decode(&short).is_err());
    // The most there may be, and no more.
    let most = LEAF_BLOCKS_MAX as usize;
    let sent = TargetMessage::Leaves(leaves(most + 1)).encode();
    assert_eq!(decode(&sent), Ok(TargetMessage::Leaves(leaves(most))));
    let mut more = sent.to_vec();
    more[38..42].copy_from_slice(&(LEAF_BLOCKS_MAX + 1).to_le_bytes());
    assert!(decode(&more).is_err());
}

#[test]
fn a_key_on_its_way_is_not_printed() {
    let message = &agent_messages()[1].0;
    assert!(!format!("{message:?}").contains("75"), "0x4b is 75: {message:?}");
}

#[test]
fn versions_are_agreed_on_newest_first() {
    let range = |min, max| VersionRange { min, max };
    assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
    assert_eq!(range(2, 5).common(range(1, 3)), Some(3));
    assert_eq!(range(1, 1).common(range(2, 2)), None);
    assert_eq!(range(1, 9).common(range(9, 2)), None, "an empty range");
}

proptest! {
    #[test]
    fn garbage_never_panics(kind: u16, body in prop::collection::vec(any::<u8>(), 0..500)) {
        for kind in [kind, kind % 10, 0x8000 | (kind % 12)] {
            let envelope = Envelope { kind, body: Bytes::from(body.clone()) };
            if let Ok(message) = AgentMessage::decode(&envelope) {
                // Whatever was understood says the same again, but for what a hello adds.
                let again = self::envelope(&message.encode());
                prop_assert_eq!(again.kind, kind);
                prop_assert!(envelope.body.starts_with(&again.body));
            }
            if let Ok(message) = TargetMessage::decode(&envelope) {
                prop_assert_eq!(self::envelope(&message.encode()), envelope);
            }
        }
    }

    #[test]
    fn messages_come_out_of_any_pieces(piece in 1usize..100) {
        let stream: Vec<u8> =
            agent_messages().iter().flat_map(|(message, _)| message.encode().to_vec()).collect();
        let mut decoder = MessageDecoder::new();
        let mut decoded = Vec::new();
        for piece in stream.chunks(piece) {
            decoder.push(piece);
            while let Some(envelope) = decoder.next_message().unwrap() {
                decoded.push(AgentMessage::decode(&envelope).unwrap());
            }
        }
        let sent: Vec<_> = agent_messages().into_iter().map(|(message, _)| message).collect();
        prop_assert_eq!(decoded, sent);
        prop_assert!(decoder.is_empty());
    }

    #[test]
    fn texts_come_back(text in "\\PC{0,80}") {
        let build = Text::lossy(&text);
        let hello = AgentMessage::Hello(Hello {
            versions: VersionRange::SUPPORTED,
            features: Features(0),
            machine: MachineId([0; 16]),
            build,
        });
        prop_assert_eq!(AgentMessage::decode(&envelope(&hello.encode())), Ok(hello));
    }
}

#[test]
fn an_epoch_that_none_can_follow_is_refused() {
    let decode = |epoch| {
        let message = TargetMessage::EpochDurable { disk: DISK, epoch };
        let mut decoder = MessageDecoder::new();
        decoder.push(&message.encode());
        TargetMessage::decode(&decoder.next_message().unwrap().unwrap())
    };
    assert!(decode(Epoch::MAX).is_ok());
    let epoch = Epoch(Epoch::MAX.0 + 1);
    let source = LayoutError::Field { field: "epoch", value: epoch.0 };
    assert!(
        matches!(decode(epoch), Err(MessageError::Layout { source: found, .. }) if found == source)
    );
}
