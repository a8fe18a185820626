//! What administrators ask, and the answers.

use anyhow::Result;
use blocks::{ByteLen, DiskId, GapReason};
use crossbeam_channel::Sender;

use super::points::Kind;
use super::resync::Begin;
use super::{Core, memory};
use crate::admin::agent::{Request, Response, Status};
use crate::agent::clock::now;
use crate::agent::disk::{ProtectedDisk, Session};
use crate::agent::link::LinkCommand;
use crate::agent::{protect, status};
use crate::exit::{Exit, Failure};

impl Core {
    pub(super) fn apply_request(&mut self, request: Request, answer: &Sender<Result<Response>>) {
        let response = match request {
            Request::Status => self.status().map(Response::Status),
            Request::Protect { path, only_check } if only_check => {
                protect::check(self, &path).map(|found| Response::Done(protect::words(&found)))
            }
            Request::Protect { path, .. } => {
                match protect::protect(self, &path, answer) {
                    // The target has the last word; it comes with the session's events.
                    Ok(protect::Started::Waiting) => return,
                    Ok(protect::Started::Done(words)) => Ok(Response::Done(words)),
                    Err(error) => Err(error),
                }
            }
            Request::Unprotect { disk } => protect::unprotect(self, &disk).map(Response::Done),
            Request::CreatePoint { app_consistent } => {
                let kind = if app_consistent { Kind::Application } else { Kind::Ordinary };
                return self.ask_for_point(kind, answer);
            }
            Request::Resync { disk, now } => {
                let begin = if now { Begin::AtOnce } else { Begin::InWindow };
                self.ask_for_resync(&disk, begin)
            }
            Request::Verify { disk, rate_bytes } => {
                self.ask_for_verification(&disk, ByteLen(rate_bytes))
            }
            Request::EstimateResync { disk } => {
                return self.estimate_resync(&disk, answer.clone());
            }
            Request::Pause { disk } => self.set_paused(disk.as_deref(), Shipping::Paused),
            Request::Resume { disk } => {
                self.try_again(disk.as_deref());
                if self.disks.is_empty() && disk.is_none() {
                    Ok(Response::Done("trying the target again".into()))
                } else {
                    self.set_paused(disk.as_deref(), Shipping::On)
                }
            }
            Request::DiscardTarget { disk } => self.discard_target(&disk).map(Response::Done),
            Request::Retry => {
                self.try_again(None);
                Ok(Response::Done("trying again".into()))
            }
        };
        // A client that went away does not want the answer.
        drop(answer.send(response));
    }

    fn set_paused(&mut self, wanted: Option<&str>, shipping: Shipping) -> Result<Response> {
        let mut names = Vec::new();
        for disk in self.disks.values_mut().filter(|disk| wanted.is_none_or(|w| disk.is(w))) {
            disk.record.paused = shipping == Shipping::Paused;
            self.state.write_disk(&disk.record)?;
            names.push(disk.name.clone());
        }
        if names.is_empty() {
            let what = wanted.unwrap_or("no disk");
            return Err(Failure::new(Exit::NotFound, format!("{what} is not protected")).into());
        }
        let names = names.join(", ");
        Ok(Response::Done(match shipping {
            Shipping::Paused => format!("{names}: paused; tracking goes on"),
            Shipping::On => format!("{names}: shipping again"),
        }))
    }

    /// A person wants the replica to become what this disk is, whatever it holds of its own.
    fn discard_target(&mut self, wanted: &str) -> Result<String> {
        let found = self.disks.values_mut().find(|disk| disk.is(wanted));
        let Some(disk) = found else {
            let words = format!("{wanted} is not protected");
            return Err(Failure::new(Exit::NotFound, words).into());
        };
        let Session::Refused { replica: Some(line), .. } = disk.session else {
            let words =
                format!("{} and its replica are not at odds; nothing is discarded", disk.name);
            return Err(Failure::new(Exit::WrongState, words).into());
        };
        disk.discard = Some(line);
        let (id, name) = (disk.id, disk.name.clone());
        // All of it is compared, whatever was known to be dirty, and whatever the window says: a
        // person has decided.
        self.open_gap(id, GapReason::Requested);
        self.keep_resync(id)?;
        if let Some(disk) = self.disks.get_mut(&id)
            && let Some(kept) = &mut disk.record.resync
        {
            kept.asked = true;
            self.state.write_disk(&disk.record)?;
        }
        self.try_again(Some(&name));
        Ok(format!("{name}: the replica is compared with it, and follows it again"))
    }

    /// Tries again at once what failed or was refused: of one disk, or of all and the connection.
    fn try_again(&mut self, wanted: Option<&str>) {
        let disks = self.disks.values_mut().filter(|disk| wanted.is_none_or(|w| disk.is(w)));
        disks.for_each(ProtectedDisk::try_at_once);
        self.link.send(LinkCommand::TryNow);
    }

    pub(super) fn status(&mut self) -> Result<Status> {
        // What was asked for before shows at once.
        let ids: Vec<DiskId> = self.disks.keys().copied().collect();
        for id in ids {
            self.settle(id);
            if let Err(error) = self.keep_resync(id) {
                tracing::error!(DISK = %id, "keeping what is due: {error:#}");
            }
        }
        let mut disks = Vec::new();
        for disk in self.disks.values() {
            let (counters, reason) = (disk.tracked.counters()?, self.explain(disk));
            let objective = self.config.policy.points.rpo.duration();
            let view = status::View {
                now: now(),
                objective,
                counters,
                reason,
                window: self.config.resync.window,
                window_opens_in: self.window_opens_in(),
            };
            disks.push(status::of_disk(disk, view));
        }
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Status {
            machine: self.machine.map_or_else(|| "not enrolled".into(), |id| id.to_string()),
            target: self.target.clone(),
            link: self.link_status.clone(),
            disks,
            problems: self.absent.iter().map(|absent| absent.problem.clone()).collect(),
            memory_bytes: memory().0,
            points: self.points.stats.status(),
            link_bytes: self.link.traffic(),
        })
    }
}

/// Whether a disk's epochs are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shipping {
    On,
    Paused,
}
