use super::*;

fn entry(key: u64, sector: u64, sectors: u64, slot: u64) -> [AtomicU64; 4] {
    // The device number and the operation are of no interest here.
    [key, sector, sectors | 7 << 32, slot | 1 << 32].map(AtomicU64::new)
}

fn looked_at(entry: &[AtomicU64; 4]) -> Option<(Slot, Extent)> {
    read(entry).ok().expect("nobody is filling it")
}

#[test]
fn an_entry_is_in_flight_between_being_filled_and_done() {
    let extent = Extent { start: Sector(77), sectors: 8 };
    assert_eq!(looked_at(&entry(4096, 77, 8, 3)), Some((Slot(3), extent)));
    assert_eq!(looked_at(&entry(4096 | DONE, 77, 8, 3)), None);
    assert_eq!(looked_at(&entry(0, 77, 8, 3)), None);
    assert!(read(&entry(4096 | FILLING, 77, 8, 3)).is_err());
}

#[test]
fn an_entry_that_is_replaced_is_never_a_mixture() {
    let shared = entry(0, 0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..200_000u64 {
                shared[0].store(round << 3 | FILLING, SeqCst);
                for (word, value) in [(1, round), (2, round), (3, round % 128)] {
                    shared[word].store(value, SeqCst);
                }
                shared[0].store(round << 3, SeqCst);
            }
            shared[0].store(DONE, SeqCst);
        });
        loop {
            match read(&shared) {
                Ok(Some((slot, extent))) => {
                    assert_eq!(extent.start.0, extent.sectors);
                    assert_eq!(u64::from(slot.0), extent.sectors % 128);
                }
                Ok(None) if shared[0].load(SeqCst) == DONE => break,
                Ok(None) | Err(StillFilling) => {}
            }
        }
    });
}
