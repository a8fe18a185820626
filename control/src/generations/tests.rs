//! The table of the document, row by row; and a model in which nothing that only one side holds is
//! ever written over without a person's word.

use std::collections::BTreeSet;

use blocks::{Ancestor, Claim, Ticket, Tickets};
use proptest::prelude::*;

use super::*;

fn line(name: char) -> Generation {
    Generation([u8::try_from(name).expect("a letter"); 16])
}

/// A lineage as the table has it: `` `B<A@5` ``.
fn lineage(text: &str) -> Lineage {
    let mut lines = text.trim_matches('`').split('<');
    let name = |text: &str| line(text.chars().next().expect("a line has a name"));
    let current = name(lines.next().expect("a line it is in"));
    let past = lines.map(|line| {
        let (generation, through) = line.split_once('@').expect("how far it went");
        Ancestor { generation: name(generation), through: Epoch(through.parse().unwrap()) }
    });
    Lineage::new(current, past.collect()).unwrap()
}

fn words(verdict: Verdict) -> String {
    match verdict {
        Verdict::Seed => "seed".into(),
        Verdict::GoOn => "go on".into(),
        Verdict::NothingToDo => "nothing to do".into(),
        Verdict::Delta => "delta".into(),
        Verdict::Resync(Resync::ReplicaBehind) => "resync, replica behind".into(),
        Verdict::Resync(Resync::OldLine) => "resync, old line".into(),
        Verdict::Resync(Resync::Discarded) => "resync, discarded".into(),
        Verdict::Refuse(Refusal::Fenced { since }) => format!("refuse, fenced since {since}"),
        Verdict::Refuse(Refusal::SplitBrain { since }) => {
            format!("refuse, split brain since {since}")
        }
        Verdict::Refuse(Refusal::AnotherSource) => "refuse, another source".into(),
        Verdict::Refuse(Refusal::Unrelated) => "refuse, unrelated".into(),
    }
}

#[test]
fn every_row_of_the_table_is_what_is_decided() {
    let document = include_str!("../../../docs/generations.md");
    let rows = document.lines().filter(|row| row.starts_with("| `"));
    let mut kinds = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [source, acked, changed, replica, durable, content, role, ticket, expected] = cells[..]
        else {
            panic!("not nine cells: {row}");
        };
        let (ours, theirs) = (lineage(source), lineage(replica));
        let mut source = SourceSide {
            lineage: &ours,
            acked: Epoch(acked.parse().unwrap()),
            has_changed: changed == "yes",
            discard: None,
        };
        let replica = ReplicaSide {
            lineage: &theirs,
            durable: Epoch(durable.parse().unwrap()),
            content: match content {
                "nothing" => Content::Nothing,
                "part" => Content::Part,
                "whole" => Content::Whole,
                other => panic!("{other}"),
            },
            role: if role == "promoted" { Role::Promoted } else { Role::Follower },
            shown: match ticket {
                "last" => Shown::Last,
                "newer" => Shown::Newer,
                "stale" => Shown::Stale,
                other => panic!("{other}"),
            },
        };
        let verdict = judge(&source, &replica);
        assert_eq!(words(verdict), expected, "{row}");
        kinds.insert(expected.split(" since").next().unwrap().to_owned());
        // A person's word turns a refusal, of that line and of no other, into a comparison.
        source.discard = Some(line('Z'));
        assert_eq!(judge(&source, &replica), verdict, "{row}");
        source.discard = Some(theirs.current());
        match verdict {
            Verdict::Refuse(_) => {
                assert_eq!(judge(&source, &replica), Verdict::Resync(Resync::Discarded), "{row}");
            }
            verdict => assert_eq!(judge(&source, &replica), verdict, "{row}"),
        }
    }
    assert_eq!(kinds.len(), 10, "a verdict without a row: {kinds:?}");
}

/// What happens to a disk, its clone and their replica.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A source writes.
    Write(usize),
    /// A source opens the replica, and does what the verdict says.
    Meet(usize, Reply),
    /// Whoever opened it last sends another epoch in the same session.
    Send(Reply),
    /// The replica is promoted.
    Promote,
    /// Somebody writes to the promoted replica.
    WriteToReplica,
    /// A source becomes a copy of the other, with all that it knows.
    Clone(usize),
    /// Everything of a source is kept, or comes back.
    Keep(usize),
    SetBack(usize),
}

/// How much of what follows an opening comes to pass.
#[derive(Clone, Copy, Debug)]
enum Reply {
    /// The source dies before it has kept its ticket.
    Lost,
    /// The epoch is durable, and the source never hears of it.
    Unacknowledged,
    All,
}

/// A machine: what its disk holds, and what its agent knows.
#[derive(Clone, Debug)]
struct Source {
    content: BTreeSet<u32>,
    /// What no acknowledged epoch holds.
    dirty: BTreeSet<u32>,
    acked: Epoch,
    sealed: Epoch,
    ticket: Ticket,
}

struct Model {
    sources: [Source; 2],
    kept: [Option<Source>; 2],
    /// The line that both sources are in.
    lineage: Lineage,
    replica: Lineage,
    content: BTreeSet<u32>,
    durable: Epoch,
    role: Role,
    tickets: Tickets,
    /// Whose session is open.
    session: Option<usize>,
    next: u32,
}

impl Model {
    fn new() -> Self {
        let source = Source {
            content: [0].into(),
            dirty: [0].into(),
            acked: Epoch(0),
            sealed: Epoch(0),
            ticket: Ticket::default(),
        };
        let lineage = Lineage::begin(line('A'));
        Self {
            sources: [source.clone(), source],
            kept: [None, None],
            replica: lineage.clone(),
            lineage,
            content: BTreeSet::new(),
            durable: Epoch(0),
            role: Role::Follower,
            tickets: Tickets::default(),
            session: None,
            next: 1,
        }
    }

    fn write(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(who) => {
                let write = self.write();
                self.sources[who].content.insert(write);
                self.sources[who].dirty.insert(write);
            }
            Step::Meet(who, reply) => self.meet(who, reply),
            Step::Send(reply) => {
                if let Some(who) = self.session {
                    let next = &self.content | &self.sources[who].dirty;
                    self.send(who, next, reply);
                }
            }
            Step::Promote if self.durable > Epoch(0) && self.role == Role::Follower => {
                let next = Generation([100 + u8::try_from(self.next % 100).unwrap(); 16]);
                self.replica = self.replica.fork(next, self.durable);
                self.role = Role::Promoted;
                self.session = None;
            }
            Step::WriteToReplica if self.role == Role::Promoted => {
                let write = self.write();
                self.content.insert(write);
            }
            Step::Promote | Step::WriteToReplica => {}
            Step::Clone(from) => {
                self.sources[1 - from] = self.sources[from].clone();
                self.session = self.session.filter(|who| *who == from);
            }
            Step::Keep(who) => self.kept[who] = Some(self.sources[who].clone()),
            Step::SetBack(who) => {
                if let Some(kept) = self.kept[who].clone() {
                    self.sources[who] = kept;
                    self.session = self.session.filter(|other| *other != who);
                }
            }
        }
    }

    fn meet(&mut self, who: usize, reply: Reply) {
        let source = self.sources[who].clone();
        let ours = SourceSide {
            lineage: &self.lineage,
            acked: source.acked,
            has_changed: !source.dirty.is_empty(),
            discard: None,
        };
        let claim = Claim { ticket: source.ticket, sealed: Some(source.sealed) };
        let shown = self.tickets.judge(claim, self.durable);
        let content = if self.durable == Epoch(0) { Content::Nothing } else { Content::Whole };
        let (lineage, durable, role) = (&self.replica, self.durable, self.role);
        let theirs = ReplicaSide { lineage, durable, content, role, shown };
        let verdict = judge(&ours, &theirs);
        let next = match verdict {
            Verdict::Refuse(_) => return,
            // Everything is sent, or compared: the replica becomes what the source is.
            Verdict::Seed | Verdict::Resync(_) => source.content.clone(),
            Verdict::GoOn | Verdict::Delta | Verdict::NothingToDo => &self.content | &source.dirty,
        };
        assert_eq!(next, source.content, "{verdict:?} leaves the replica unlike its source");
        let lost: Vec<_> = self.content.difference(&next).collect();
        assert!(lost.is_empty(), "{verdict:?} writes over {lost:?}, which nobody else has");
        let secret = [u8::try_from(self.next % 251).unwrap(); 16];
        self.tickets = self.tickets.issue(secret, source.ticket, self.durable);
        self.next += 1;
        // What the sender before may still send finds its session closed.
        self.session = None;
        if !matches!(reply, Reply::Lost) {
            self.sources[who].ticket = self.tickets.last;
            self.send(who, next, reply);
        }
    }

    /// Sends an epoch after which the replica holds `next`.
    fn send(&mut self, who: usize, next: BTreeSet<u32>, reply: Reply) {
        let source = &mut self.sources[who];
        source.sealed = source.sealed.max(self.durable).next();
        if matches!(reply, Reply::Lost) {
            self.session = None;
            return;
        }
        self.session = Some(who);
        self.content = next;
        self.durable = source.sealed;
        if matches!(reply, Reply::All) {
            source.acked = self.durable;
            source.dirty.clear();
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let reply = prop_oneof![
        1 => Just(Reply::Lost),
        2 => Just(Reply::Unacknowledged),
        6 => Just(Reply::All),
    ];
    prop_oneof![
        6 => (0..2usize).prop_map(Step::Write),
        8 => (0..2usize, reply.clone()).prop_map(|(who, reply)| Step::Meet(who, reply)),
        4 => reply.prop_map(Step::Send),
        1 => Just(Step::Promote),
        1 => Just(Step::WriteToReplica),
        2 => (0..2usize).prop_map(Step::Clone),
        1 => (0..2usize).prop_map(Step::Keep),
        1 => (0..2usize).prop_map(Step::SetBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn nothing_that_only_one_side_holds_is_written_over(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut model = Model::new();
        steps.into_iter().for_each(|step| model.step(step));
    }
}
