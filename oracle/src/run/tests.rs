use blocks::{ChunkSize, Extent, Geometry, Sector};

use super::*;
use crate::{Initial, Issue, Layout, Outcome, Record, WriteKind};

const LIMITS: Limits = Limits { window: Duration::from_nanos(10), age: Duration::from_nanos(100) };

/// One write, acknowledged at 50.
fn history() -> History {
    let layout = Layout::new(1, &[(0, Geometry::new(8, 512, ChunkSize::DEFAULT).unwrap())]);
    let extent = Extent { start: Sector(0), sectors: 1 };
    let issue = Issue { disk: 0, stream: 0, write: 1, extent, kind: WriteKind::Data };
    let outcome = Outcome::Completed(MonotonicNs(50));
    let record = Record { issue, issued: MonotonicNs(40), outcome };
    History::new(layout, Initial::Zeroes, [record]).unwrap()
}

fn window(earliest: u64, latest: u64) -> Window {
    Window { earliest: MonotonicNs(earliest), latest: MonotonicNs(latest) }
}

fn point(requested: u64, at: Window) -> Published {
    let published = MonotonicNs(at.latest.0 + 5);
    Published { requested: MonotonicNs(requested), window: at, published }
}

fn all(points: &[(Published, Window)], end: u64) -> Result<RunReport, RunError> {
    let history = history();
    let mut run = RunChecker::new(&history, LIMITS, MonotonicNs(0));
    for (point, feasible) in points {
        run.point(*point, &Instants::of([*feasible]))?;
    }
    run.finish(MonotonicNs(end))
}

#[test]
fn a_good_run_is_reported() {
    let (first, second) = (window(30, 40), window(60, 65));
    let report = all(&[(point(20, first), first), (point(55, second), second)], 150).unwrap();
    let (longest_window, oldest) = (Duration::from_nanos(10), Duration::from_nanos(90));
    assert_eq!(report, RunReport { points: 2, longest_window, oldest });
}

#[test]
fn each_fault_is_found() {
    let fault = |published, feasible| all(&[(published, feasible)], 60).unwrap_err();
    let long = window(30, 41);
    assert!(matches!(fault(point(20, long), long), RunError::Window(_)));
    let empty = window(30, 29);
    assert!(matches!(fault(point(20, empty), long), RunError::Window(_)));
    let future = Published { published: MonotonicNs(39), ..point(20, window(30, 40)) };
    assert!(matches!(fault(future, window(30, 40)), RunError::Future(_)));

    let early = window(45, 55);
    let acknowledged = MonotonicNs(50);
    assert!(
        matches!(fault(point(50, early), early), RunError::Stale { acknowledged: a, .. } if a == acknowledged)
    );
    assert!(all(&[(point(49, early), early)], 60).is_ok(), "it was not acknowledged yet");

    let (later, earlier) = (window(60, 65), window(55, 59));
    let backwards = all(&[(point(0, later), later), (point(0, earlier), earlier)], 80);
    assert!(matches!(backwards, Err(RunError::Backwards { .. })));
    let overlapping = window(58, 63);
    assert!(all(&[(point(0, later), later), (point(0, overlapping), overlapping)], 80).is_ok());

    assert!(matches!(all(&[(point(0, later), later)], 161), Err(RunError::Age { .. })));
    let late = window(96, 100);
    assert!(matches!(fault(point(0, late), late), RunError::Age { .. }));
}
