//! Everything that was written to a disk since the machine started last, and what it explains.
//!
//! Content `w` of a sector is explained at an instant if `w` was issued before it, and no other
//! write that was issued after `w` had completed is itself complete by then: the rule of the
//! point-in-time checker, over one sector. When a machine stops without warning its disk keeps what
//! it keeps, and a new history begins with that.

use blocks::{Extent, MarkKind};

use crate::{
    clock::Step,
    content::{Content, sectors},
};

/// A write, by the order of issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WriteId(pub(crate) usize);

/// What an application asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Who asks; a stream issues its next write after the acknowledgement of the one before.
    pub(crate) stream: u32,
    /// Its number within the stream, and that of the write whose content it has: its own, unless
    /// it puts something back.
    pub(crate) number: u64,
    pub(crate) repeats: u64,
    pub(crate) extent: Extent,
    pub(crate) content: Content,
    pub(crate) kind: MarkKind,
}

/// One write and its times.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) request: Request,
    pub(crate) issued: Step,
    /// When the application was told; never, if the machine stopped first.
    pub(crate) completed: Option<Step>,
}

/// The writes of one disk.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// What the disk held when it began.
    initial: Vec<Content>,
    began: Step,
    writes: Vec<Write>,
    of_sector: Vec<Vec<WriteId>>,
}

impl History {
    pub(crate) fn new(initial: Vec<Content>, began: Step) -> Self {
        let of_sector = vec![Vec::new(); initial.len()];
        Self { initial, began, writes: Vec::new(), of_sector }
    }

    pub(crate) fn issue(&mut self, request: Request, issued: Step) -> WriteId {
        let id = WriteId(self.writes.len());
        self.writes.push(Write { request, issued, completed: None });
        sectors(request.extent).for_each(|sector| self.of_sector[sector].push(id));
        id
    }

    pub(crate) fn complete(&mut self, id: WriteId, completed: Step) {
        self.writes[id.0].completed = Some(completed);
    }

    pub(crate) fn write(&self, id: WriteId) -> &Write {
        &self.writes[id.0]
    }

    /// Whether a sector may hold this content at some instant from `since` on.
    pub(crate) fn explains(&self, sector: usize, seen: Content, since: Step) -> bool {
        self.explains_by(sector, seen, since, Step(u64::MAX))
    }

    /// Whether a sector may hold this content at this very instant.
    pub(crate) fn explains_at(&self, sector: usize, seen: Content, at: Step) -> bool {
        self.explains_by(sector, seen, at, at)
    }

    fn explains_by(&self, sector: usize, seen: Content, since: Step, by: Step) -> bool {
        let writes = || self.of_sector[sector].iter().map(|id| &self.writes[id.0]);
        let superseded = |settled: Step| {
            writes().any(|later| {
                later.issued > settled && later.completed.is_some_and(|done| done < since)
            })
        };
        let by_write = writes()
            .rev()
            .filter(|write| write.request.content == seen && write.issued <= by)
            .any(|write| write.completed.is_none_or(|settled| !superseded(settled)));
        by_write || (self.initial[sector] == seen && !superseded(self.began))
    }

    /// Whether a sector held this content at any time.
    pub(crate) fn ever(&self, sector: usize, seen: Content) -> bool {
        self.initial[sector] == seen
            || self.of_sector[sector].iter().any(|id| self.writes[id.0].request.content == seen)
    }

    /// All writes, by issue.
    pub(crate) fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// A request that gave a sector this content.
    pub(crate) fn origin(&self, sector: usize, seen: Content) -> Option<&Request> {
        let mut requests = self.of_sector[sector].iter().map(|id| &self.writes[id.0].request);
        requests.find(|request| request.content == seen)
    }

    /// The newest acknowledged write of a sector, for people.
    pub(crate) fn newest(&self, sector: usize) -> Option<&Write> {
        let acknowledged = |write: &&Write| write.completed.is_some();
        self.of_sector[sector].iter().rev().map(|id| &self.writes[id.0]).find(acknowledged)
    }
}
