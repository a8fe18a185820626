//! What a client of an exported point sends: its handshake, then its requests.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use ::nbd::negotiation::{Negotiation, OPTION_LEN_MAX, Offer, Secrecy, Step};
use ::nbd::request::{Command, HEADER_LEN, Header, Terms};
use ::nbd::{Content, Export, PAYLOAD_MAX, Run};

const SIZE: u64 = 1 << 20;
const DESCRIPTION: &str = "as of noon";
/// What the answer to one option may be: a list of all exports, each a name and a description.
const OUTPUT_MAX: usize = 16 << 10;

/// A disk that holds nothing.
#[derive(Debug)]
struct Nothing;

impl Export for Nothing {
    fn len(&self) -> u64 {
        SIZE
    }

    fn read_at(&self, _offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(0);
        Ok(())
    }

    fn status(&self, range: Range<u64>, _runs_max: usize) -> io::Result<Vec<Run>> {
        Ok(vec![Run { len: range.end - range.start, content: Content::Hole }])
    }
}

pub(crate) fn run(bytes: &[u8]) {
    let Some((how, mut rest)) = bytes.split_first() else { return };
    let secrecy = if how & 1 == 0 { Secrecy::Plain } else { Secrecy::TlsFirst };
    let offers: Arc<[Offer]> =
        ["vda", "vdb"].map(|name| Offer::new(name, DESCRIPTION, &Nothing)).into();
    let mut negotiation = Negotiation::new(offers, secrecy);
    let terms = loop {
        assert!(negotiation.take_output().len() <= OUTPUT_MAX);
        assert!(negotiation.wanted() <= OPTION_LEN_MAX as usize);
        let Some((wanted, after)) = rest.split_at_checked(negotiation.wanted()) else { return };
        rest = after;
        match negotiation.handle(wanted) {
            Ok(Step::More) => {}
            Ok(Step::StartTls) => negotiation.secured(),
            Ok(Step::Serve(agreement)) => {
                assert!(agreement.export < 2);
                break Terms::new(&Nothing, agreement);
            }
            Ok(Step::End) | Err(_) => return,
        }
    };
    requests(terms, how & 2 != 0, rest);
}

fn requests(terms: Terms, writable: bool, mut rest: &[u8]) {
    let terms = Terms { writable, ..terms };
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_LEN>() {
        let Ok(header) = Header::parse(header) else { return };
        match terms.admit(&header) {
            Ok(command) => check(&command),
            Err(refusal) => assert!(!refusal.words.is_empty()),
        }
        let payload = usize::try_from(header.payload_len()).expect("32 bits");
        let Some(after) = after.get(payload..) else { return };
        rest = after;
    }
}

fn check(command: &Command) {
    let range = match command {
        Command::Read { range, .. } | Command::Write { range, .. } => {
            assert!(range.end - range.start <= u64::from(PAYLOAD_MAX));
            range
        }
        Command::Zero { range, .. }
        | Command::Trim { range, .. }
        | Command::Cache { range }
        | Command::Status { range, .. } => range,
        Command::Flush | Command::Nothing | Command::Disconnect => return,
    };
    assert!(range.start < range.end && range.end <= SIZE, "{command:?}");
}

/// A client that agrees on everything, and reads; the numbers are the protocol's.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let option = |number: u32, data: &[u8]| {
        let len = u32::try_from(data.len()).expect("a short option").to_be_bytes();
        [&b"IHAVEOPT"[..], &number.to_be_bytes(), &len, data].concat()
    };
    let go = [&3u32.to_be_bytes()[..], b"vda", &0u16.to_be_bytes()].concat();
    let context = [&3u32.to_be_bytes()[..], b"vda", &1u32.to_be_bytes(), &15u32.to_be_bytes()];
    let context = [&context.concat()[..], b"base:allocation"].concat();
    let request = |flags: u16, command: u16, len: u32| {
        let head = [&0x2560_9513_u32.to_be_bytes()[..], &flags.to_be_bytes()].concat();
        let body = [&[7; 8][..], &512u64.to_be_bytes(), &len.to_be_bytes()].concat();
        [&head[..], &command.to_be_bytes(), &body].concat()
    };
    let handshake = [option(3, &[]), option(8, &[]), option(10, &context), option(7, &go)].concat();
    let requests = (0..8).map(|command| request(0, command, 64));
    let requests: Vec<u8> = requests.flat_map(|request| [request, vec![0; 64]].concat()).collect();
    let client = [&3u32.to_be_bytes()[..], &handshake, &requests].concat();
    (0..4).map(|how| [&[how][..], &client].concat()).collect()
}
