//! Half a group rolled forward: each host's point is an instant by itself, and only what one host
//! saw of the other shows that they are of two cuts.

use blocks::{ChunkSize, Extent, Geometry, MonotonicNs, Sector};

use crate::{
    At, Content, Edge, History, Initial, Instants, Issue, Layout, Observed, Outcome, Random,
    Record, Window, WriteKind, check, check_group,
};

const BLOCKS: u64 = 16;
const GROUPS: u64 = 400;
/// The second host's clock is ahead by so much: nobody compares the two.
const SKEW: u64 = 1_000_000;

/// An application that writes on one host, waits, and writes on the other: a chain over both.
struct Group {
    records: [Vec<Record>; 2],
    edges: Vec<Edge>,
    /// By the first host's clock.
    end: u64,
}

fn clock(host: usize, time: u64) -> MonotonicNs {
    MonotonicNs(time + if host == 0 { 0 } else { SKEW })
}

fn layout() -> Layout {
    Layout::new(1, &[(0, Geometry::new(BLOCKS, 512, ChunkSize::DEFAULT).unwrap())])
}

impl Group {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut group = Self { records: [Vec::new(), Vec::new()], edges: Vec::new(), end: 0 };
        let mut before: Option<At> = None;
        for step in 0..60 {
            let host = step % 2;
            let issued = group.end + 1 + random.below(3);
            let completed = issued + 1 + random.below(4);
            let extent = Extent { start: Sector(random.below(BLOCKS)), sectors: 1 };
            let write = group.records[host].len() as u64 + 1;
            let issue = Issue { disk: 0, stream: 0, write, extent, kind: WriteKind::Data };
            let outcome = Outcome::Completed(clock(host, completed));
            group.records[host].push(Record { issue, issued: clock(host, issued), outcome });
            if let Some(acknowledged) = before {
                let issued = At { host, time: clock(host, issued) };
                group.edges.push(Edge { acknowledged, issued });
            }
            before = Some(At { host, time: clock(host, completed) });
            group.end = completed;
        }
        group
    }

    /// What a host's point allows, if its cut was at this time: all writes issued by then landed.
    fn feasible(&self, host: usize, time: u64) -> Instants {
        let cut = clock(host, time);
        let content = |block: u64| {
            let last = self.records[host]
                .iter()
                .rfind(|record| record.issued <= cut && record.issue.extent.start == Sector(block));
            last.map_or(Content::Zeroes, |record| {
                let (stream, write) = (record.issue.stream, record.issue.write);
                Content::Write { stream, write, index: 0 }
            })
        };
        let observed = Observed::from_fn(&layout(), |unit| content(unit.block));
        let records = self.records[host].iter().copied();
        let history = History::new(layout(), Initial::Zeroes, records).unwrap();
        check(&history, &observed, Window::ANY).into_result().unwrap()
    }
}

#[test]
fn half_a_group_rolled_forward_is_caught() {
    let (mut caught, mut legal) = (0, 0);
    for seed in 0..GROUPS {
        let group = Group::new(seed);
        let mut random = Random::new(seed);
        let cut = random.below(group.end);
        let (first, second) = (group.feasible(0, cut), group.feasible(1, cut));
        let whole = check_group(&[first.clone(), second], &group.edges);
        assert!(whole.is_ok(), "a false alarm: {}", whole.unwrap_err());

        let later = cut + 20 + random.below(20);
        let rolled = [first, group.feasible(1, later)];
        match check_group(&rolled, &group.edges) {
            Err(_) => caught += 1,
            Ok(_) => {
                // Then every cut by counting must say so, too.
                let feasible = |host: usize| {
                    let times = (0..group.end + 60).map(|time| clock(host, time));
                    times.filter(|at| rolled[host].hold(*at)).collect::<Vec<_>>()
                };
                let (left, right) = (feasible(0), feasible(1));
                let obeys = |cuts: [MonotonicNs; 2]| {
                    group.edges.iter().all(|Edge { acknowledged, issued }| {
                        cuts[issued.host] < issued.time
                            || cuts[acknowledged.host] >= acknowledged.time
                    })
                };
                assert!(left.iter().any(|left| right.iter().any(|right| obeys([*left, *right]))));
                legal += 1;
            }
        }
    }
    println!("half a group rolled forward: {GROUPS} mutants, {legal} legal, {caught} caught");
    assert!(caught > GROUPS / 2, "{caught} caught, {legal} legal");
}
