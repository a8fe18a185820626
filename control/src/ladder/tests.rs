use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

fn point(seconds: u64) -> Point {
    let (cut, consistency) = (UnixNs(seconds * SECOND), Consistency::Crash);
    Point { cut, consistency, complete: true, pinned: false }
}

fn ladder(text: &str) -> Ladder {
    text.parse().unwrap()
}

fn thinned(ladder: &Ladder, points: &[Point], now: UnixNs) -> Vec<Point> {
    ladder.keep(points, now).kept().map(|index| points[index]).collect()
}

fn cuts(points: &[Point]) -> Vec<u64> {
    points.iter().map(|point| point.cut.0 / SECOND).collect()
}

#[test]
fn text_and_back() {
    for text in ["all 2h, 1h 24h, 1d 15d", "all 10s", "1h 7d", "all 10m, 1h 2h, 6h 30d, 30d 365d"] {
        assert_eq!(ladder(text).to_string(), text);
    }
    assert_eq!(ladder(" all  120m,60m 1d "), ladder("all 2h, 1h 24h"));
    assert_eq!(Ladder::default().to_string(), "all 2h, 1h 24h, 1d 15d");
}

#[test]
fn text_that_is_no_ladder_is_refused_in_words() {
    let error = |text: &str| text.parse::<Ladder>().unwrap_err().to_string();
    assert_eq!(error("all"), "`all` is no rung: `all 2h` or `1h 24h` are");
    assert_eq!(error("all 2h,"), "`` is no rung: `all 2h` or `1h 24h` are");
    assert!(error("all 2x").starts_with("\"2x\" is no length of time"));
    let fewer = "each rung must keep fewer points than the one before";
    assert_eq!(error("1h 24h, all 48h"), format!("`all 2d` after `1h 24h`: {fewer}"));
    assert_eq!(error("2h 24h, 1h 48h"), format!("`1h 48h` after `2h 24h`: {fewer}"));
    assert!(error("all 24h, 1h 24h").contains("one of its intervals further"));
    assert!(error(&vec!["all 1h"; 17].join(",")).contains("1 to 16 rungs"));
}

#[test]
fn an_hour_is_represented_by_its_first_point_or_a_consistent_one() {
    let ladder = ladder("all 2h, 1h 24h");
    let mut points: Vec<Point> = (0..60).map(|minute| point(10 * HOUR + 60 * minute)).collect();
    let later = UnixNs(20 * HOUR * SECOND);
    points.push(point(20 * HOUR));
    assert_eq!(cuts(&thinned(&ladder, &points, later)), [10 * HOUR, 20 * HOUR]);
    points[30].consistency = Consistency::Application;
    points[40].consistency = Consistency::Application;
    assert_eq!(cuts(&thinned(&ladder, &points, later)), [10 * HOUR + 1800, 20 * HOUR]);
    points[30].complete = false;
    assert_eq!(cuts(&thinned(&ladder, &points, later)), [10 * HOUR + 2400, 20 * HOUR]);
}

#[test]
fn a_representative_that_was_chosen_is_not_replaced() {
    // After ten minutes the first point of the hour was chosen; a better one comes too late.
    let ladder = ladder("all 10m, 1h 24h");
    let mut points: Vec<Point> = (0..60).map(|minute| point(10 * HOUR + 60 * minute)).collect();
    points[45].consistency = Consistency::Application;
    let kept = thinned(&ladder, &points, UnixNs(12 * HOUR * SECOND));
    assert_eq!(cuts(&kept), [10 * HOUR, 10 * HOUR + 59 * 60]);
}

#[test]
fn the_newest_complete_point_and_pinned_ones_stay_for_ever() {
    let mut points = vec![point(1), point(2), point(3), point(4)];
    points[0].pinned = true;
    points[3].complete = false;
    let kept = Ladder::default().keep(&points, UnixNs(u64::MAX));
    let reasons: Vec<_> = (0..4).map(|index| kept.reason(index)).collect();
    let (pinned, newest) = (Some(KeepReason::Pinned), Some(KeepReason::Newest));
    assert_eq!(reasons, [pinned, None, newest, Some(KeepReason::Arriving)]);
}

#[test]
fn a_clock_that_was_set_back_makes_points_no_younger() {
    let ladder = ladder("all 10s");
    // The clock was a year ahead until it was corrected.
    let points = [point(1000), point(365 * DAY), point(365 * DAY + 1), point(1002), point(1020)];
    let kept = thinned(&ladder, &points, UnixNs(1013 * SECOND));
    assert_eq!(cuts(&kept), [1020]);
    let kept = thinned(&ladder, &points, UnixNs(1012 * SECOND));
    assert_eq!(cuts(&kept), [365 * DAY, 365 * DAY + 1, 1002, 1020]);
}

fn any_ladder() -> impl Strategy<Value = Ladder> {
    let rung = (1u64..20, 0u64..60);
    (any::<bool>(), 1u64..60, prop::collection::vec(rung, 0..3)).prop_map(|(all, reach, more)| {
        let span = |seconds| Span::from_secs(seconds).unwrap();
        let mut interval = if all { 0 } else { 1 };
        let first = if all { Interval::All } else { Interval::OneIn(span(1)) };
        let mut rungs = vec![Rung { interval: first, reach: span(reach) }];
        let mut reach = reach;
        for (coarser, further) in more {
            interval += coarser;
            reach += interval + further;
            rungs.push(Rung { interval: Interval::OneIn(span(interval)), reach: span(reach) });
        }
        Ladder::new(rungs).unwrap()
    })
}

fn any_points() -> impl Strategy<Value = Vec<Point>> {
    prop::collection::vec((1u64..5, 0u8..10), 1..80).prop_map(|of| {
        let mut at = 0;
        let kinds = |(gap, kind): (u64, u8)| {
            at += gap;
            let consistency = if kind < 3 { Consistency::Application } else { Consistency::Crash };
            Point { consistency, complete: kind != 4, pinned: kind == 5, ..point(at) }
        };
        of.into_iter().map(kinds).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_ladder_is_printed_and_parsed(ladder in any_ladder()) {
        prop_assert_eq!(ladder.to_string().parse(), Ok(ladder));
    }

    #[test]
    fn thinning_again_drops_nothing_more(
        ladder in any_ladder(), points in any_points(), later in 0u64..200,
    ) {
        let now = UnixNs(points.last().unwrap().cut.0 + later * SECOND);
        let once = thinned(&ladder, &points, now);
        prop_assert_eq!(thinned(&ladder, &once, now), once);
    }

    /// Thinning at every point and thinning once in the end keep the same: nothing is kept as a
    /// representative first and given up for another later.
    #[test]
    fn thinning_often_or_once_ends_with_the_same(
        ladder in any_ladder(), points in any_points(), later in 0u64..200,
    ) {
        let mut often: Vec<Point> = Vec::new();
        for point in &points {
            often.push(*point);
            often = thinned(&ladder, &often, point.cut);
        }
        let end = UnixNs(points.last().unwrap().cut.0 + later * SECOND);
        let mut now = points.last().unwrap().cut;
        while now < end {
            now.0 += SECOND;
            often = thinned(&ladder, &often, now);
        }
        // What was incomplete and newest for a while is nothing that time should decide.
        let settled = |points: Vec<Point>| {
            points.into_iter().filter(|point| point.complete).collect::<Vec<_>>()
        };
        prop_assert_eq!(settled(often), settled(thinned(&ladder, &points, end)));
    }

    #[test]
    fn no_more_is_kept_than_was_said(ladder in any_ladder(), count in 1u64..400, later in 0u64..300) {
        let points: Vec<Point> = (0..count).map(point).collect();
        let now = UnixNs((count + later) * SECOND);
        let kept = ladder.keep(&points, now).kept().count() as u64;
        prop_assert!(kept <= ladder.points_max(Span::from_secs(1).unwrap()), "{kept}");
    }
}

/// The ladder as a person would do it with pen and paper: for each rung a map from slot to point.
struct Naive {
    kept: BTreeSet<u64>,
    hours: BTreeMap<u64, u64>,
    days: BTreeMap<u64, u64>,
    consistent: BTreeSet<u64>,
}

impl Naive {
    /// Every second of a long time is too much; this is called after every point.
    fn thin(&mut self, now: u64) {
        for at in self.kept.clone() {
            let age = now - at;
            if age > 2 * HOUR {
                let hour = at / HOUR;
                let first = *self.kept.range(hour * HOUR..).next().unwrap();
                let best = self.consistent.range(first..=first + 2 * HOUR).next().copied();
                let best = best.filter(|best| best / HOUR == hour).unwrap_or(first);
                self.hours.entry(hour).or_insert(best);
            }
            if age > DAY {
                let day = at / DAY;
                let mut hours = self.hours.values().copied().filter(|rep| rep / DAY == day);
                let first = hours.clone().next().unwrap();
                let best = hours.find(|rep| self.consistent.contains(rep)).unwrap_or(first);
                self.days.entry(day).or_insert(best);
            }
            let stays = match age {
                0..=7200 => true,
                7201..=86_400 => self.hours[&(at / HOUR)] == at,
                86_401..=1_296_000 => self.days[&(at / DAY)] == at,
                _ => false,
            };
            if !stays && self.kept.last() != Some(&at) {
                self.kept.remove(&at);
            }
        }
    }
}

/// Twenty days: every second for a while, then every few minutes, with gaps of hours and days.
#[test]
fn ten_thousand_points_are_thinned_as_a_naive_model_thins_them() {
    let ladder = Ladder::default();
    let (mut points, mut made, mut at) = (Vec::new(), 0_u64, 1_700_000_000);
    let start = at;
    let mut naive = Naive {
        kept: BTreeSet::new(),
        hours: BTreeMap::new(),
        days: BTreeMap::new(),
        consistent: BTreeSet::new(),
    };
    while made < 10_000 {
        made += 1;
        at += match made {
            1500 | 4000 => 7 * HOUR,
            6000 => 2 * DAY,
            1..1500 => 1,
            _ if made % 97 == 0 => 5400,
            _ => 140 + made % 71,
        };
        let mut new = point(at);
        if made % 13 == 5 {
            new.consistency = Consistency::Application;
            naive.consistent.insert(at);
        }
        points.push(new);
        naive.kept.insert(at);
        // Thinning is not always done at once.
        if made % 7 == 0 || made > 9_900 {
            points = thinned(&ladder, &points, UnixNs(at * SECOND));
        }
        naive.thin(at);
        if made % 7 == 0 {
            assert_eq!(cuts(&points), Vec::from_iter(naive.kept.iter().copied()), "point {made}");
        }
    }
    assert!(at - start > 18 * DAY, "{} days", (at - start) / DAY);
    assert!(points.len() > 30 && points.len() < 200, "{}", points.len());
}
