use super::*;
use crate::Content;

const COOKIE: u64 = 0x0102_0304_0506_0708;

fn encoded(form: Form, encode: impl FnOnce(&Reply, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&Reply { form, cookie: COOKIE }, &mut out);
    out
}

/// Head of a chunk: magic, flags, type, cookie, length.
fn head(flags: u8, kind: [u8; 2], len: u8) -> Vec<u8> {
    let mut head = vec![0x66, 0x8e, 0x33, 0xef, 0, flags, kind[0], kind[1]];
    head.extend([1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, len]);
    head
}

#[test]
fn simple_replies_have_a_number_and_a_cookie() {
    let done = encoded(Form::Simple, |reply, out| reply.done(out));
    assert_eq!(done, [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let failed = encoded(Form::Simple, |reply, out| reply.error(ErrorNumber::NoSpace, "full", out));
    assert_eq!(failed, [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn chunks_are_laid_out_as_the_protocol_says() {
    let stretch = Stretch { offset: 0x1000, len: 0x200 };
    let done = encoded(Form::Structured, |reply, out| reply.done(out));
    assert_eq!(done, head(1, [0, 0], 0));
    let data = encoded(Form::Structured, |reply, out| reply.data(stretch, Place::Inner, out));
    let mut expected = head(0, [0, 1], 8);
    expected[18] = 2;
    expected.extend([0, 0, 0, 0, 0, 0, 0x10, 0]);
    assert_eq!(data, expected);
    let hole = encoded(Form::Structured, |reply, out| reply.hole(stretch, Place::Last, out));
    let payload = [0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 2, 0];
    assert_eq!(hole, [&head(1, [0, 2], 12)[..], &payload].concat());
    let words = "in the dark";
    let error = encoded(Form::Structured, |reply, out| reply.error(ErrorNumber::Io, words, out));
    let payload = [&[0, 0, 0, 5, 0, 11], words.as_bytes()].concat();
    assert_eq!(error, [head(1, [0x80, 1], 17), payload].concat());
}

#[test]
fn status_runs_carry_their_lengths_and_flags() {
    let runs = [
        Run { len: 0x1_0000, content: Content::Hole },
        Run { len: u64::from(u32::MAX), content: Content::Data },
    ];
    let status = encoded(Form::Structured, |reply, out| reply.status(&runs, out));
    let mut payload = vec![0, 0, 0, 1];
    payload.extend([0, 1, 0, 0, 0, 0, 0, 3]);
    payload.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(status, [head(1, [0, 5], 20), payload].concat());
}

#[test]
fn words_are_cut_where_the_protocol_ends() {
    let words = "ü".repeat(5000);
    let error =
        encoded(Form::Structured, |reply, out| reply.error(ErrorNumber::Invalid, &words, out));
    assert_eq!(error.len(), 20 + 6 + 4096);
    assert!(str::from_utf8(&error[26..]).is_ok());
}
