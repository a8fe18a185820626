use std::{fs::File, os::fd::OwnedFd};

use nix::sys::memfd::{MFdFlags, memfd_create};

use blocks::ByteLen;
use ebpf_object::ring::{CONTEXTS, MOST};

use super::*;

/// A ring in memory of our own: what it is mapped from does not matter to it.
fn ring() -> (RingSize, OwnedFd) {
    let size = RingSize::new(ByteLen(4096), 2).unwrap();
    let memory = memfd_create("ring", MFdFlags::MFD_CLOEXEC).unwrap();
    let len = u64::from(size.entries()) * 32;
    File::from(memory.try_clone().unwrap()).set_len(len).unwrap();
    size.prepare(&memory).unwrap();
    (size, memory)
}

fn mark(number: u64) -> Mark {
    Mark {
        slot: Slot(5),
        extent: Extent { start: Sector(77 + number), sectors: u64::from(u32::MAX) },
        at: MonotonicNs(123_456),
        kind: MarkKind::Zeroes,
    }
}

/// What the programs do (`bpf/ring.h`), in steps: a record is begun, and done.
struct Writer(Mapped);

impl Writer {
    fn begin(&self) -> Option<u64> {
        let word = |at: usize| &self.0.words()[at];
        let waiting = word(BEGUN).load(SeqCst) - word(TAKEN).load(SeqCst);
        (waiting < word(MOST).load(SeqCst)).then(|| word(BEGUN).fetch_add(1, SeqCst))
    }

    fn finish(&self, number: u64) {
        let words = self.0.words();
        let place = usize::try_from(number & words[MASK].load(SeqCst)).unwrap();
        let entry = RECORDS as usize + place;
        let mark = mark(number);
        let packed = mark.extent.sectors | (5 << 8 | 2) << 32;
        for (word, value) in (0..).zip([mark.extent.start.0, mark.at.0, packed, number + 1]) {
            words[entry * WORDS + word].store(value, SeqCst);
        }
    }
}

fn ends() -> (RingSize, Writer, RingReader, OwnedFd) {
    let (size, memory) = ring();
    let writer = Writer(Mapped::new(&memory, u64::from(size.entries()) * 4).unwrap());
    let reader = RingReader::new(&memory, size.entries()).unwrap();
    (size, writer, reader, memory)
}

fn polled(reader: &mut RingReader) -> Vec<Mark> {
    let mut marks = Vec::new();
    let count = reader.poll(&mut |mark| marks.push(mark));
    assert_eq!(count, marks.len());
    marks
}

#[test]
fn records_read_back_in_order_round_after_round() {
    let (size, writer, mut reader, _memory) = ends();
    let mut next = 0;
    for _ in 0..5 {
        let mut expected = Vec::new();
        while let Some(number) = writer.begin() {
            assert_eq!(number, next);
            writer.finish(number);
            expected.push(mark(number));
            next += 1;
        }
        assert_eq!(expected.len() as u64, size.most(), "then it is full");
        assert_eq!(polled(&mut reader), expected);
        assert_eq!(polled(&mut reader), []);
    }
}

#[test]
fn a_record_that_is_being_written_is_waited_for() {
    let (_, writer, mut reader, _memory) = ends();
    let numbers = [(); 3].map(|()| writer.begin().unwrap());
    writer.finish(numbers[0]);
    writer.finish(numbers[2]);
    assert_eq!(polled(&mut reader), [mark(0)]);
    assert_eq!(polled(&mut reader), []);
    writer.finish(numbers[1]);
    assert_eq!(polled(&mut reader), [mark(1), mark(2)]);
}

#[test]
fn the_next_reader_goes_on_where_the_last_one_ended() {
    let (size, writer, mut reader, memory) = ends();
    (0..10).for_each(|_| writer.finish(writer.begin().unwrap()));
    assert_eq!(polled(&mut reader).len(), 10);
    writer.finish(writer.begin().unwrap());
    drop(reader);
    let mut next = RingReader::new(&memory, size.entries()).unwrap();
    assert_eq!(polled(&mut next), [mark(10)]);
}

/// Between the look at how much room there is and the counting, others may count: as many as there
/// are programs running, and for so many there is room.
#[test]
fn writers_that_all_found_room_for_one_have_room() {
    let (size, writer, mut reader, _memory) = ends();
    for _ in 1..size.most() {
        writer.finish(writer.begin().unwrap());
    }
    let under_way = CONTEXTS * 2;
    let begun = &writer.0.words()[BEGUN];
    let numbers: Vec<u64> = (0..under_way).map(|_| begun.fetch_add(1, SeqCst)).collect();
    assert!(writer.begin().is_none());
    numbers.into_iter().for_each(|number| writer.finish(number));
    let all = size.most() - 1 + under_way;
    assert_eq!(polled(&mut reader), (0..all).map(mark).collect::<Vec<_>>());
}

#[test]
fn what_is_written_meanwhile_is_read_whole() {
    const ALL: u64 = 100_000;
    let (_, writer, mut reader, _memory) = ends();
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut written = 0;
            while written < ALL {
                if let Some(number) = writer.begin() {
                    writer.finish(number);
                    written += 1;
                } else {
                    std::thread::yield_now();
                }
            }
        });
        while (seen.len() as u64) < ALL {
            seen.extend(polled(&mut reader));
        }
    });
    assert!(seen.into_iter().eq((0..ALL).map(mark)));
}
