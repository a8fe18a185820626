//! No false alarm on what is true, and next to no mutant of it survives.
//!
//! A mutant that the judge lets pass is no survivor if brute force finds it to be a legal state.

use std::{collections::BTreeMap, fmt};

use crate::{Content, History, Random, Stamp, Unit, Window, check_chains, judge};
use blocks::MonotonicNs;

use super::{
    force::Run,
    world::{Image, World},
};

const WORLDS: u64 = 250;
/// How far the claimed window reaches on either side of the cut.
const SLACK: u64 = 2;
/// Among at least so many illegal mutants of a kind, at least 99 in 100 must be caught.
const FEWEST: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mutation {
    AcknowledgedWriteDropped,
    TwoInstantsMixed,
    StaleBlock,
    BlocksSwapped,
    TornAfterAcknowledgement,
    OneDiskRolledForward,
    ForeignRun,
    BlockZeroed,
    BitFlipped,
    TornBlock,
    WholePointStale,
    CutClaimedLate,
}

const EVERY: [Mutation; 12] = [
    Mutation::AcknowledgedWriteDropped,
    Mutation::TwoInstantsMixed,
    Mutation::StaleBlock,
    Mutation::BlocksSwapped,
    Mutation::TornAfterAcknowledgement,
    Mutation::OneDiskRolledForward,
    Mutation::ForeignRun,
    Mutation::BlockZeroed,
    Mutation::BitFlipped,
    Mutation::TornBlock,
    Mutation::WholePointStale,
    Mutation::CutClaimedLate,
];

struct Case<'a> {
    world: &'a World,
    random: Random,
    cut: u64,
    image: Image,
}

impl Case<'_> {
    /// A mutant and the cut it claims; `None` where this point has none of the kind.
    fn mutant(&mut self, mutation: Mutation) -> Option<(Image, u64)> {
        let mutant = match mutation {
            Mutation::AcknowledgedWriteDropped => {
                let dropped = self.one_of(&self.world.acknowledged(self.cut - SLACK))?;
                self.world.image(self.cut, |record| record != dropped)
            }
            Mutation::TwoInstantsMixed => self.mixed(|random, _| random.below(2) == 0),
            Mutation::StaleBlock => {
                let stale = self.unit();
                self.mixed(|_, unit| unit == stale)
            }
            Mutation::BlocksSwapped => self.swapped()?,
            Mutation::TornAfterAcknowledgement => self.torn_write()?,
            Mutation::OneDiskRolledForward => {
                let later = self.world.state(self.cut + 10 + self.random.below(40));
                [self.image[0].clone(), later[1].clone()]
            }
            Mutation::ForeignRun => self.edited(|bytes, _| {
                let mut stamp = Stamp::read(&bytes[..512]).ok()?;
                stamp.run += 1;
                stamp.stamp(bytes);
                Some(())
            })?,
            Mutation::BlockZeroed => self.edited(|bytes, _| {
                bytes.fill(0);
                Some(())
            })?,
            Mutation::BitFlipped => self.edited(|bytes, random| {
                let at = usize::try_from(random.below(bytes.len() as u64)).ok()?;
                bytes[at] ^= 1 << random.below(8);
                Some(())
            })?,
            Mutation::TornBlock => self.torn_block()?,
            Mutation::WholePointStale => {
                self.world.state(self.cut.saturating_sub(10 + self.random.below(40)))
            }
            Mutation::CutClaimedLate => {
                return Some((self.image.clone(), self.cut + 10 + self.random.below(40)));
            }
        };
        (mutant != self.image).then_some((mutant, self.cut))
    }

    /// Some units from an earlier state.
    fn mixed(&mut self, mut stale: impl FnMut(&mut Random, Unit) -> bool) -> Image {
        let mut earlier = self.world.state(self.random.below(self.cut));
        let mut mutant = self.image.clone();
        for unit in &self.world.units {
            if stale(&mut self.random, *unit) {
                let old = self.world.bytes_of(&mut earlier, *unit).to_vec();
                self.world.bytes_of(&mut mutant, *unit).copy_from_slice(&old);
            }
        }
        mutant
    }

    fn swapped(&mut self) -> Option<Image> {
        let (left, right) = (self.unit(), self.unit());
        let mut mutant = self.image.clone();
        let first = self.world.bytes_of(&mut mutant, left).to_vec();
        let second = self.world.bytes_of(&mut mutant, right).to_vec();
        if first.len() != second.len() {
            return None;
        }
        self.world.bytes_of(&mut mutant, left).copy_from_slice(&second);
        self.world.bytes_of(&mut mutant, right).copy_from_slice(&first);
        Some(mutant)
    }

    /// An acknowledged write of several units is missing from some of them.
    fn torn_write(&mut self) -> Option<Image> {
        let record = self.one_of(&self.world.acknowledged(self.cut - SLACK))?;
        let units = self.world.units.iter().copied();
        let covered: Vec<Unit> = units.filter(|unit| self.world.covers(record, *unit)).collect();
        let torn = 1 + self.random.below((covered.len() as u64 - 1).max(1));
        let mut without = self.world.image(self.cut, |other| other != record);
        let mut mutant = self.image.clone();
        for unit in covered.iter().skip(usize::try_from(torn).ok()?) {
            let old = self.world.bytes_of(&mut without, *unit).to_vec();
            self.world.bytes_of(&mut mutant, *unit).copy_from_slice(&old);
        }
        Some(mutant)
    }

    /// Some sectors of one 4 KiB block are older than the others.
    fn torn_block(&mut self) -> Option<Image> {
        let mut earlier = self.world.state(self.random.below(self.cut));
        let unit = self.unit();
        let old = self.world.bytes_of(&mut earlier, unit).to_vec();
        let sectors = old.len() / 512;
        if sectors == 1 {
            return None;
        }
        let from = 1 + usize::try_from(self.random.below(sectors as u64 - 1)).ok()?;
        let mut mutant = self.image.clone();
        let bytes = self.world.bytes_of(&mut mutant, unit);
        bytes[from * 512..].copy_from_slice(&old[from * 512..]);
        Some(mutant)
    }

    fn edited(&mut self, edit: impl Fn(&mut [u8], &mut Random) -> Option<()>) -> Option<Image> {
        let unit = self.unit();
        let mut mutant = self.image.clone();
        edit(self.world.bytes_of(&mut mutant, unit), &mut self.random)?;
        Some(mutant)
    }

    fn unit(&mut self) -> Unit {
        self.world.units[usize::try_from(self.random.below(self.world.units.len() as u64)).unwrap()]
    }

    fn one_of(&mut self, records: &[usize]) -> Option<usize> {
        let count = u64::try_from(records.len()).ok().filter(|count| *count > 0)?;
        let at = self.random.below(count);
        Some(records[usize::try_from(at).ok()?])
    }
}

#[derive(Default)]
struct Score {
    mutants: usize,
    legal: usize,
    caught: usize,
    survivors: Vec<String>,
}

struct Table(BTreeMap<Mutation, Score>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<28}{:>9}{:>9}{:>9}{:>11}",
            "mutation", "mutants", "legal", "caught", "survived"
        )?;
        for (mutation, score) in &self.0 {
            let Score { mutants, legal, caught, survivors } = score;
            let name = format!("{mutation:?}");
            writeln!(f, "{name:<28}{mutants:>9}{legal:>9}{caught:>9}{:>11}", survivors.len())?;
        }
        Ok(())
    }
}

fn around(cut: u64) -> Window {
    let (earliest, latest) = (MonotonicNs(cut.saturating_sub(SLACK)), MonotonicNs(cut + SLACK));
    Window { earliest, latest }
}

fn contents(world: &World, image: &Image) -> Vec<(Unit, Content)> {
    let observed = world.observed(image);
    world.units.iter().map(|unit| (*unit, observed.content_of(&world.layout, *unit))).collect()
}

fn is_legal(world: &World, image: &Image, window: Window) -> bool {
    let initial = world.initial();
    let run = Run { layout: &world.layout, records: &world.records, initial: &initial };
    let contents = contents(world, image);
    (window.earliest.0..=window.latest.0).any(|instant| run.by_placing(&contents, instant))
}

fn count(score: &mut Score, world: &World, history: &History, (image, cut): (&Image, u64)) {
    let window = around(cut);
    let verdict = judge(history, &world.observed(image), window).into_result();
    let legal = is_legal(world, image, window);
    score.mutants += 1;
    match (verdict, legal) {
        (Err(_), false) => score.caught += 1,
        (Ok(_), true) => score.legal += 1,
        (Ok(at), false) => score.survivors.push(format!("cut {cut}, judged valid at {at}")),
        (Err(reason), true) => panic!("a false alarm: {reason}"),
    }
}

#[test]
fn mutants_of_valid_points_are_caught() {
    let mut table = Table(BTreeMap::new());
    for seed in 0..WORLDS {
        let world = World::new(seed);
        let history = world.history();
        let mut random = Random::new(seed ^ 0x5eed);
        for _ in 0..4 {
            let cut = 20 + random.below(world.end - 20);
            let image = world.state(cut);
            let mut case =
                Case { world: &world, random: Random::new(random.next_u64()), cut, image };
            for mutation in EVERY {
                if let Some((mutant, claimed)) = case.mutant(mutation) {
                    let score = table.0.entry(mutation).or_default();
                    count(score, &world, &history, (&mutant, claimed));
                }
            }
        }
    }
    println!("{table}");
    for (mutation, score) in &table.0 {
        let illegal = score.mutants - score.legal;
        score.survivors.iter().for_each(|survivor| println!("{mutation:?} survived: {survivor}"));
        assert!(illegal >= FEWEST, "{mutation:?} has shown nothing: {illegal} illegal mutants");
        assert!(score.caught * 100 >= illegal * 99, "{mutation:?}: {} of {illegal}", score.caught);
    }
    assert_eq!(table.0.len(), EVERY.len());
    let sum = |of: fn(&Score) -> usize| table.0.values().map(of).sum::<usize>();
    let (mutants, legal, caught) = (sum(|s| s.mutants), sum(|s| s.legal), sum(|s| s.caught));
    println!("figure: mutants of valid points, of {} kinds: {mutants}", table.0.len());
    println!("figure: of these, legal by brute force: {legal}");
    println!("figure: caught by the checker: {caught} of {}", mutants - legal);
}

#[test]
fn true_states_are_valid_at_their_instant() {
    for seed in 0..1500 {
        let world = World::new(seed);
        let history = world.history();
        let mut random = Random::new(seed);
        for _ in 0..12 {
            let cut = random.below(world.end + 10);
            let observed = world.observed(&world.state(cut));
            let at = Window::at(MonotonicNs(cut));
            if let Err(reason) = judge(&history, &observed, at).into_result() {
                panic!("seed {seed}, cut {cut}: {reason}");
            }
        }
    }
}

/// The chain rule has power of its own, without any clock, where streams don't overwrite each
/// other; where they do, only the check can tell whose turn it was.
#[test]
fn the_chain_rule_alone_catches_most_dropped_writes() {
    let (mut caught, mut illegal) = (0, 0);
    for seed in 0..4 * WORLDS {
        let world = World::apart(seed);
        let history = world.history();
        let mut random = Random::new(seed);
        let cut = world.end / 2 + random.below(world.end / 2);
        let mut case = Case { world: &world, random, cut, image: world.state(cut) };
        let Some((mutant, cut)) = case.mutant(Mutation::AcknowledgedWriteDropped) else { continue };
        if !is_legal(&world, &mutant, around(cut)) {
            illegal += 1;
            caught += usize::from(check_chains(&history, &world.observed(&mutant)).is_err());
        }
    }
    println!("{caught} of {illegal}");
    assert!(illegal > 100 && caught * 2 > illegal, "{caught} of {illegal}");
}
