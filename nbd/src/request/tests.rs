use proptest::prelude::*;

use super::*;

const SIZE: u64 = 1 << 20;

const WRITABLE: Terms = Terms { size: SIZE, writable: true, structured: true, allocation: true };
const READ_ONLY: Terms = Terms { writable: false, ..WRITABLE };
const BARE: Terms = Terms { structured: false, allocation: false, ..READ_ONLY };

fn header(command: u16, flags: u16, offset: u64, len: u32) -> Header {
    let mut bytes = [0; HEADER_LEN];
    bytes[..4].copy_from_slice(&REQUEST.to_be_bytes());
    bytes[4..6].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&command.to_be_bytes());
    bytes[8..16].copy_from_slice(b"a cookie");
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..].copy_from_slice(&len.to_be_bytes());
    Header::parse(&bytes).unwrap()
}

fn number(terms: Terms, header: Header) -> Option<ErrorNumber> {
    terms.admit(&header).err().map(|refusal| refusal.number)
}

#[test]
fn a_request_is_read_and_garbage_is_not() {
    let header = header(command::WRITE, 0, 4096, 512);
    assert_eq!((header.cookie, header.payload_len()), (u64::from_be_bytes(*b"a cookie"), 512));
    assert_eq!(Header::parse(&[7; HEADER_LEN]), Err(NoRequest(0x0707_0707)));
}

#[test]
fn commands_come_with_their_flags() {
    let admitted = |command, flags| WRITABLE.admit(&header(command, flags, 0, 8)).unwrap();
    let range = 0..8;
    assert_eq!(admitted(command::READ, 0), Command::Read { range: 0..8, whole: false });
    assert_eq!(admitted(command::READ, flag::DF), Command::Read { range: 0..8, whole: true });
    assert_eq!(admitted(command::WRITE, flag::FUA), Command::Write { range: 0..8, durable: true });
    let how = Zeroing::Allocate;
    let zero = Command::Zero { range, how, fast_only: true, durable: false };
    assert_eq!(admitted(command::WRITE_ZEROES, flag::NO_HOLE | flag::FAST_ZERO), zero);
    assert_eq!(
        admitted(command::BLOCK_STATUS, flag::REQ_ONE),
        Command::Status { range: 0..8, one: true }
    );
    let simple = BARE.admit(&header(command::READ, 0, 0, 8)).unwrap();
    assert_eq!(simple, Command::Read { range: 0..8, whole: true });
}

#[test]
fn what_goes_past_the_end_is_refused_by_kind() {
    let past = [(SIZE - 1, 2), (SIZE, 1), (u64::MAX, 1), (u64::MAX - 1, u32::MAX)];
    for (offset, len) in past {
        for (command, refused) in [
            (command::READ, ErrorNumber::Invalid),
            (command::TRIM, ErrorNumber::Invalid),
            (command::CACHE, ErrorNumber::Invalid),
            (command::BLOCK_STATUS, ErrorNumber::Invalid),
            (command::WRITE_ZEROES, ErrorNumber::NoSpace),
        ] {
            assert_eq!(number(WRITABLE, header(command, 0, offset, len)), Some(refused));
        }
    }
    let write = header(command::WRITE, 0, SIZE, 1);
    assert_eq!(number(WRITABLE, write), Some(ErrorNumber::NoSpace));
    let last = WRITABLE.admit(&header(command::READ, 0, SIZE - 1, 1));
    assert_eq!(last, Ok(Command::Read { range: SIZE - 1..SIZE, whole: false }));
}

#[test]
fn nobody_writes_a_read_only_export() {
    for command in [command::WRITE, command::WRITE_ZEROES, command::TRIM] {
        let refused = number(READ_ONLY, header(command, 0, 0, 8));
        assert_eq!(refused, Some(ErrorNumber::NotPermitted));
    }
    let flush = header(command::FLUSH, 0, 0, 0);
    assert_eq!(number(READ_ONLY, flush), Some(ErrorNumber::Invalid), "it is not offered there");
    assert_eq!(WRITABLE.admit(&flush), Ok(Command::Flush));
}

#[test]
fn no_payload_is_larger_than_the_limit() {
    let large = Terms { size: 1 << 40, ..WRITABLE };
    for command in [command::READ, command::WRITE] {
        assert_eq!(number(large, header(command, 0, 0, PAYLOAD_MAX)), None);
        let refused = number(large, header(command, 0, 0, PAYLOAD_MAX + 1));
        assert_eq!(refused, Some(ErrorNumber::Invalid));
    }
    // These carry none.
    for command in [command::TRIM, command::WRITE_ZEROES, command::BLOCK_STATUS] {
        assert_eq!(number(large, header(command, 0, 0, u32::MAX)), None);
    }
}

#[test]
fn what_is_unknown_or_was_not_agreed_on_is_invalid() {
    let invalid = Some(ErrorNumber::Invalid);
    assert_eq!(number(WRITABLE, header(8, 0, 0, 8)), invalid, "resize");
    assert_eq!(number(WRITABLE, header(0xffff, 0, 0, 8)), invalid);
    assert_eq!(number(WRITABLE, header(command::READ, 1 << 15, 0, 8)), invalid);
    assert_eq!(number(WRITABLE, header(command::WRITE, flag::DF, 0, 8)), invalid);
    assert_eq!(number(READ_ONLY, header(command::READ, flag::FUA, 0, 8)), invalid);
    assert_eq!(number(BARE, header(command::READ, flag::DF, 0, 8)), invalid);
    assert_eq!(number(BARE, header(command::BLOCK_STATUS, 0, 0, 8)), invalid);
    assert_eq!(number(WRITABLE, header(command::FLUSH, 0, 0, 8)), invalid);
}

#[test]
fn what_is_about_nothing_is_done_but_for_a_status_that_could_not_be_told() {
    for command in [command::READ, command::WRITE, command::TRIM, command::CACHE] {
        assert_eq!(WRITABLE.admit(&header(command, 0, SIZE, 0)), Ok(Command::Nothing));
    }
    let status = header(command::BLOCK_STATUS, 0, 0, 0);
    assert_eq!(number(WRITABLE, status), Some(ErrorNumber::Invalid));
}

fn range(command: &Command) -> Option<&Range<u64>> {
    match command {
        Command::Read { range, .. }
        | Command::Write { range, .. }
        | Command::Zero { range, .. }
        | Command::Trim { range, .. }
        | Command::Cache { range }
        | Command::Status { range, .. } => Some(range),
        Command::Flush | Command::Nothing | Command::Disconnect => None,
    }
}

proptest! {
    #[test]
    fn what_is_admitted_is_in_range(
        (command, flags) in (0..10_u16, 0..64_u16),
        offset in prop_oneof![0..SIZE + 10, any::<u64>()],
        len in prop_oneof![0..1000_u32, any::<u32>()],
    ) {
        for terms in [WRITABLE, READ_ONLY, BARE] {
            let header = header(command, flags, offset, len);
            let Ok(command) = terms.admit(&header) else { continue };
            if let Some(range) = range(&command) {
                prop_assert!(range.start < range.end && range.end <= SIZE);
                prop_assert_eq!(range.end - range.start, u64::from(len));
            }
        }
    }
}
