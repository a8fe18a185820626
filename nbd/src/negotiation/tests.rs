use proptest::prelude::*;

use super::*;
use crate::PAYLOAD_MAX;
use crate::export::{Export, Run};
use crate::numbers::{OPTION_REPLY, transmission};

const SIZE: u64 = 1 << 30;

#[derive(Debug)]
struct Disk;

impl Export for Disk {
    fn len(&self) -> u64 {
        SIZE
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn status(&self, _: std::ops::Range<u64>, _: usize) -> std::io::Result<Vec<Run>> {
        Ok(Vec::new())
    }
}

fn negotiation(names: &[&str], secrecy: Secrecy) -> Negotiation {
    let offers = names.iter().map(|name| Offer::new(name, "a disk", &Disk)).collect();
    let mut negotiation = Negotiation::new(offers, secrecy);
    let greeting = negotiation.take_output();
    assert_eq!(greeting, *b"NBDMAGICIHAVEOPT\0\x03");
    assert_eq!(negotiation.handle(&3_u32.to_be_bytes()), Ok(Step::More));
    negotiation
}

type Answer = (u32, Vec<u8>);

/// Sends an option in the bites that are asked for, and gives the answers as (kind, data).
fn send(
    negotiation: &mut Negotiation,
    option: u32,
    data: &[u8],
) -> Result<(Step, Vec<Answer>), NegotiationError> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    let mut left = &bytes[..];
    let mut step;
    loop {
        let (bite, rest) = left.split_at(negotiation.wanted());
        step = negotiation.handle(bite)?;
        left = rest;
        // An option without data is complete only when its nothing was taken.
        if left.is_empty() && (negotiation.wanted() == HEADER_LEN || step != Step::More) {
            let output = negotiation.take_output();
            // The oldest option has an answer without an envelope.
            let plain = option == option::EXPORT_NAME;
            return Ok((step, if plain { Vec::new() } else { answers(option, &output) }));
        }
    }
}

fn answers(option: u32, bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut left = bytes;
    while !left.is_empty() {
        let mut reader = Reader::new(left);
        assert_eq!((reader.u64().unwrap(), reader.u32().unwrap()), (OPTION_REPLY, option));
        let kind = reader.u32().unwrap();
        let len = reader.u32().unwrap() as usize;
        answers.push((kind, left[20..20 + len].to_vec()));
        left = &left[20 + len..];
    }
    answers
}

fn kinds(answers: &[Answer]) -> Vec<u32> {
    answers.iter().map(|(kind, _)| *kind).collect()
}

fn string(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

fn info(name: &str, wants: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend(u16::try_from(wants.len()).unwrap().to_be_bytes());
    wants.iter().for_each(|want| data.extend(want.to_be_bytes()));
    data
}

fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    queries.iter().for_each(|query| data.extend(string(query)));
    data
}

#[test]
fn an_export_is_described_and_chosen() {
    let mut it = negotiation(&["vda", "vdb"], Secrecy::Plain);
    let (step, answers) = send(&mut it, option::INFO, &info("vdb", &[info::NAME, 77])).unwrap();
    assert_eq!(step, Step::More);
    assert_eq!(kinds(&answers), [answer::INFO, answer::INFO, answer::INFO, answer::ACK]);
    let flags = transmission::HAS_FLAGS
        | transmission::READ_ONLY
        | transmission::SEND_DF
        | transmission::CAN_MULTI_CONN
        | transmission::SEND_CACHE;
    let export = [&[0, 0], &SIZE.to_be_bytes()[..], &flags.to_be_bytes()].concat();
    assert_eq!(answers[0].1, export);
    let max = PAYLOAD_MAX.to_be_bytes();
    assert_eq!(answers[1].1, [&[0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0], &max[..]].concat());
    assert_eq!(answers[2].1, [&[0, 1], &b"vdb"[..]].concat());
    let (step, _) = send(&mut it, option::GO, &info("vdb", &[])).unwrap();
    let agreement = Agreement { export: 1, structured: false, allocation: false };
    assert_eq!(step, Step::Serve(agreement));
}

#[test]
fn exports_are_listed() {
    let mut it = negotiation(&["vda", "vdb"], Secrecy::Plain);
    let (_, answers) = send(&mut it, option::LIST, &[]).unwrap();
    assert_eq!(kinds(&answers), [answer::SERVER, answer::SERVER, answer::ACK]);
    assert_eq!(answers[1].1, [&string("vdb")[..], b"a disk"].concat());
    let (_, answers) = send(&mut it, option::LIST, b"x").unwrap();
    assert_eq!(kinds(&answers), [answer::INVALID]);
}

#[test]
fn the_empty_name_is_the_only_export_and_none_of_several() {
    let mut one = negotiation(&["vda"], Secrecy::Plain);
    assert!(matches!(send(&mut one, option::GO, &info("", &[])), Ok((Step::Serve(_), _))));
    let mut two = negotiation(&["vda", "vdb"], Secrecy::Plain);
    let (step, answers) = send(&mut two, option::GO, &info("", &[])).unwrap();
    assert_eq!((step, kinds(&answers)), (Step::More, vec![answer::UNKNOWN]));
}

#[test]
fn the_old_way_gets_zeroes_only_if_the_client_wants_them() {
    for (flags, padding) in [(1_u32, 124), (3, 0)] {
        let offers = [Offer::new("vda", "", &Disk)].into();
        let mut it = Negotiation::new(offers, Secrecy::Plain);
        it.take_output();
        it.handle(&flags.to_be_bytes()).unwrap();
        it.handle(&[&b"IHAVEOPT"[..], &[0, 0, 0, 1, 0, 0, 0, 3]].concat()).unwrap();
        assert!(matches!(it.handle(b"vda"), Ok(Step::Serve(_))));
        let output = it.take_output();
        assert_eq!(output.len(), 10 + padding);
        assert_eq!(output[..8], SIZE.to_be_bytes());
    }
    let mut it = negotiation(&["vda"], Secrecy::Plain);
    let unknown = send(&mut it, option::EXPORT_NAME, b"vdz");
    assert_eq!(unknown, Err(NegotiationError::NoExport));
}

#[test]
fn a_context_is_selected_for_one_export_after_structured_replies() {
    let mut it = negotiation(&["vda", "vdb"], Secrecy::Plain);
    let both = contexts("vda", &["base:allocation", "qemu:dirty-bitmap:x"]);
    let (_, answers) = send(&mut it, option::SET_META_CONTEXT, &both).unwrap();
    assert_eq!(kinds(&answers), [answer::INVALID], "structured replies come first");
    send(&mut it, option::STRUCTURED_REPLY, &[]).unwrap();
    let (_, answers) = send(&mut it, option::SET_META_CONTEXT, &both).unwrap();
    assert_eq!(kinds(&answers), [answer::META_CONTEXT, answer::ACK]);
    assert_eq!(answers[0].1, [&[0, 0, 0, 1], &b"base:allocation"[..]].concat());
    let agreed = |it: &mut Negotiation, name| match send(it, option::GO, &info(name, &[])) {
        Ok((Step::Serve(agreement), _)) => agreement.allocation,
        other => panic!("{other:?}"),
    };
    assert!(agreed(&mut it, "vda"));
    assert!(!agreed(&mut it, "vdb"), "it was selected for another export");
    // A selection that fails takes the former one with it.
    send(&mut it, option::SET_META_CONTEXT, &contexts("vdz", &["base:allocation"])).unwrap();
    assert!(!agreed(&mut it, "vda"));
}

#[test]
fn contexts_are_listed_by_name_by_namespace_and_all() {
    let mut it = negotiation(&["vda"], Secrecy::Plain);
    for (queries, found) in [
        (&["base:allocation"][..], true),
        (&["base:"], true),
        (&[], true),
        (&["qemu:"], false),
        (&["base:other"], false),
    ] {
        let data = contexts("vda", queries);
        let (_, answers) = send(&mut it, option::LIST_META_CONTEXT, &data).unwrap();
        assert_eq!(answers.len(), 1 + usize::from(found), "{queries:?}");
    }
}

#[test]
fn nothing_is_told_before_tls_where_tls_is() {
    let mut it = negotiation(&["vda"], Secrecy::TlsFirst);
    for option in [option::LIST, option::INFO, option::GO, option::STRUCTURED_REPLY, 99] {
        let (_, answers) = send(&mut it, option, &[]).unwrap();
        assert_eq!(kinds(&answers), [answer::TLS_REQUIRED]);
    }
    let (step, answers) = send(&mut it, option::STARTTLS, &[]).unwrap();
    assert_eq!((step, kinds(&answers)), (Step::StartTls, vec![answer::ACK]));
    it.secured();
    let (_, answers) = send(&mut it, option::LIST, &[]).unwrap();
    assert_eq!(kinds(&answers), [answer::SERVER, answer::ACK]);
    let (_, answers) = send(&mut it, option::STARTTLS, &[]).unwrap();
    assert_eq!(kinds(&answers), [answer::INVALID]);
    let mut clear = negotiation(&["vda"], Secrecy::TlsFirst);
    let unsaid = send(&mut clear, option::EXPORT_NAME, b"vda");
    assert_eq!(unsaid, Err(NegotiationError::NoExport));
}

#[test]
fn what_is_unknown_is_answered_and_what_is_malformed_as_well() {
    let mut it = negotiation(&["vda"], Secrecy::Plain);
    let mut kind = |option, data: &[u8]| kinds(&send(&mut it, option, data).unwrap().1);
    assert_eq!(kind(option::STARTTLS, &[]), [answer::UNSUPPORTED]);
    assert_eq!(kind(11, &[]), [answer::UNSUPPORTED], "extended headers");
    assert_eq!(kind(0xffff_ffff, b"what"), [answer::UNSUPPORTED]);
    assert_eq!(kind(option::GO, b"\xff\xff\xff\xff"), [answer::INVALID]);
    assert_eq!(kind(option::GO, &[&info("vda", &[])[..], b"x"].concat()), [answer::INVALID]);
    let mut queries = contexts("vda", &[]);
    queries[7..11].fill(0xff);
    assert_eq!(kind(option::LIST_META_CONTEXT, &queries), [answer::INVALID]);
    let (step, answers) = send(&mut it, option::ABORT, b"bye").unwrap();
    assert_eq!((step, kinds(&answers)), (Step::End, vec![answer::ACK]));
}

#[test]
fn an_option_that_is_too_long_is_skipped_without_being_held() {
    let mut it = negotiation(&["vda"], Secrecy::Plain);
    let long = vec![0; OPTION_LEN_MAX as usize + 1];
    let (_, answers) = send(&mut it, option::GO, &long).unwrap();
    assert_eq!(kinds(&answers), [answer::TOO_BIG]);
    assert!(matches!(send(&mut it, option::GO, &info("vda", &[])), Ok((Step::Serve(_), _))));
    // The longest that can be announced asks for no more room than any other.
    it.handle(&[&b"IHAVEOPT"[..], &[0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff]].concat()).unwrap();
    assert!(it.wanted() <= OPTION_LEN_MAX as usize);
}

#[test]
fn a_client_that_tries_on_and_on_is_sent_away() {
    let mut it = negotiation(&["vda"], Secrecy::Plain);
    for _ in 0..OPTIONS_MAX {
        send(&mut it, 99, &[]).unwrap();
    }
    assert_eq!(send(&mut it, 99, &[]), Err(NegotiationError::TooManyOptions));
}

#[test]
fn strangers_are_recognised() {
    let offers: Arc<[Offer]> = [Offer::new("vda", "", &Disk)].into();
    let mut it = Negotiation::new(Arc::clone(&offers), Secrecy::Plain);
    assert_eq!(it.handle(&0x40_u32.to_be_bytes()), Err(NegotiationError::Flags(0x40)));
    let mut it = negotiation(&["vda"], Secrecy::Plain);
    assert!(matches!(it.handle(b"GET / HTTP/1.1\r\n"), Err(NegotiationError::NoOption(_))));
}

proptest! {
    /// Whatever comes, it answers or gives up: it does not panic, and wants no more than it said.
    #[test]
    fn garbage_is_survived(
        options in prop::collection::vec((0..16_u32, prop::collection::vec(any::<u8>(), 0..80)), 0..20),
        tls in any::<bool>(),
    ) {
        let secrecy = if tls { Secrecy::TlsFirst } else { Secrecy::Plain };
        let mut it = negotiation(&["vda"], secrecy);
        for (option, data) in options {
            let Ok((step, _)) = send(&mut it, option, &data) else { break };
            prop_assert!(it.wanted() <= OPTION_LEN_MAX as usize);
            if step != Step::More {
                break;
            }
        }
    }
}
