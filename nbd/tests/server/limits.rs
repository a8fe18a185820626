//! What a client can hold, and for how long.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use nbd::Limits;

use crate::rig::{Rig, eventually};

const IMPATIENT: Limits = Limits {
    connections: 3,
    workers: 2,
    queue: 4,
    memory: 32 << 20,
    patience: Duration::from_millis(1500),
};

#[test]
fn a_client_that_does_not_go_on_is_sent_away() {
    let rig = Rig::new();
    let served = rig.serve_export(rig.raw(), IMPATIENT);
    let begun = Instant::now();
    let mut silent = served.connect();
    let mut half = served.connect();
    half.write_all(&[0, 0]).unwrap();
    for stream in [&mut silent, &mut half] {
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let took = begun.elapsed();
    assert!(took >= IMPATIENT.patience && took < Duration::from_secs(10), "{took:?}");
    served.check_alive();
}

#[test]
fn a_client_that_takes_no_replies_loses_its_connection_and_not_the_others() {
    let rig = Rig::new();
    let served = rig.serve_export(rig.raw(), IMPATIENT);
    let mut greedy = served.connect();
    greedy.write_all(&[0, 0, 0, 3]).unwrap();
    greedy.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x03vda").unwrap();
    // Each reply takes all the memory there is for replies that can't be cut, and none is taken.
    let mut request = vec![0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    request.extend([0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    for _ in 0..3 {
        greedy.write_all(&request).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    served.check_alive();
    let mut other = served.connect();
    other.write_all(&[0, 0, 0, 3]).unwrap();
    other.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x03vda").unwrap();
    other.write_all(&request).unwrap();
    let mut all = vec![0; 18 + 10 + 16 + (32 << 20)];
    other.read_exact(&mut all).unwrap();
    assert!(all[44..] == rig.content()[..32 << 20], "the wait was not for the content");
    let mut rest = Vec::new();
    // What was in the socket may still be read, and then it is over.
    drop(greedy.read_to_end(&mut rest));
    assert!(rest.len() < 32 << 20);
}

#[test]
fn an_idle_client_may_stay_and_one_too_many_may_not() {
    let rig = Rig::new();
    let served = rig.serve_export(rig.raw(), IMPATIENT);
    let mut idle = served.connect();
    idle.write_all(&[0, 0, 0, 3]).unwrap();
    idle.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x03vda").unwrap();
    let mut greeting = [0; 28];
    idle.read_exact(&mut greeting).unwrap();
    let others: Vec<_> = (1..IMPATIENT.connections).map(|_| served.connect()).collect();
    let mut refused = served.connect();
    assert_eq!(refused.read_to_end(&mut Vec::new()).unwrap(), 0, "one too many was let in");
    drop(others);
    eventually("a place", || {
        let mut next = served.connect();
        next.read_exact(&mut [0; 18]).is_ok()
    });
    std::thread::sleep(IMPATIENT.patience + Duration::from_secs(1));
    idle.write_all(&[0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0]).unwrap();
    idle.write_all(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]).unwrap();
    let mut reply = [0; 24];
    idle.read_exact(&mut reply).unwrap();
    assert_eq!(reply[16..], rig.content()[..8]);
}
