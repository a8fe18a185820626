//! The bytes of a control stream, in either direction, and of an enrolment.

use wire::enroll::{EnrollAnswer, EnrollRequest};
use wire::message::{Envelope, MESSAGE_LEN_MAX};
use wire::{AgentMessage, MessageDecoder, MessageError, TargetMessage};

pub(crate) fn run(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let mut decoder = MessageDecoder::new();
    for piece in rest.chunks(1 + usize::from(*how)) {
        decoder.push(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(envelope)) => check(&envelope),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// Whatever the envelope holds, as each of the four that read one.
fn check(envelope: &Envelope) {
    assert!(envelope.body.len() <= MESSAGE_LEN_MAX as usize);
    comes_back(envelope, AgentMessage::decode, AgentMessage::encode);
    comes_back(envelope, TargetMessage::decode, TargetMessage::encode);
    comes_back(envelope, EnrollRequest::decode, EnrollRequest::encode);
    comes_back(envelope, EnrollAnswer::decode, EnrollAnswer::encode);
}

/// What was decoded is the same after it was encoded and decoded once more.
fn comes_back<M: PartialEq + std::fmt::Debug>(
    envelope: &Envelope,
    decode: fn(&Envelope) -> Result<M, MessageError>,
    encode: fn(&M) -> bytes::Bytes,
) {
    let Ok(message) = decode(envelope) else { return };
    let mut decoder = MessageDecoder::new();
    decoder.push(&encode(&message));
    let again = decoder.next_message().expect("an encoded message has an envelope");
    let again = decode(&again.expect("all of it is there")).expect("an encoded message decodes");
    assert_eq!(again, message);
    assert!(decoder.is_empty(), "nothing is left of {message:?}");
}

/// An envelope of each type with a body of zeroes that is longer than any fixed one.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let types = (1..=8).chain(0x8001..=0x8009).chain([0x4001, 0xc001, 0xc002]);
    let seed = |kind: u16| {
        let mut bytes = vec![255, 162, 0, 0, 0];
        bytes.extend(kind.to_le_bytes());
        bytes.resize(bytes.len() + 160, 0);
        bytes
    };
    types.map(seed).collect()
}
