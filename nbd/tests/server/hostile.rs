//! Clients that mean no good. After each of them, the next one is served.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use crate::rig::{LEN, Rig, Served, noise};

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\0\x03";
const FLAGS: &[u8] = &[0, 0, 0, 3];

fn option(number: u32, len: u32, data: &[u8]) -> Vec<u8> {
    [b"IHAVEOPT", &number.to_be_bytes()[..], &len.to_be_bytes(), data].concat()
}

/// The shortest way into the transmission phase: the old way, without structured replies.
fn entered(served: &Served) -> UnixStream {
    let mut stream = served.connect();
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, GREETING);
    stream.write_all(&[FLAGS, &option(1, 3, b"vda")].concat()).unwrap();
    let mut export = [0; 10];
    stream.read_exact(&mut export).unwrap();
    assert_eq!(export[..8], LEN.to_be_bytes());
    stream
}

fn request(command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// Error and cookie of a simple reply without content.
fn reply(stream: &mut UnixStream) -> (u32, u64) {
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], [0x67, 0x44, 0x66, 0x98]);
    let error = u32::from_be_bytes(reply[4..8].try_into().unwrap());
    (error, u64::from_be_bytes(reply[8..].try_into().unwrap()))
}

/// That the server has hung up. Whether it did by an end or a reset is its business.
fn assert_ended(mut stream: UnixStream) {
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        let kind = error.kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "it did not hang up: {error}");
    }
}

#[test]
fn garbage_and_ends_at_every_byte_of_a_handshake() {
    let rig = Rig::new();
    let served = rig.serve();
    let go = [&[0, 0, 0, 3][..], b"vda", &[0, 1, 0, 3]].concat();
    let whole = [FLAGS, &option(8, 0, &[]), &option(7, 11, &go), &request(0, 1, 0, 512)].concat();
    for end in 0..whole.len() {
        let mut stream = served.connect();
        stream.write_all(&whole[..end]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_ended(stream);
    }
    for seed in 0..50 {
        let mut stream = served.connect();
        // It may have hung up before all of it was sent.
        drop(stream.write_all(&noise(seed, 300)));
        drop(stream.shutdown(Shutdown::Write));
        assert_ended(stream);
    }
    served.check_alive();
}

#[test]
fn lengths_that_are_announced_and_never_come() {
    let rig = Rig::new();
    let served = rig.serve_writable();
    let before = resident_kib();
    let mut streams = Vec::new();
    for number in 0..5 {
        let mut stream = served.connect();
        stream.write_all(&[FLAGS, &option(number + 3, u32::MAX, &[])].concat()).unwrap();
        streams.push(stream);
    }
    for len in [u32::MAX, 1 << 31, (32 << 20) + 1] {
        let mut stream = entered(&served);
        stream.write_all(&request(1, 7, 0, len)).unwrap();
        streams.push(stream);
    }
    served.check_alive();
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB were allocated for what was only announced");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_write_that_is_too_long_is_read_past_and_refused() {
    let rig = Rig::new();
    let served = rig.serve_writable();
    let mut stream = entered(&served);
    let len = (32 << 20) + 512;
    stream.write_all(&request(1, 9, 0, len)).unwrap();
    stream.write_all(&vec![1; len as usize]).unwrap();
    assert_eq!(reply(&mut stream), (22, 9));
    stream.write_all(&request(1, 10, 0, 4)).unwrap();
    stream.write_all(b"abcd").unwrap();
    assert_eq!(reply(&mut stream), (0, 10), "the connection has lost its place");
}

#[test]
fn commands_that_are_unknown_and_requests_that_are_none() {
    let rig = Rig::new();
    let served = rig.serve();
    let mut stream = entered(&served);
    for command in [8, 99, 0xffff] {
        stream.write_all(&request(command, 3, 0, 512)).unwrap();
        assert_eq!(reply(&mut stream), (22, 3));
    }
    stream.write_all(&[0xee; 28]).unwrap();
    assert_ended(stream);
    served.check_alive();
}

#[test]
fn a_flood_of_requests_is_answered_in_full() {
    const COUNT: u64 = 20_000;
    let rig = Rig::new();
    let served = rig.serve();
    let mut stream = entered(&served);
    let mut sender = stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        for cookie in 0..COUNT {
            // All of them past the end: small replies, as fast as can be.
            sender.write_all(&request(0, cookie, LEN, 1)).unwrap();
        }
        sender.write_all(&request(2, 0, 0, 0)).unwrap();
    });
    let mut seen = vec![false; usize::try_from(COUNT).unwrap()];
    for _ in 0..COUNT {
        let (error, cookie) = reply(&mut stream);
        assert_eq!(error, 22);
        let slot = &mut seen[usize::try_from(cookie).unwrap()];
        assert!(!std::mem::replace(slot, true), "{cookie} was answered twice");
    }
    flood.join().unwrap();
    assert_ended(stream);
    served.check_alive();
}

#[test]
fn clients_that_leave_in_the_middle_of_everything() {
    let rig = Rig::new();
    let served = rig.serve_writable();
    for round in 0..30_u32 {
        let mut stream = entered(&served);
        for cookie in 0..20 {
            stream.write_all(&request(0, cookie, 0, 1 << 20)).unwrap();
        }
        stream.write_all(&request(1, 99, 0, 1 << 20)).unwrap();
        stream.write_all(&vec![7; 1000 * round as usize]).unwrap();
        drop(stream);
    }
    served.check_alive();
}
