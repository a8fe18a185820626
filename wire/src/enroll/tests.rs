//! The messages of enrolment, byte by byte.

use proptest::prelude::*;

use super::*;
use crate::close::Reason;
use crate::message::MessageDecoder;

fn request() -> EnrollRequest {
    EnrollRequest {
        versions: VersionRange { min: 1, max: 1 },
        token: TokenId([1; 8]),
        secret: TokenSecret::from_bytes([2; 16]),
        machine: MachineId([3; 16]),
        hostname: Hostname::lossy("db1"),
        csr: Der::new(vec![0x30, 0]).unwrap(),
    }
}

fn answers() -> [(EnrollAnswer, Vec<u8>); 2] {
    let enrolled = Enrolled {
        target: MachineId([4; 16]),
        chain: vec![Der::new(vec![5]).unwrap(), Der::new(vec![6, 7]).unwrap()],
    };
    let mut golden = vec![26, 0, 0, 0, 0x01, 0xc0];
    golden.extend([4; 16]);
    golden.extend([2, 1, 0, 5, 2, 0, 6, 7]);
    let refused =
        EnrollAnswer::Refused { code: Reason::TokenExpired.into(), detail: Detail::lossy("no") };
    let refusal = vec![10, 0, 0, 0, 0x02, 0xc0, 0x11, 2, 0, 0, 2, 0, b'n', b'o'];
    [(EnrollAnswer::Enrolled(enrolled), golden), (refused, refusal)]
}

fn envelope(bytes: &[u8]) -> Envelope {
    let mut decoder = MessageDecoder::new();
    decoder.push(bytes);
    decoder.next_message().unwrap().unwrap()
}

#[test]
fn golden_bytes_of_version_1() {
    let mut golden = vec![55, 0, 0, 0, 0x01, 0x40, 1, 0, 1, 0];
    golden.extend([1; 8]);
    golden.extend([2; 16]);
    golden.extend([3; 16]);
    golden.extend([3, 0, b'd', b'b', b'1', 2, 0, 0x30, 0]);
    assert_eq!(request().encode(), golden);
    assert_eq!(EnrollRequest::decode(&envelope(&golden)), Ok(request()));
    for (answer, golden) in answers() {
        assert_eq!(answer.encode(), golden);
        assert_eq!(EnrollAnswer::decode(&envelope(&golden)), Ok(answer));
    }
}

#[test]
fn cut_or_padded_messages_are_refused() {
    let whole = envelope(&request().encode());
    for len in 0..whole.body.len() {
        let cut = Envelope { kind: whole.kind, body: whole.body.slice(..len) };
        assert!(EnrollRequest::decode(&cut).is_err());
    }
    for (answer, _) in answers() {
        let whole = envelope(&answer.encode());
        for len in 0..whole.body.len() {
            let cut = Envelope { kind: whole.kind, body: whole.body.slice(..len) };
            assert!(EnrollAnswer::decode(&cut).is_err());
        }
        let padded = Envelope { body: [&whole.body[..], &[0]].concat().into(), ..whole };
        assert!(EnrollAnswer::decode(&padded).is_err());
    }
}

#[test]
fn limits_hold_on_both_ways() {
    assert!(Der::<CSR_LEN_MAX>::new(vec![0; CSR_LEN_MAX]).is_ok());
    let error = DerError { len: CSR_LEN_MAX + 1, max: CSR_LEN_MAX };
    assert_eq!(Der::<CSR_LEN_MAX>::new(vec![0; CSR_LEN_MAX + 1]), Err(error));
    let mut bytes = request().encode().to_vec();
    let at = bytes.len() - 4;
    bytes[at..at + 2].copy_from_slice(&8193u16.to_le_bytes());
    assert!(EnrollRequest::decode(&envelope(&bytes)).is_err());
    for count in [0, 5] {
        let mut bytes = answers()[0].1.clone();
        bytes[22] = count;
        assert!(EnrollAnswer::decode(&envelope(&bytes)).is_err(), "{count} certificates");
    }
}

#[test]
fn nothing_secret_is_printed_and_no_other_message_is_taken() {
    assert!(format!("{:?}", request()).contains("secret: Secret<16>(..)"));
    let (answer, _) = &answers()[0];
    assert!(EnrollRequest::decode(&envelope(&answer.encode())).is_err());
    assert!(EnrollAnswer::decode(&envelope(&request().encode())).is_err());
}

proptest! {
    #[test]
    fn garbage_never_panics(body in prop::collection::vec(any::<u8>(), 0..500)) {
        for kind in [REQUEST, ENROLLED, REFUSED] {
            let envelope = Envelope { kind, body: Bytes::from(body.clone()) };
            if let Ok(request) = EnrollRequest::decode(&envelope) {
                prop_assert_eq!(self::envelope(&request.encode()), envelope.clone());
            }
            if let Ok(answer) = EnrollAnswer::decode(&envelope) {
                prop_assert_eq!(self::envelope(&answer.encode()), envelope);
            }
        }
    }
}
