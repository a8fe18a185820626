//! Two honest ends over a network that delays everything as it likes.
//!
//! Whatever the order in which streams and control messages arrive, neither end finds fault with
//! the other, epochs become durable on top of the one they follow, and every epoch that was begun
//! is answered exactly once.

use std::collections::{BTreeMap, VecDeque};

use blocks::{Epoch, EpochKind};
use bytes::Bytes;
use proptest::prelude::*;

use super::pair::*;
use crate::close::Reason;
use crate::frame::CheckedFrame;
use crate::session::{SourceError, SourceEvent, StreamEnd, StreamId, TargetAction};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The source begins an epoch with this many content frames, skipping numbers.
    Begin {
        skip: u64,
        frames: u64,
    },
    /// The source gives up the n-th epoch it has begun, and resets its stream.
    Abort(usize),
    /// The next frame of the n-th live stream arrives.
    Frame(usize),
    /// The next control message arrives at the target, or at the source.
    ToTarget,
    ToSource,
    /// The target's oldest open commit succeeds, or fails.
    Commit,
    CommitFails,
    /// The target fails the oldest epoch it is receiving.
    AppendFails,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u64..2, 0u64..4).prop_map(|(skip, frames)| Step::Begin { skip, frames }),
        1 => any::<usize>().prop_map(Step::Abort),
        6 => any::<usize>().prop_map(Step::Frame),
        4 => Just(Step::ToTarget),
        4 => Just(Step::ToSource),
        3 => Just(Step::Commit),
        1 => Just(Step::CommitFails),
        1 => Just(Step::AppendFails),
    ]
}

struct Network {
    pair: Pair,
    to_target: VecDeque<Bytes>,
    to_source: VecDeque<Bytes>,
    streams: BTreeMap<StreamId, VecDeque<CheckedFrame>>,
    begun: Vec<Epoch>,
    answers: BTreeMap<Epoch, bool>,
    /// The target's replica: what it received and what is durable.
    receiving: BTreeMap<Epoch, Epoch>,
    committing: Option<(Epoch, Epoch)>,
    durable: Epoch,
}

impl Network {
    fn new() -> Self {
        Self {
            pair: Pair::open(Epoch(5)),
            to_target: VecDeque::new(),
            to_source: VecDeque::new(),
            streams: BTreeMap::new(),
            begun: Vec::new(),
            answers: BTreeMap::new(),
            receiving: BTreeMap::new(),
            committing: None,
            durable: Epoch(5),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Begin { skip, frames } => self.begin(skip, frames),
            Step::Abort(n) => self.abort(n),
            Step::Frame(n) => self.frame(n),
            Step::ToTarget => {
                if let Some(bytes) = self.to_target.pop_front() {
                    self.pair.target.handle_control(&bytes);
                }
            }
            Step::ToSource => {
                if let Some(bytes) = self.to_source.pop_front() {
                    self.pair.source.handle_control(&bytes);
                }
            }
            Step::Commit => {
                if let Some((epoch, follows)) = self.committing.take() {
                    assert_eq!(follows, self.durable, "durable on top of what it follows");
                    self.durable = epoch;
                    self.pair.target.handle_durable(DISK, epoch);
                }
            }
            Step::CommitFails => {
                if let Some((epoch, _)) = self.committing.take() {
                    self.fail(epoch);
                }
            }
            Step::AppendFails => {
                if let Some((epoch, _)) = self.receiving.pop_first() {
                    self.fail(epoch);
                }
            }
        }
        self.settle();
    }

    fn begin(&mut self, skip: u64, frames: u64) {
        let epoch = Epoch(self.begun.last().unwrap_or(&Epoch(5)).0 + 1 + skip);
        match self.pair.source.begin_epoch(DISK, epoch, EpochKind::Delta) {
            Ok(link) => {
                let frames = epoch_frames(&self.pair.sealer, link, frames);
                self.streams.insert(StreamId(epoch.0), frames.into());
                self.begun.push(epoch);
            }
            Err(SourceError::TooManyEpochs | SourceError::AbortPending(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn abort(&mut self, n: usize) {
        if self.begun.is_empty() {
            return;
        }
        let epoch = self.begun[n % self.begun.len()];
        self.pair.source.abort_epoch(DISK, epoch).unwrap();
        if let Some(frames) = self.streams.get_mut(&StreamId(epoch.0)) {
            frames.clear();
        }
    }

    fn frame(&mut self, n: usize) {
        let Some(id) = self.streams.keys().copied().nth(n % self.streams.len().max(1)) else {
            return;
        };
        match self.streams.get_mut(&id).unwrap().pop_front() {
            Some(frame) => {
                let last = frame.header().is_end();
                if last {
                    self.pair.source.handle_ending(DISK, frame.header().epoch);
                }
                self.pair.target.handle_frame(id, frame);
                if last {
                    self.streams.remove(&id);
                    self.pair.target.handle_stream_end(id, StreamEnd::Finished);
                }
            }
            None => {
                self.streams.remove(&id);
                self.pair.target.handle_stream_end(id, StreamEnd::Reset);
            }
        }
    }

    fn fail(&mut self, epoch: Epoch) {
        self.pair.target.handle_failed(DISK, epoch, Reason::StoreFull.into(), "");
    }

    /// Takes what both ends have to say.
    fn settle(&mut self) {
        self.to_target.extend(std::iter::from_fn(|| self.pair.source.poll_transmit()));
        self.to_source.extend(std::iter::from_fn(|| self.pair.target.poll_transmit()));
        while let Some(action) = self.pair.target.poll_action() {
            match action {
                TargetAction::BeginEpoch { epoch, follows, .. } => {
                    assert!(self.receiving.insert(epoch, follows).is_none());
                }
                TargetAction::Append { epoch, .. } => {
                    assert!(self.receiving.contains_key(&epoch));
                }
                TargetAction::Commit { epoch, .. } => {
                    let follows = self.receiving.remove(&epoch).unwrap();
                    assert!(self.committing.replace((epoch, follows)).is_none());
                }
                TargetAction::Abort { epoch, .. } => {
                    assert!(self.receiving.remove(&epoch).is_some(), "aborted what is there");
                }
                TargetAction::StopStream { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        while let Some(event) = self.pair.source.poll_event() {
            let (epoch, durable) = match event {
                SourceEvent::Durable { epoch, .. } => (epoch, true),
                SourceEvent::Failed(failed) => (failed.epoch, false),
                other => panic!("{other:?}"),
            };
            assert!(self.answers.insert(epoch, durable).is_none(), "{epoch} answered twice");
        }
    }

    /// Lets everything arrive.
    fn drain(&mut self) {
        for _ in 0..1_000 {
            self.apply(Step::ToTarget);
            self.apply(Step::ToSource);
            self.apply(Step::Frame(0));
            self.apply(Step::Commit);
        }
        assert!(self.streams.is_empty() && self.to_target.is_empty() && self.to_source.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn honest_ends_never_fall_out(steps in prop::collection::vec(step(), 0..120)) {
        let mut network = Network::new();
        for step in steps {
            network.apply(step);
        }
        network.drain();
        let answered: Vec<_> = network.answers.keys().copied().collect();
        prop_assert_eq!(&answered, &network.begun, "every epoch is answered");
        prop_assert!(network.receiving.is_empty() && network.committing.is_none());
        let last_durable = network.answers.iter().rfind(|(_, durable)| **durable);
        prop_assert_eq!(*last_durable.map_or(&Epoch(5), |(epoch, _)| epoch), network.durable);
    }
}
