//! Recovery points: when one is due, over which disks, and what becomes of it.
//!
//! ```text
//!   due --> members idle --> cut --> verified --> sealed, shipped from memory --> durable --> confirmed
//!            (deltas held)    |                                                       |
//!                             +--> too large: deltas first                            +--> retracted
//!                             +--> refused, with the reason: the next one is tried in its turn
//! ```
//!
//! While a cut is under way the cutter alone harvests its disks, and nothing of them is sealed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use blocks::{
    Bitmap, ByteLen, Consistency, CutMethod, DiskId, Epoch, GapReason, PointId, PointRecord,
};
use crossbeam_channel::Sender;
use shipper::Content;
use tracker::Harvest;
use tracker::cut::{Hold, HotChunk, Outcome, Verified};

use super::cycle::Shipment;
use super::{Core, Event};
use crate::admin::agent::{PointMade, Response};
use crate::agent::clock::now;
use crate::agent::cutter::{CutDone, CutRequest, Cutter, ToCut, WasCut};
use crate::agent::disk::{ProtectedDisk, Session};
use crate::agent::points::PointStats;
use crate::config::Policy;
use crate::exit::{Exit, Failure};
use crate::identity::random_bytes;

/// How long an agent that has just started waits for its disks before it makes the first point, if the
/// policy asks for points that are no closer.
const SETTLING: Duration = Duration::from_secs(60);

/// How long a point that is due may wait for its members to become idle, deltas that go first
/// included, before it is given up. Whoever waits for it hears why.
const PATIENCE: Duration = Duration::from_secs(60);
/// Deltas shipped to make the dirty sets small enough, before it is said that this does not help.
const COARSE_ROUNDS: u32 = 3;

/// The answer to who asked for a point.
type Answer = Sender<Result<Response>>;

/// Somebody who waits for a point.
struct Asked {
    answer: Answer,
    kind: Kind,
}

/// What a point is to be consistent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the policy says.
    Ordinary,
    /// Applications, which hooks make ready.
    Application,
}

/// The points of this machine, as the core holds them.
pub(in crate::agent) struct Points {
    cutter: CutterState,
    /// When the next point is due; never, if the policy makes none by itself.
    due: Option<Instant>,
    /// When an application-consistent point is due; none is made without a policy.
    application_due: Option<Instant>,
    /// Since when the point that is due is tried.
    tried_since: Option<Instant>,
    /// Whether it waits for its members to become idle.
    waits: bool,
    coarse_rounds: u32,
    under_way: Option<UnderWay>,
    /// Who asked for a point that was not begun.
    asked: Vec<Asked>,
    on_their_way: Vec<OnItsWay>,
    pub(in crate::agent) stats: PointStats,
    /// The disk whose counters were looked at last.
    pub(super) looked_at: Option<DiskId>,
}

enum CutterState {
    /// No disk is tracked yet.
    NotNeeded,
    Ready(Cutter),
    /// There can be no cuts: why.
    Unusable(String),
}

impl CutterState {
    fn has_died(&self) -> bool {
        matches!(self, Self::Ready(cutter) if cutter.has_died())
    }
}

/// A cut under way.
struct UnderWay {
    members: Vec<DiskId>,
    answers: Vec<Asked>,
}

/// A point that is sealed and not yet durable on all its disks.
struct OnItsWay {
    record: PointRecord,
    left: BTreeSet<(DiskId, Epoch)>,
    disks: Vec<String>,
    answers: Vec<Asked>,
}

/// Whether a point can be begun.
enum Readiness {
    Members(Vec<DiskId>),
    Wait,
    /// No disk follows: there is nothing to make a point of.
    Nothing,
    Refused(String),
}

impl Points {
    pub(in crate::agent) fn new(policy: &Policy) -> Self {
        Self {
            application_due: policy.points.application_every.map(|_| Instant::now()),
            cutter: CutterState::NotNeeded,
            due: policy.point_interval.map(|every| Instant::now() + SETTLING.min(every)),
            tried_since: None,
            waits: false,
            coarse_rounds: 0,
            under_way: None,
            asked: Vec::new(),
            on_their_way: Vec::new(),
            stats: PointStats::new(),
            looked_at: None,
        }
    }

    /// Whether a cut is under way.
    pub(super) fn is_cutting(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether a cut harvests this disk.
    pub(super) fn cuts(&self, id: DiskId) -> bool {
        self.under_way.as_ref().is_some_and(|cut| cut.members.contains(&id))
    }

    /// Whether new deltas are held back, so that a point can be cut.
    pub(super) fn holds_deltas(&self) -> bool {
        self.waits
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| now >= due);
        !self.is_cutting() && (is_due || !self.asked.is_empty())
    }

    /// Whether the point that is due has been tried for as long as it may.
    fn has_waited(&mut self, now: Instant) -> bool {
        now.duration_since(*self.tried_since.get_or_insert(now)) >= PATIENCE
    }

    /// Whether another delta may go first, of a point that was too large.
    fn may_ship_first(&mut self) -> bool {
        self.coarse_rounds < COARSE_ROUNDS && !self.has_waited(Instant::now())
    }

    /// The point that was due is made, or is not: the next one begins anew.
    fn end_try(&mut self) {
        (self.tried_since, self.waits, self.coarse_rounds) = (None, false, 0);
    }
}

impl Core {
    /// Begins a point when one is due and its disks are idle.
    pub(super) fn drive_points(&mut self, now: Instant) {
        if self.points.is_cutting() && self.points.cutter.has_died() {
            self.recover_cut();
        }
        let nobody_asks = self.points.asked.is_empty();
        if !self.points.is_due(now) || (self.disks.is_empty() && nobody_asks) {
            return;
        }
        match self.readiness(now) {
            Readiness::Members(members) => {
                self.points.waits = false;
                self.points.tried_since.get_or_insert(now);
                self.points.due = self.next_due(now);
                let kind = self.kind_due(now);
                self.begin_cut(members, kind);
            }
            Readiness::Wait => self.points.waits = true,
            Readiness::Nothing if nobody_asks => self.pass_over(now),
            Readiness::Nothing => {
                let reason = self.left_behind();
                self.refuse_point(
                    &reason.unwrap_or_else(|| "no replica follows its disk yet".into()),
                );
            }
            Readiness::Refused(reason) => self.refuse_point(&reason),
        }
    }

    /// There is nothing to make a point of, and nobody asks for one. That is news only once a comparison
    /// has kept a disk from following for as long as a point is tried.
    fn pass_over(&mut self, now: Instant) {
        self.points.waits = false;
        match self.left_behind() {
            Some(reason) if self.points.has_waited(now) => self.refuse_point(&reason),
            Some(_) => {}
            None => self.points.tried_since = None,
        }
        self.points.due = self.next_due(now);
    }

    /// Why no replica follows, if one should: it did, and a comparison is due or under way.
    fn left_behind(&self) -> Option<String> {
        let mut gaps = self.disks.values().filter(|disk| !disk.record.paused).filter_map(|disk| {
            let gap = disk.gap().filter(|gap| *gap != GapReason::NeverReplicated)?;
            Some(format!("no replica follows its disk; {} has to be compared: {gap}", disk.name))
        });
        gaps.next()
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        self.config.policy.point_interval.map(|every| now + every)
    }

    /// Somebody wants a point now.
    pub(super) fn ask_for_point(&mut self, kind: Kind, answer: &Answer) {
        if kind == Kind::Application && !self.config.hooks.are_there() {
            let words = "no hooks are configured that would make applications ready: set `pre` and \
                         `post` under [hooks] in the agent's configuration";
            drop(answer.send(Err(Failure::new(Exit::WrongState, words).into())));
            return;
        }
        self.points.asked.push(Asked { answer: answer.clone(), kind });
    }

    /// What the next point is to be consistent for.
    fn kind_due(&mut self, now: Instant) -> Kind {
        let policy = &self.config.policy;
        let asked = self.points.asked.iter().any(|asked| asked.kind == Kind::Application);
        let due = self.points.application_due.is_some_and(|due| now >= due);
        if asked || (due && self.config.hooks.are_there()) {
            let next = policy.points.application_every.map(|every| now + every.duration());
            self.points.application_due = next;
            return Kind::Application;
        }
        Kind::Ordinary
    }

    fn readiness(&mut self, now: Instant) -> Readiness {
        let follows = |disk: &&ProtectedDisk| {
            let open = matches!(disk.session, Session::Open { .. });
            disk.gap().is_none() && !disk.tracker.in_pass() && open && !disk.record.paused
        };
        let members: Vec<&ProtectedDisk> = self.disks.values().filter(follows).collect();
        if members.is_empty() {
            return Readiness::Nothing;
        }
        let held = |disk: &&&ProtectedDisk| disk.is_held(now) || !disk.tracker.can_cut();
        let busy: Option<String> = members.iter().find(held).map(|disk| disk.name.clone());
        let members = members.iter().map(|disk| disk.id).collect();
        let Some(busy) = busy else { return Readiness::Members(members) };
        if !self.points.has_waited(now) {
            return Readiness::Wait;
        }
        let (deltas, seconds) = (self.points.coarse_rounds, PATIENCE.as_secs());
        Readiness::Refused(match deltas {
            0 => format!("{busy} was busy sending a delta for {seconds} s"),
            _ => format!(
                "cannot keep up: writes arrive faster than they are sent; delta {deltas} of {busy}, \
                 which was to make less of it, was not through after {seconds} s"
            ),
        })
    }

    fn begin_cut(&mut self, members: Vec<DiskId>, kind: Kind) {
        let disks: Vec<ToCut> = self
            .disks
            .values_mut()
            .filter(|disk| members.contains(&disk.id))
            .map(|disk| ToCut {
                id: disk.id,
                path: disk.device.path.clone(),
                number: disk.device.number,
                geometry: disk.geometry,
                tracked: disk.tracked.clone(),
                dirty: disk.tracker.begin_cut(),
                heat: std::mem::take(&mut disk.heat),
            })
            .collect();
        let seed = random_bytes().map_or(0, u64::from_le_bytes);
        let policy = &self.config.policy;
        let hooks = (kind == Kind::Application).then(|| self.config.hooks.clone());
        let (freeze, freeze_limit) = (policy.freeze, policy.freeze_limit);
        let request = CutRequest { disks, freeze, freeze_limit, hooks, seed };
        match self.cutter() {
            Ok(cutter) if cutter.cut(request) => {
                let answers = std::mem::take(&mut self.points.asked);
                self.points.under_way = Some(UnderWay { members, answers });
            }
            Ok(_) => self.refuse_point("the thread that cuts is gone"),
            Err(reason) => self.refuse_point(&reason),
        }
    }

    /// The cutter, started when it is first needed.
    fn cutter(&mut self) -> std::result::Result<&Cutter, String> {
        if matches!(self.points.cutter, CutterState::NotNeeded) {
            self.points.cutter = match self.start_cutter() {
                Ok(cutter) => CutterState::Ready(cutter),
                Err(error) => {
                    tracing::error!("no recovery points can be made: {error:#}");
                    CutterState::Unusable(format!("{error:#}"))
                }
            };
        }
        match &self.points.cutter {
            CutterState::Ready(cutter) => Ok(cutter),
            CutterState::Unusable(reason) => Err(reason.clone()),
            CutterState::NotNeeded => Err("nothing is tracked".into()),
        }
    }

    fn start_cutter(&mut self) -> Result<Cutter> {
        let table = self.tracking.as_mut().and_then(ebpf::Tracking::conflicts);
        let table = table.ok_or_else(|| anyhow::anyhow!("there is no table of conflicts"))?;
        let events = self.events.clone();
        // The core ends after the cutter.
        let tell = move |done| drop(events.send(Event::Cut(Box::new(done))));
        Cutter::start(table, self.config.policy.cut_memory, Box::new(tell))
    }

    /// A cut has ended.
    pub(super) fn apply_cut(&mut self, mut done: CutDone) {
        let Some(UnderWay { members, answers }) = self.points.under_way.take() else { return };
        for cut in &mut done.disks {
            if let Some(disk) = self.disks.get_mut(&cut.id) {
                disk.heat = std::mem::take(&mut cut.heat);
            }
        }
        self.points.stats.note_attempts(done.attempts);
        for note in &done.notes {
            tracing::info!("a hook: {note}");
        }
        self.points.stats.note_hooks(&done.notes);
        let changed = members.iter().find(|id| !self.may_seal(**id)).copied();
        match done.outcome.clone() {
            Outcome::Verified(verified) if changed.is_none() => {
                self.points.end_try();
                match record_of(&verified, &done) {
                    Ok(record) => self.seal_point(record, done, answers),
                    Err(error) => {
                        self.points.asked.extend(answers);
                        self.take_back(done);
                        self.refuse_point(&format!("{error:#}"));
                    }
                }
            }
            Outcome::TooLarge { .. } if self.points.may_ship_first() => {
                self.points.coarse_rounds += 1;
                self.points.asked.extend(answers);
                self.points.due = Some(Instant::now());
                self.take_back(done);
                self.ship_deltas_first(&members);
            }
            outcome => {
                let words = match changed.and_then(|id| self.disks.get(&id)) {
                    Some(disk) => match disk.gap() {
                        Some(gap) => format!("{} stopped following meanwhile: {gap}", disk.name),
                        None => format!("{} stopped following meanwhile", disk.name),
                    },
                    None if changed.is_some() => "a disk was released meanwhile".into(),
                    None => {
                        let written_most = self.written_most(&outcome, &members);
                        refusal(&outcome, self.points.coarse_rounds, &written_most)
                    }
                };
                self.points.asked.extend(answers);
                self.take_back(done);
                self.refuse_point(&words);
            }
        }
    }

    fn may_seal(&self, id: DiskId) -> bool {
        self.disks.get(&id).is_some_and(|disk| {
            let open = matches!(disk.session, Session::Open { .. });
            open && !disk.record.paused && disk.tracker.can_cut()
        })
    }

    /// The cutter died, and with it the knowledge of what it had harvested. All of that is pending,
    /// with what is dirty anyway.
    fn recover_cut(&mut self) {
        let Some(UnderWay { members, answers }) = self.points.under_way.take() else { return };
        for id in members {
            if let Some(disk) = self.disks.get_mut(&id) {
                let mut chunks = Bitmap::new(disk.geometry.chunks());
                disk.tracked.pending().for_each(|(index, bits)| chunks.insert_word(index, bits));
                disk.tracker.handle_harvest(&Harvest { started: now(), chunks });
            }
        }
        self.points.asked.extend(answers);
        let reason = "the thread that cuts has died";
        self.points.cutter = CutterState::Unusable(reason.into());
        self.refuse_point(reason);
    }

    /// What a cut harvested and did not make a point of is dirty.
    fn take_back(&mut self, done: CutDone) {
        for WasCut { id, chunks, .. } in done.disks {
            if let Some(disk) = self.disks.get_mut(&id)
                && done.attempts > 0
            {
                disk.tracker.handle_harvest(&Harvest { started: done.began, chunks });
            }
        }
    }

    /// Ships what is dirty as deltas; the point follows once they are acknowledged.
    fn ship_deltas_first(&mut self, members: &[DiskId]) {
        for id in members {
            if let Err(error) = self.seal_and_ship(*id) {
                tracing::error!(DISK = %id, "{error:#}");
            }
        }
    }

    /// Seals the image of every disk as the epoch that makes the point, and ships it.
    fn seal_point(&mut self, record: PointRecord, done: CutDone, answers: Vec<Asked>) {
        self.points.stats.note_cut(&record);
        tracing::debug!(
            POINT = %record.id, attempts = record.attempts, window = ?record.window, "a cut"
        );
        let (mut left, mut disks) = (BTreeSet::new(), Vec::new());
        for WasCut { id, chunks, image, .. } in done.disks {
            let Some(disk) = self.disks.get_mut(&id) else { continue };
            let follows = disk.tracker.newest();
            let sealed = disk.tracker.seal_cut(record.cut.monotonic, chunks);
            let (Some(sealed), Some(image)) = (sealed, image) else { continue };
            disk.points.note_cut(sealed.epoch(), record);
            left.insert((id, sealed.epoch()));
            disks.push(disk.name.clone());
            let shipment = Shipment { sealed, follows, content: Content::Image(image) };
            if let Err(error) = self.ship(id, shipment, Some(record)) {
                tracing::error!(DISK = %id, "{error:#}");
            }
        }
        self.points.on_their_way.push(OnItsWay { record, left, disks, answers });
    }

    /// An epoch is durable, and maybe the last that a point waited for.
    pub(super) fn note_durable_point(&mut self, id: DiskId, epoch: Epoch) {
        for point in &mut self.points.on_their_way {
            point.left.retain(|(disk, of)| *disk != id || *of > epoch);
        }
        let complete = |point: &mut OnItsWay| point.left.is_empty();
        for point in self.points.on_their_way.extract_if(.., complete) {
            self.points.stats.note_made(&point.record);
            tracing::info!(POINT = %point.record.id, disks = point.record.disks, "a recovery point");
            let made = PointMade::new(&point.record, point.disks);
            for asked in point.answers {
                // Who has gone away does not want the answer.
                drop(asked.answer.send(Ok(Response::Point(made.clone()))));
            }
        }
    }

    /// Epochs of a disk were lost, and with them the points that they would have made.
    pub(super) fn note_lost_points(&mut self, id: DiskId, why: &str) {
        let lost = |point: &mut OnItsWay| point.left.iter().any(|(disk, _)| *disk == id);
        let lost: Vec<_> = self.points.on_their_way.extract_if(.., lost).collect();
        for point in lost {
            self.points.asked.extend(point.answers);
            self.refuse_point(&format!("while it was sent: {why}"));
        }
    }

    fn refuse_point(&mut self, reason: &str) {
        self.points.end_try();
        self.points.due = self.next_due(Instant::now());
        if self.points.stats.note_refused(reason) {
            tracing::warn!(REASON = reason, "no recovery point");
        }
        for asked in self.points.asked.drain(..) {
            let words = format!("no recovery point: {reason}");
            drop(asked.answer.send(Err(Failure::new(Exit::WrongState, words).into())));
        }
    }

    /// Where a cut's attempts met most conflicts.
    fn written_most(&self, outcome: &Outcome, members: &[DiskId]) -> Vec<String> {
        let hottest: &[HotChunk] = match outcome {
            Outcome::CannotKeepUp { hottest, .. } | Outcome::Unsettled { hottest, .. } => hottest,
            _ => &[],
        };
        let place = |hot: &HotChunk| {
            let disk = self.disks.get(members.get(hot.disk)?)?;
            let at = ByteLen(hot.chunk.0 * disk.geometry.chunk().bytes());
            Some(format!("{} at {at}", disk.name))
        };
        hottest.iter().filter_map(place).collect()
    }
}

/// Why a cut did not succeed, after so many deltas that were shipped to make less of it.
fn refusal(outcome: &Outcome, deltas: u32, written_most: &[String]) -> String {
    let words = match outcome {
        Outcome::TooLarge { .. } if deltas > 0 => format!(
            "cannot keep up: writes arrive faster than they are sent; after {deltas} deltas \
             {outcome}"
        ),
        _ => outcome.to_string(),
    };
    match written_most.is_empty() {
        true => words,
        false => format!("{words}; written most: {}", written_most.join(", ")),
    }
}

/// What a point says of itself.
fn record_of(verified: &Verified, done: &CutDone) -> Result<PointRecord> {
    let (frozen, method) = match verified.hold {
        Hold::None => (Consistency::Crash, CutMethod::Verified),
        Hold::Instant => (Consistency::FileSystem, CutMethod::FrozenInstant),
        Hold::Throughout => (Consistency::FileSystem, CutMethod::FrozenThroughout),
    };
    let consistency = if done.application { Consistency::Application } else { frozen };
    Ok(PointRecord {
        id: PointId(random_bytes()?),
        cut: verified.at,
        consistency,
        method,
        disks: u16::try_from(done.disks.len())?,
        attempts: done.attempts,
        window: verified.window,
        freeze: done.freeze,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_that_deltas_do_not_catch_up_with_are_named_as_such() {
        let outcome = Outcome::TooLarge { due: ByteLen(512 << 20), memory: ByteLen(64 << 20) };
        assert_eq!(
            refusal(&outcome, COARSE_ROUNDS, &[]),
            "cannot keep up: writes arrive faster than they are sent; after 3 deltas 512 MiB are \
             dirty, more than the 64 MiB that are read at one instant"
        );
    }

    #[test]
    fn what_was_written_most_is_named() {
        let outcome = Outcome::CannotKeepUp { rounds: 4, due: ByteLen(1 << 20), hottest: vec![] };
        let words = refusal(&outcome, 0, &["vda at 4 KiB".into(), "vdb at 0 B".into()]);
        assert!(words.starts_with("cannot keep up: writes arrive faster than they are read; "));
        assert!(words.ends_with("; written most: vda at 4 KiB, vdb at 0 B"), "{words}");
    }
}
