//! The group rule: points of several hosts, each with a clock of its own, at one cut.
//!
//! Whoever wrote on host A, had it acknowledged at `a`, and then wrote on host B, issued at `b`,
//! has seen A's write come first: `T_B >= b` implies `T_A >= a`. The sets of cuts that obey all such
//! edges are closed under taking the earlier cut of each host, so there is a least one, and
//! raising from the earliest feasible cuts finds it or shows that there is none.

use blocks::MonotonicNs;

use crate::{Instants, instants::Seconds};

/// Something that was acknowledged on one host before something was issued on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The first host, and when it acknowledged, by its clock.
    pub acknowledged: At,
    /// The second host, and when the write was issued there, by its clock.
    pub issued: At,
}

/// An instant of one host's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The host, by its place among the points.
    pub host: usize,
    /// The instant.
    pub time: MonotonicNs,
}

/// Why the points of a group are not of one cut.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", self.tell())]
pub struct GroupError {
    /// The host that has no cut late enough, or none at all.
    pub host: usize,
    /// What raised it in vain, first cause first; each raised the next one's second host.
    pub chain: Vec<Edge>,
}

impl GroupError {
    fn tell(&self) -> String {
        let mut story = String::new();
        for edge in &self.chain {
            let (first, second) = (edge.acknowledged, edge.issued);
            story += &format!(
                "host {} is at {} or later, so host {} must be at {} or later; ",
                second.host,
                Seconds(second.time),
                first.host,
                Seconds(first.time)
            );
        }
        story + &format!("host {} has no feasible cut there", self.host)
    }
}

/// The earliest cut of each host that obeys all edges, from the feasible cuts of each.
///
/// # Panics
/// If an edge names a host that has no point.
pub fn check_group(hosts: &[Instants], edges: &[Edge]) -> Result<Vec<MonotonicNs>, GroupError> {
    let mut cuts = Vec::with_capacity(hosts.len());
    for (host, feasible) in hosts.iter().enumerate() {
        let earliest = feasible.first_from(MonotonicNs(0));
        cuts.push(earliest.ok_or(GroupError { host, chain: Vec::new() })?);
    }
    let mut raised_by: Vec<Option<Edge>> = vec![None; hosts.len()];
    while let Some(edge) = edges.iter().find(|edge| {
        cuts[edge.issued.host] >= edge.issued.time
            && cuts[edge.acknowledged.host] < edge.acknowledged.time
    }) {
        let host = edge.acknowledged.host;
        raised_by[host] = Some(*edge);
        match hosts[host].first_from(edge.acknowledged.time) {
            Some(cut) => cuts[host] = cut,
            None => return Err(GroupError { host, chain: causes(&raised_by, host) }),
        }
    }
    Ok(cuts)
}

/// The edges that led to the last one, first cause first.
fn causes(raised_by: &[Option<Edge>], host: usize) -> Vec<Edge> {
    let mut chain = Vec::new();
    let mut at = host;
    while let Some(edge) = raised_by[at] {
        if chain.len() == raised_by.len() {
            break;
        }
        chain.push(edge);
        at = edge.issued.host;
    }
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Window;

    fn instants(set: &[bool]) -> Instants {
        let times = (0..).zip(set).filter(|(_, feasible)| **feasible);
        Instants::of(times.map(|(time, _)| Window::at(MonotonicNs(time))))
    }

    /// Every combination of cuts, by counting.
    fn least_by_force(sets: &[Vec<bool>], edges: &[Edge]) -> Option<Vec<MonotonicNs>> {
        let times = sets[0].len();
        let all = times.pow(u32::try_from(sets.len()).unwrap());
        let cuts = (0..all).map(|mut number| {
            let digit = |_| {
                let digit = number % times;
                number /= times;
                digit
            };
            (0..sets.len()).map(digit).collect::<Vec<usize>>()
        });
        let obeys = |cuts: &&Vec<usize>| {
            let at = |host: usize| MonotonicNs(cuts[host] as u64);
            cuts.iter().zip(sets).all(|(cut, set)| set[*cut])
                && edges.iter().all(|Edge { acknowledged, issued }| {
                    at(issued.host) < issued.time || at(acknowledged.host) >= acknowledged.time
                })
        };
        let all: Vec<Vec<usize>> = cuts.collect();
        let solutions: Vec<&Vec<usize>> = all.iter().filter(obeys).collect();
        let least = |host: usize| solutions.iter().map(|cuts| cuts[host]).min();
        (0..sets.len()).map(|host| Some(MonotonicNs(least(host)? as u64))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn the_least_cut_is_what_counting_finds(
            sets in prop::collection::vec(prop::collection::vec(any::<bool>(), 6), 3),
            edges in prop::collection::vec((0usize..3, 0u64..6, 0usize..3, 0u64..6), 0..6),
        ) {
            let edge = |(a, at, b, bt)| Edge {
                acknowledged: At { host: a, time: MonotonicNs(at) },
                issued: At { host: b, time: MonotonicNs(bt) },
            };
            let edges: Vec<Edge> = edges.into_iter().map(edge).collect();
            let hosts: Vec<Instants> = sets.iter().map(|set| instants(set)).collect();
            let found = check_group(&hosts, &edges).ok();
            prop_assert_eq!(found, least_by_force(&sets, &edges));
        }
    }

    #[test]
    fn the_story_names_the_chain_of_causes() {
        let at = |host, time| At { host, time: MonotonicNs(time) };
        let edges = [
            Edge { acknowledged: at(0, 4), issued: at(1, 3) },
            Edge { acknowledged: at(1, 3), issued: at(2, 1) },
        ];
        let until =
            |time| Instants::of([Window { earliest: MonotonicNs(2), latest: MonotonicNs(time) }]);
        let error = check_group(&[until(3), until(5), until(5)], &edges).unwrap_err();
        assert_eq!(error, GroupError { host: 0, chain: vec![edges[1], edges[0]] });
        assert_eq!(
            error.to_string(),
            "host 2 is at 0.000000001 s or later, so host 1 must be at 0.000000003 s or later; \
             host 1 is at 0.000000003 s or later, so host 0 must be at 0.000000004 s or later; \
             host 0 has no feasible cut there"
        );
    }
}
