use super::*;

fn record() -> Record {
    Record {
        disk: DiskId([1; 16]),
        lineage: Lineage::begin(Generation([2; 16])),
        role: ReplicaRole::Follower,
        tickets: Tickets::default(),
        machine: MachineId([3; 16]),
        geometry: Geometry::new(1000, 512, ChunkSize::DEFAULT).unwrap(),
        base: BaseKind::File,
        state: DiskState { last_durable: Epoch(7), completeness: Completeness::Follows },
        folded: Epoch(6),
        name: "/dev/disk/by-id/system".to_owned(),
        base_point: None,
        hashed: 0,
        marks: Marks::default(),
    }
}

/// As [`record`], with everything that version 2 added.
fn with_history() -> Record {
    let mut marks = Marks::default();
    marks.confirm(Epoch(6));
    marks.retract(&(Epoch(7)..=Epoch(9)), RetractReason::MissedIssue);
    assert!(marks.pin(Epoch(6)) && marks.pin(Epoch(7)));
    Record { base_point: Some(crate::tests::point(6, 2)), hashed: 125, marks, ..record() }
}

/// As [`with_history`], of a replica that was promoted after its source had opened it.
fn with_origin() -> Record {
    let begun = Lineage::begin(Generation([5; 16]));
    let lineage = begun.fork(Generation([4; 16]), Epoch(3)).fork(Generation([2; 16]), Epoch(7));
    let ticket = |number, secret| Ticket { number, secret: [secret; 16] };
    let tickets = Tickets { last: ticket(9, 6), before: ticket(8, 7), issued_at: Epoch(5) };
    Record { lineage, role: ReplicaRole::Promoted, tickets, ..with_history() }
}

/// A record of version 1.
fn version_1() -> Vec<u8> {
    let mut bytes = record().encode().unwrap();
    bytes.truncate(384);
    bytes[0] = 1;
    bytes
}

#[test]
fn a_record_reads_as_it_was_written() {
    for written in [record(), with_history(), with_origin()] {
        assert_eq!(Record::decode(&written.encode().unwrap()), Ok(written));
    }
    let longest = Record { name: "n".repeat(NAME_LEN_MAX), ..record() };
    assert_eq!(Record::decode(&longest.encode().unwrap()), Ok(longest));
    let too_long = Record { name: "n".repeat(NAME_LEN_MAX + 1), ..record() };
    assert!(matches!(too_long.encode(), Err(RecordError::Field("name"))));
}

#[test]
fn the_layout_does_not_move() {
    let bytes = with_history().encode().unwrap();
    assert_eq!(bytes[..8], [2, 0, 3, 1, 22, 0, 0, 0]);
    assert_eq!((bytes[8], bytes[24], bytes[40]), (1, 2, 3));
    assert_eq!(bytes[56..72], [0xe8, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 16, 0, 0]);
    assert_eq!((bytes[72], bytes[80], bytes[88]), (7, 6, b'/'));
    assert_eq!(bytes[344..357], [6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1]);
    assert_eq!(bytes[357..368], [0, 0, 0, 125, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[384..448], encode_point(&crate::tests::point(6, 2)));
    let range = [[7, 0, 0, 0, 0, 0, 0, 0], [9, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 0]];
    assert_eq!(bytes[448..472], range.concat());
    let pins = [[6, 0, 0, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0, 0, 0]];
    assert_eq!(bytes[472..], pins.concat());
    let bytes = with_origin().encode().unwrap();
    assert_eq!((&bytes[24..40], &bytes[368..372]), (&[2; 16][..], &[2, 0, 1, 1][..]));
    let (past, tickets) = bytes[488..].split_at(48);
    assert_eq!((past[0], past[16], past[24], past[40]), (4, 7, 5, 3));
    assert_eq!((tickets[0], tickets[8], tickets[24], tickets[32], tickets[48]), (9, 6, 8, 7, 5));
    assert_eq!(tickets.len(), 56);
}

#[test]
fn a_record_of_version_1_is_one_without_history() {
    assert_eq!(Record::decode(&version_1()), Ok(record()));
    let with_more = [&version_1()[..], &[0]].concat();
    assert_eq!(Record::decode(&with_more), Err(RecordError::Length(385)));
}

#[test]
fn records_that_cannot_be_are_errors() {
    let bytes = with_history().encode().unwrap();
    let with = |at: usize, value: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        Record::decode(&bytes)
    };
    let field = |name| Err(RecordError::Field(name));
    assert_eq!(with(0, &[3]), Err(RecordError::Version(3)));
    assert_eq!(with(2, &[0]), field("content"));
    assert_eq!(with(3, &[3]), field("kind of base"));
    assert_eq!(with(56, &[0; 8]), field("geometry"));
    assert_eq!(with(68, &[5]), field("geometry"));
    assert_eq!(with(80, &[8]), field("folded epoch"));
    assert_eq!(with(4, &[1, 1]), field("name"));
    assert_eq!(with(88, &[0xff]), field("name"));
    assert_eq!(with(2, &[1]), field("last durable epoch"));
    assert_eq!(with(352, &[2]), Err(RecordError::Length(bytes.len())));
    assert_eq!(with(354, &[1]), Err(RecordError::Length(bytes.len())));
    assert_eq!(with(356, &[2]), field("point of the base"));
    assert_eq!(with(384 + 54, &[9]), field("point of the base"));
    assert_eq!(with(464, &[0]), field("retractions"));
    for (at, value) in [(344, 8), (448, 10), (472, 5), (480, 8), (480, 6)] {
        assert_eq!(with(at, &[value]), field("marks"), "{at}");
    }
    assert_eq!(Record::decode(&bytes[1..]), Err(RecordError::Version(768)));
    for len in [383, 384, 447, 448, 472, bytes.len() - 1] {
        assert_eq!(Record::decode(&bytes[..len]), Err(RecordError::Length(len)), "{len}");
    }
    assert_eq!(Record::decode(&[]), Err(RecordError::Length(0)));
    let bytes = with_origin().encode().unwrap();
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Record::decode(&bytes)
    };
    let lines = "lines of history";
    for (at, value, name) in
        [(370, 2, "role"), (371, 2, "tickets"), (504, 8, lines), (504, 2, lines)]
    {
        assert_eq!(with(at, value), field(name), "{at}");
    }
    for (at, value) in [(368, 1), (371, 0)] {
        assert_eq!(with(at, value), Err(RecordError::Length(bytes.len())), "{at}");
    }
    for len in [488, 512, 536, bytes.len() - 1] {
        assert_eq!(Record::decode(&bytes[..len]), Err(RecordError::Length(len)), "{len}");
    }
    assert_eq!(Record::decode(&version_1()[..383]), Err(RecordError::Length(383)));
}
