//! The check and brute force agree, both ways, over small histories.

use crate::{
    Content, Counterexample, Flush, History, Initial, Issue, Layout, Observed, Opacity, Outcome,
    Record, Unit, Window, Witness, WriteKind, check, check_chains, check_power_cut, judge,
};
use blocks::{ChunkSize, Extent, Geometry, MonotonicNs, Sector};
use proptest::prelude::*;

use super::force::Run;

const UNITS: u64 = 3;
/// Nothing is issued or completed after it.
const END: u64 = 14;

fn layout() -> Layout {
    let geometry = |sectors| Geometry::new(sectors, 512, ChunkSize::DEFAULT).unwrap();
    Layout::new(1, &[(4, geometry(UNITS - 1)), (9, geometry(1))])
}

fn unit(index: u64) -> Unit {
    if index + 1 < UNITS { Unit { disk: 4, block: index } } else { Unit { disk: 9, block: 0 } }
}

/// One to six writes of three streams; the first unit may be covered together with the second.
fn records() -> impl Strategy<Value = Vec<Record>> {
    let write = (0u32..3, 0..UNITS, any::<bool>(), 0u64..10, prop::option::of(0u64..5), 0u8..10);
    prop::collection::vec(write, 1..6).prop_map(|writes| {
        let mut numbers = [0; 3];
        let mut records: Vec<Record> = Vec::new();
        for (stream, at, wide, issued, duration, kind) in writes {
            numbers[stream as usize] += 1;
            let wide = wide && at == 0;
            let Unit { disk, block } = unit(at);
            let extent = Extent { start: Sector(block), sectors: 1 + u64::from(wide) };
            let repeated = records.iter().find(|earlier: &&Record| {
                let outer = earlier.issue.extent;
                (earlier.issue.stream, earlier.issue.disk) == (stream, disk)
                    && earlier.issue.kind == WriteKind::Data
                    && outer.start <= extent.start
                    && extent.end() <= outer.end()
            });
            let kind = match (kind, repeated) {
                (0, _) => WriteKind::Discard,
                (1 | 2, _) => WriteKind::Zeroes,
                (3..6, Some(of)) => WriteKind::Repeat { of: of.issue.write },
                _ => WriteKind::Data,
            };
            let write = numbers[stream as usize];
            let outcome = duration.map_or(Outcome::Failed, |duration| {
                Outcome::Completed(MonotonicNs(issued + duration))
            });
            let issue = Issue { disk, stream, write, extent, kind };
            records.push(Record { issue, issued: MonotonicNs(issued), outcome });
        }
        records
    })
}

/// Makes every stream a chain: its writes one after the other.
fn chained(mut records: Vec<Record>) -> Vec<Record> {
    let mut free = [0; 3];
    for record in &mut records {
        let free = &mut free[record.issue.stream as usize];
        let issued = record.issued.0 / 2 + *free;
        let duration = match record.outcome {
            Outcome::Completed(at) => at.since(record.issued).as_nanos(),
            _ => 1,
        };
        let completed = issued + u64::try_from(duration).unwrap();
        record.issued = MonotonicNs(issued);
        record.outcome = Outcome::Completed(MonotonicNs(completed));
        *free = completed + 1;
    }
    records
}

/// Contents of all units, drawn from what the records could leave there, and now and then not.
fn contents(records: &[Record], choices: &[u8]) -> Vec<(Unit, Content)> {
    (0..UNITS)
        .zip(choices)
        .map(|(index, choice)| {
            let unit = unit(index);
            let at = Sector(unit.block);
            let covers = |record: &&Record| {
                let extent = record.issue.extent;
                record.issue.disk == unit.disk && extent.start <= at && at < extent.end()
            };
            let mut possible = vec![Content::Zeroes];
            possible.extend(records.iter().filter(covers).map(|record| Content::Write {
                stream: record.issue.stream,
                write: record.issue.write,
                index: u32::try_from(at.0 - record.issue.extent.start.0).unwrap(),
            }));
            let opaque = Content::Opaque { why: Opacity::Unstamped, fingerprint: 5 };
            let choice = usize::from(*choice);
            let content = if choice == 0 { opaque } else { possible[choice % possible.len()] };
            (unit, content)
        })
        .collect()
}

fn observed(contents: &[(Unit, Content)]) -> Observed {
    Observed::from_fn(&layout(), |unit| contents.iter().find(|(at, _)| *at == unit).unwrap().1)
}

fn zeroes(_: Unit) -> Content {
    Content::Zeroes
}

fn window(earliest: u64, latest: u64) -> Window {
    Window { earliest: MonotonicNs(earliest), latest: MonotonicNs(latest) }
}

/// Every instant of `0..=end` at which the check finds the contents feasible, whatever the window.
fn feasible(history: &History, contents: &[(Unit, Content)], claimed: Window) -> Vec<u64> {
    match check(history, &observed(contents), claimed).into_result() {
        Ok(instants) => {
            assert!(!instants.is_empty());
            (0..=3 * END).filter(|at| instants.hold(MonotonicNs(*at))).collect()
        }
        Err(_) => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_check_finds_the_instants_that_brute_force_finds(
        records in records(),
        choices in prop::collection::vec(0u8..30, 3),
        claimed in (0u64..END, 0u64..4),
    ) {
        let layout = layout();
        let contents = contents(&records, &choices);
        let run = Run { layout: &layout, records: &records, initial: &zeroes };
        let expected: Vec<u64> =
            (0..=END + 2).filter(|at| run.by_permutation(&contents, *at)).collect();
        let history = History::new(layout.clone(), Initial::Zeroes, records.clone()).unwrap();
        let all = feasible(&history, &contents, window(0, END + 2));
        prop_assert_eq!(&all, &expected);

        // A window does no more than cut that set.
        let (earliest, latest) = (claimed.0, claimed.0 + claimed.1);
        let cut: Vec<u64> =
            expected.iter().copied().filter(|at| (earliest..=latest).contains(at)).collect();
        prop_assert_eq!(feasible(&history, &contents, window(earliest, latest)), cut);

        let placed: Vec<u64> = (0..=END + 2).filter(|at| run.by_placing(&contents, *at)).collect();
        prop_assert_eq!(placed, expected);
    }

    #[test]
    fn the_chain_rule_never_refuses_what_is_valid(
        records in records(),
        chain in any::<bool>(),
        choices in prop::collection::vec(0u8..30, 3),
    ) {
        let records = if chain { chained(records) } else { records };
        let contents = contents(&records, &choices);
        let history = History::new(layout(), Initial::Zeroes, records).unwrap();
        let observed = observed(&contents);
        if check(&history, &observed, Window::ANY).into_result().is_ok() {
            let chains = check_chains(&history, &observed);
            prop_assert!(chains.is_ok(), "{}", chains.unwrap_err());
        }
    }

    #[test]
    fn the_rule_for_power_cuts_is_what_brute_force_finds(
        records in records(),
        choices in prop::collection::vec(0u8..30, 3),
        flushed in prop::option::of(0u64..12),
        later in 0u64..6,
    ) {
        let layout = layout();
        let contents = contents(&records, &choices);
        let cut = flushed.unwrap_or(0) + later;
        let outcome = Outcome::Completed(MonotonicNs(cut));
        let flush = flushed.map(|issued| Flush { issued: MonotonicNs(issued), outcome });
        // Neither of these has flushed anything.
        let failed = Flush { issued: MonotonicNs(cut), outcome: Outcome::Failed };
        let after = Outcome::Completed(MonotonicNs(cut + 1));
        let late = Flush { issued: MonotonicNs(cut), outcome: after };
        let flushes: Vec<Flush> = flush.into_iter().chain([failed, late]).collect();
        let run = Run { layout: &layout, records: &records, initial: &zeroes };
        let expected = run.after_power_cut(&contents, flushed.unwrap_or(0), cut);
        let history = History::new(layout.clone(), Initial::Zeroes, records.clone()).unwrap();
        let found = check_power_cut(&history, &observed(&contents), &flushes, MonotonicNs(cut));
        prop_assert_eq!(found.is_ok(), expected);
    }

    /// A counterexample is one: the units that it names can't be together by themselves, and all
    /// but one of them can.
    #[test]
    fn a_counterexample_is_minimal_and_true(
        records in records(),
        choices in prop::collection::vec(0u8..30, 3),
    ) {
        let layout = layout();
        let contents = contents(&records, &choices);
        let history = History::new(layout.clone(), Initial::Zeroes, records.clone()).unwrap();
        let Err(reason) = judge(&history, &observed(&contents), Window::ANY).into_result() else {
            return Ok(());
        };
        let run = Run { layout: &layout, records: &records, initial: &zeroes };
        let possible = |units: &[Unit]| {
            let some: Vec<(Unit, Content)> =
                contents.iter().copied().filter(|(unit, _)| units.contains(unit)).collect();
            (0..=END + 2).any(|at| run.by_permutation(&some, at))
        };
        match *reason {
            Counterexample::Unexplained { unit, .. } => prop_assert!(!possible(&[unit])),
            Counterexample::NoInstant { witnesses } => {
                let units: Vec<Unit> = witnesses.iter().filter_map(|witness| match witness {
                    Witness::Unit(witness) => Some(witness.unit),
                    Witness::Claim(_) => None,
                }).collect();
                prop_assert!(units.len() >= 2 && !possible(&units));
                for left_out in &units {
                    let others: Vec<Unit> =
                        units.iter().copied().filter(|unit| unit != left_out).collect();
                    prop_assert!(possible(&others));
                }
            }
            Counterexample::BrokenChain { .. } => {}
        }
    }
}

/// How often each verdict is reached by the strategy above, so that it is known to have power.
#[test]
fn both_verdicts_are_common_among_small_histories() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let strategy = (records(), prop::collection::vec(0u8..30, 3));
    let (mut valid, mut invalid) = (0, 0);
    for _ in 0..2000 {
        let (records, choices) = strategy.new_tree(&mut runner).unwrap().current();
        let contents = contents(&records, &choices);
        let history = History::new(layout(), Initial::Zeroes, records).unwrap();
        match check(&history, &observed(&contents), Window::ANY).into_result() {
            Ok(_) => valid += 1,
            Err(_) => invalid += 1,
        }
    }
    assert!(valid > 400 && invalid > 200, "{valid} valid, {invalid} invalid");
}
