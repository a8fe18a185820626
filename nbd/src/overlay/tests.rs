use std::os::unix::fs::FileExt as _;

use proptest::prelude::*;

use super::*;
use crate::RawFile;
use crate::export::Content;

const LEN: u64 = 10 * GRANULE + 1234;

/// A base with data, a hole, and data that ends within a granule.
fn base(directory: &Path) -> Arc<RawFile> {
    let path = directory.join("base");
    let file = File::create_new(&path).unwrap();
    file.set_len(LEN).unwrap();
    file.write_all_at(&[0xb1; 3 * GRANULE_LEN], 0).unwrap();
    file.write_all_at(&[0xb2; 2 * GRANULE_LEN + 1234], 8 * GRANULE).unwrap();
    Arc::new(RawFile::open(&path).unwrap())
}

fn read(export: &dyn Export) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(export.len()).unwrap()];
    export.read_at(0, &mut content).unwrap();
    content
}

#[derive(Clone, Debug)]
enum Step {
    Write(Range<u64>, u8),
    Zero(Range<u64>, bool),
    Trim(Range<u64>),
}

fn step() -> impl Strategy<Value = Step> {
    // Half of the edges lie on a granule, or at the end.
    let edge = prop_oneof![0..=LEN, (0..=11_u64).prop_map(|granule| (granule * GRANULE).min(LEN))];
    let range = (edge.clone(), edge)
        .prop_map(|(a, b)| a.min(b)..a.max(b))
        .prop_filter("no empty ranges", |range| !range.is_empty());
    let step = (0..4_u8, range, 1..=255_u8, any::<bool>());
    step.prop_map(|(kind, range, fill, allocate)| match kind {
        0 | 1 => Step::Write(range, fill),
        2 => Step::Zero(range, allocate),
        _ => Step::Trim(range),
    })
}

fn slice(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// Does to both the same, and allows for what a trim leaves open.
fn apply(step: &Step, overlay: &Overlay, model: &mut [u8]) {
    match step {
        Step::Write(range, fill) => {
            let bytes = &mut model[slice(range)];
            bytes.fill(*fill);
            overlay.write_at(range.start, bytes).unwrap();
        }
        Step::Zero(range, allocate) => {
            let how = if *allocate { Zeroing::Allocate } else { Zeroing::Punch };
            overlay.zero(range.clone(), how).unwrap();
            model[slice(range)].fill(0);
        }
        Step::Trim(range) => {
            overlay.trim(range.clone()).unwrap();
            overlay.read_at(range.start, &mut model[slice(range)]).unwrap();
        }
    }
}

/// Checks that what is called a hole reads as zeroes, that runs cover the disk, and that no more
/// are given than were asked for.
fn check_status(overlay: &Overlay, model: &[u8], runs_max: usize) {
    let mut at = 0;
    while at < LEN {
        let runs = overlay.status(at..LEN, runs_max).unwrap();
        assert!(!runs.is_empty() && runs.len() <= runs_max);
        for run in runs {
            assert!(run.len > 0);
            let content = &model[slice(&(at..at + run.len))];
            assert!(run.content == Content::Data || content.iter().all(|byte| *byte == 0));
            at += run.len;
        }
    }
    assert_eq!(at, LEN);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_disk(steps in prop::collection::vec(step(), 1..20), runs_max in 1..5_usize) {
        let directory = tempfile::tempdir().unwrap();
        let base = base(directory.path());
        let before = read(&base);
        let overlay = Overlay::new(base.clone(), directory.path()).unwrap();
        let mut model = before.clone();
        for step in &steps {
            apply(step, &overlay, &mut model);
            prop_assert_eq!(&read(&overlay), &model);
        }
        check_status(&overlay, &model, runs_max);
        prop_assert_eq!(&read(&base), &before);
    }
}

#[test]
fn whole_granules_that_are_trimmed_become_holes_and_give_their_room_back() {
    let directory = tempfile::tempdir().unwrap();
    let overlay = Overlay::new(base(directory.path()), directory.path()).unwrap();
    overlay.write_at(0, &[1; 8 * GRANULE_LEN]).unwrap();
    let full = overlay.used().unwrap();
    overlay.trim(100..4 * GRANULE + 100).unwrap();
    assert!(overlay.used().unwrap() < full, "{full} bytes are still in use");
    let runs = overlay.status(0..LEN, 8).unwrap();
    let hole = Run { len: 3 * GRANULE, content: Content::Hole };
    assert_eq!(runs[..2], [Run { len: GRANULE, content: Content::Data }, hole]);
}

#[test]
fn the_scratch_file_has_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let overlay = Overlay::new(base(directory.path()), directory.path()).unwrap();
    overlay.write_at(5, b"abc").unwrap();
    let names = || std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(names(), 1, "only the base has a name");
    drop(overlay);
    assert_eq!(names(), 1);
}

#[test]
fn a_write_that_failed_makes_nothing_ours() {
    #[derive(Debug)]
    struct Broken;
    impl Export for Broken {
        fn len(&self) -> u64 {
            4 * GRANULE
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
            Err(io::Error::other("the base is broken"))
        }
        fn status(&self, range: Range<u64>, _: usize) -> io::Result<Vec<Run>> {
            Ok(vec![Run { len: range.end - range.start, content: Content::Data }])
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let overlay = Overlay::new(Arc::new(Broken), directory.path()).unwrap();
    // The first granule would have to be completed from the base.
    let failed = overlay.write_at(100, &[1; 2 * GRANULE_LEN]).unwrap_err();
    assert_eq!(failed.to_string(), "the base is broken");
    assert!(overlay.map().is_empty(), "a granule became ours without its content");
    overlay.write_at(GRANULE, &[2; GRANULE_LEN]).unwrap();
    let mut content = [0; 16];
    overlay.read_at(GRANULE, &mut content).unwrap();
    assert_eq!(content, [2; 16]);
    assert!(overlay.read_at(0, &mut content).is_err());
}
