//! Points before the judge that tests of real disks use too: [`oracle::judge`].
//!
//! `checks.rs` asks of every sector alone whether it may have held its content at T; the oracle
//! sweeps all disks of a point together, and follows each application's chain. Two implementations
//! that share nothing have to agree.

use blocks::{MarkKind, MonotonicNs, PointId};
use oracle::{
    Content as Seen, History, Initial, Issue, Layout, Observed, Outcome, Record, Verdict, Window,
    WriteKind,
};

use crate::{
    clock::Step,
    content::Content,
    history::{self, Write},
    machine::Machine,
};

/// Points are judged one in so many: the oracle indexes all writes anew for each.
const ONE_IN: u64 = 4;

/// Judges what all disks held at a point; nothing is said of points after a loss of power, whose
/// history begins with an image.
pub(crate) fn judge(
    machine: &Machine,
    point: PointId,
    boot: usize,
    at: Step,
    held: &[Vec<Content>],
) -> Result<(), String> {
    if boot > 0 || u64::from(point.0[0]) % ONE_IN != 0 {
        return Ok(());
    }
    let number = |disk: usize| u32::try_from(disk).expect("few disks");
    let disks: Vec<_> =
        machine.disks.iter().enumerate().map(|(i, disk)| (number(i), disk.geometry())).collect();
    let layout = Layout::new(0, &disks);
    let mut records: Vec<Record> = Vec::new();
    for (disk, source) in machine.disks.iter().enumerate() {
        let writes = source.histories[boot].writes();
        records.extend(writes.iter().map(|write| record(number(disk), write)));
    }
    records.sort_by_key(|record| record.issued);
    let history = History::new(layout.clone(), Initial::Zeroes, records);
    let history = history.map_err(|error| format!("the oracle refuses the history: {error}"))?;
    let observed = Observed::from_fn(&layout, |unit| {
        let (disk, sector) = (unit.disk as usize, usize::try_from(unit.block).expect("small"));
        seen(&machine.disks[disk].histories[boot], sector, held[disk][sector])
    });
    match oracle::judge(&history, &observed, Window::at(time(at))) {
        Verdict::Valid(_) => Ok(()),
        Verdict::Invalid(why) => Err(format!("the oracle calls point {point:?} invalid: {why}")),
    }
}

fn time(step: Step) -> MonotonicNs {
    MonotonicNs(step.0)
}

fn record(disk: u32, write: &Write) -> Record {
    let request = &write.request;
    let kind = match request.kind {
        MarkKind::Discard | MarkKind::Zeroes => WriteKind::Zeroes,
        MarkKind::Write if request.repeats != request.number => {
            WriteKind::Repeat { of: request.repeats }
        }
        MarkKind::Write => WriteKind::Data,
    };
    let (stream, number, extent) = (request.stream, request.number, request.extent);
    Record {
        issue: Issue { disk, stream, write: number, extent, kind },
        issued: time(write.issued),
        outcome: write.completed.map_or(Outcome::InFlight, |done| Outcome::Completed(time(done))),
    }
}

/// What a sector holds, in the oracle's words.
fn seen(history: &history::History, sector: usize, held: Content) -> Seen {
    if held == Content::ZEROES {
        return Seen::Zeroes;
    }
    let request = history.origin(sector, held).expect("checked before: it was written here");
    let index = u32::try_from(sector as u64 - request.extent.start.0).expect("a short write");
    Seen::Write { stream: request.stream, write: request.repeats, index }
}
