//! The corners, one by one, and what a counterexample reads like.

use crate::{
    Content, Flush, History, HistoryError, Initial, Issue, Layout, Observed, Opacity, Outcome,
    Record, Window, WriteKind, check, check_chains, check_power_cut, judge,
};
use blocks::{ChunkSize, Extent, Geometry, MonotonicNs, Sector};

const OPAQUE: Content = Content::Opaque { why: Opacity::Unstamped, fingerprint: 1 };

fn layout() -> Layout {
    Layout::new(1, &[(0, Geometry::new(4, 512, ChunkSize::DEFAULT).unwrap())])
}

/// Write `write` of stream 0 on `blocks`, issued and completed at these times.
fn record(
    write: u64,
    blocks: std::ops::Range<u64>,
    kind: WriteKind,
    times: (u64, Option<u64>),
) -> Record {
    let extent = Extent { start: Sector(blocks.start), sectors: blocks.end - blocks.start };
    let issue = Issue { disk: 0, stream: 0, write, extent, kind };
    let outcome = times.1.map_or(Outcome::Failed, |at| Outcome::Completed(MonotonicNs(at)));
    Record { issue, issued: MonotonicNs(times.0), outcome }
}

fn data(write: u64, blocks: std::ops::Range<u64>, times: (u64, Option<u64>)) -> Record {
    record(write, blocks, WriteKind::Data, times)
}

fn shows(write: u64, index: u32) -> Content {
    Content::Write { stream: 0, write, index }
}

fn history(records: &[Record]) -> History {
    History::new(layout(), Initial::Zeroes, records.to_vec()).unwrap()
}

fn point(contents: [Content; 4]) -> Observed {
    Observed::from_fn(&layout(), |unit| contents[usize::try_from(unit.block).unwrap()])
}

fn is_valid(history: &History, contents: [Content; 4], at: u64) -> bool {
    check(history, &point(contents), Window::at(MonotonicNs(at))).into_result().is_ok()
}

const ZERO: Content = Content::Zeroes;

#[test]
fn a_write_is_torn_only_while_it_is_in_flight() {
    let history = history(&[data(1, 0..3, (10, Some(20)))]);
    let torn = [shows(1, 0), ZERO, shows(1, 2), ZERO];
    let validity: Vec<bool> = [9, 10, 20, 21].map(|at| is_valid(&history, torn, at)).to_vec();
    assert_eq!(validity, [false, true, true, false]);
}

#[test]
fn a_failed_write_may_show_or_not_for_ever() {
    let history = history(&[data(1, 0..1, (10, None))]);
    assert!(is_valid(&history, [shows(1, 0), ZERO, ZERO, ZERO], 1000));
    assert!(is_valid(&history, [ZERO; 4], 1000));
    assert!(!is_valid(&history, [shows(1, 0), ZERO, ZERO, ZERO], 9));
}

#[test]
fn a_discard_leaves_anything_until_it_is_overwritten() {
    let discard = record(2, 0..2, WriteKind::Discard, (30, Some(40)));
    let records = [data(1, 0..2, (10, Some(20))), discard, data(3, 0..1, (50, Some(60)))];
    let history = history(&records);
    let at = |content, at| is_valid(&history, [content, content, ZERO, ZERO], at);
    assert!(!at(OPAQUE, 29) && at(OPAQUE, 30) && at(OPAQUE, 60) && !at(OPAQUE, 61));
    assert!(is_valid(&history, [shows(3, 0), OPAQUE, ZERO, ZERO], 100));
    // Two reads of one point agree even there.
    let first = point([shows(3, 0), OPAQUE, ZERO, ZERO]);
    let other = Content::Opaque { why: Opacity::Unstamped, fingerprint: 2 };
    let second = point([shows(3, 0), other, ZERO, ZERO]);
    assert_eq!(first.first_difference(&second, &layout()).map(|unit| unit.block), Some(1));
    assert_eq!(first.first_difference(&first, &layout()), None);
}

#[test]
fn of_several_writes_that_explain_zeroes_any_will_do() {
    let zeroes = record(2, 0..1, WriteKind::Zeroes, (30, Some(40)));
    let history = history(&[data(1, 0..1, (10, Some(20))), zeroes, data(3, 0..1, (50, Some(60)))]);
    let valid: Vec<u64> = (0..80).filter(|at| is_valid(&history, [ZERO; 4], *at)).collect();
    let expected: Vec<u64> = (0..=20).chain(30..=60).collect();
    assert_eq!(valid, expected);
}

#[test]
fn three_units_may_agree_by_twos_and_not_together() {
    // Zero before 10 and from 20 to 30, and so on: each pair has an instant, all three have none.
    let write = |write, block, times| data(write, block..block + 1, times);
    let zeroes = |write, block, times| record(write, block..block + 1, WriteKind::Zeroes, times);
    let history = history(&[
        // Zero in ..=5 and 20..=25.
        write(1, 0, (4, Some(5))),
        zeroes(2, 0, (20, Some(21))),
        write(3, 0, (24, Some(25))),
        // Zero in 10..=25, after a write from the start.
        write(4, 1, (0, Some(1))),
        zeroes(5, 1, (5, Some(6))),
        write(6, 1, (14, Some(15))),
        zeroes(7, 1, (30, Some(31))),
        // Zero in 12..=22.
        write(8, 2, (0, Some(1))),
        zeroes(9, 2, (12, Some(13))),
        write(10, 2, (21, Some(22))),
    ]);
    let blocks = |zero: [bool; 3]| {
        let other = [shows(3, 0), shows(6, 0), shows(10, 0)];
        let content = |at: usize| if zero[at] { ZERO } else { other[at] };
        [content(0), content(1), content(2), ZERO]
    };
    let observed = point(blocks([true; 3]));
    let window = Window { earliest: MonotonicNs(2), latest: MonotonicNs(29) };
    let reason = check(&history, &observed, window).into_result().unwrap_err().to_string();
    assert_eq!(reason.matches("holds zeroes").count(), 3, "{reason}");
}

#[test]
fn after_a_crash_with_a_volatile_cache_a_new_history_begins() {
    // Write 2 was acknowledged, and lost with the cache. Writes go on as number 3.
    let recovered = point([shows(1, 0), ZERO, ZERO, ZERO]);
    let records = [data(3, 1..2, (100, Some(110)))];
    let history = History::new(layout(), Initial::Image(recovered), records).unwrap();
    let (reverted, stale) = (shows(1, 0), shows(2, 0));
    assert!(is_valid(&history, [reverted, shows(3, 0), ZERO, ZERO], 120));
    // A resync that did not carry the reverted block.
    assert!(!is_valid(&history, [stale, shows(3, 0), ZERO, ZERO], 120));
    let observed = point([stale, shows(3, 0), ZERO, ZERO]);
    assert!(check_chains(&history, &observed).is_err());
}

#[test]
fn a_flush_divides_what_must_be_there_from_what_may() {
    let history = history(&[
        data(1, 0..1, (10, Some(20))),
        data(2, 1..2, (22, Some(28))),
        data(3, 0..1, (40, Some(50))),
        data(4, 2..3, (52, Some(58))),
    ]);
    let flush = |issued, completed| {
        let outcome = Outcome::Completed(MonotonicNs(completed));
        Flush { issued: MonotonicNs(issued), outcome }
    };
    let flushes = [flush(30, 35), flush(60, 90)];
    let after = |contents, cut| {
        check_power_cut(&history, &point(contents), &flushes, MonotonicNs(cut)).is_ok()
    };
    let (first, second, third, fourth) = (shows(1, 0), shows(2, 0), shows(3, 0), shows(4, 0));
    // Only the first flush has completed: any subset of writes 3 and 4.
    for block in [first, third] {
        for last in [ZERO, fourth] {
            assert!(after([block, second, last, ZERO], 80), "{block:?} {last:?}");
        }
    }
    assert!(!after([ZERO, second, ZERO, ZERO], 80), "write 1 was flushed");
    assert!(!after([third, ZERO, ZERO, ZERO], 80), "write 2 was flushed");
    assert!(!after([OPAQUE, second, ZERO, ZERO], 80), "torn");
    // The second one has.
    assert!(after([third, second, fourth, ZERO], 90));
    assert!(!after([first, second, fourth, ZERO], 90));
    assert!(!after([third, second, ZERO, ZERO], 90));
    // What was flushed last may not be shown before it was issued.
    assert!(!after([third, second, ZERO, ZERO], 36));
}

#[test]
fn records_that_cannot_be_are_refused() {
    let new = |records: &[Record]| History::new(layout(), Initial::Zeroes, records.to_vec()).err();
    let good = data(1, 0..2, (10, Some(20)));
    assert!(new(&[good]).is_none());
    assert!(matches!(new(&[data(1, 3..5, (1, None))]), Some(HistoryError::Range(_))));
    assert!(matches!(new(&[data(1, 3..3, (1, None))]), Some(HistoryError::Range(_))));
    assert!(matches!(new(&[data(1, 0..1, (3, Some(2)))]), Some(HistoryError::Order(_))));
    assert!(matches!(new(&[good, good]), Some(HistoryError::Twice { stream: 0, write: 1 })));
    let elsewhere = Record { issue: Issue { disk: 5, ..good.issue }, ..good };
    assert!(matches!(new(&[elsewhere]), Some(HistoryError::UnknownDisk(_))));
    for (of, blocks) in [(9, 0..1), (1, 1..3), (2, 0..1)] {
        let repeat = record(2, blocks, WriteKind::Repeat { of }, (30, None));
        assert!(matches!(new(&[good, repeat]), Some(HistoryError::Repeat { .. })));
    }
}

#[test]
fn the_story_can_be_followed() {
    // Stream 0 is no chain here: its second write overlaps its first in time.
    let history = history(&[data(1, 0..2, (10, Some(20))), data(2, 2..3, (15, Some(40)))]);
    let story = |contents: [Content; 4], window| {
        judge(&history, &point(contents), window).into_result().unwrap_err().to_string()
    };
    let missing = [shows(1, 0), ZERO, shows(2, 0), ZERO];
    let late = Window { earliest: MonotonicNs(30), latest: MonotonicNs(50) };
    assert_eq!(
        story(missing, late),
        "no instant suits these together:\n  \
         - the cut is claimed at 0.000000030 s to 0.000000050 s\n  \
         - block 1 of disk 0 (sectors 1 to 2) holds zeroes, possible up to 0.000000020 s: \
         it was replaced by write 1 of stream 0 (sectors 0 to 2), issued at 0.000000010 s, \
         acknowledged at 0.000000020 s"
    );
    assert_eq!(
        story([OPAQUE, ZERO, ZERO, ZERO], Window::ANY),
        "block 0 of disk 0 (sectors 0 to 1) holds bytes without a stamp, which nothing in the \
         log explains"
    );
}

#[test]
fn a_broken_chain_is_told_without_a_clock() {
    let records: Vec<Record> = (1..=3)
        .map(|write| data(write, write - 1..write, (10 * write, Some(10 * write + 5))))
        .collect();
    let history = history(&records);
    assert!(check_chains(&history, &point([shows(1, 0), ZERO, ZERO, ZERO])).is_ok());
    assert!(check_chains(&history, &point([shows(1, 0), shows(2, 0), shows(3, 0), ZERO])).is_ok());
    let reason =
        check_chains(&history, &point([shows(1, 0), ZERO, shows(3, 0), ZERO])).unwrap_err();
    assert_eq!(
        reason.to_string(),
        "stream 0 is shown up to write 3, which was issued after write 2 was acknowledged; but \
         block 1 of disk 0 (sectors 1 to 2), which write 2 covers, holds zeroes"
    );
}
