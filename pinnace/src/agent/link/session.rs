//! One connection, from hello to its end: moves bytes and events between QUIC, the sans-I/O
//! session and the core.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use blocks::{DiskId, Epoch};
use control::FailureClass;
use crossbeam_channel::Sender;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;
use tracker::Replica;
use wire::message::{Features, Forget, Leaves, ReplicaState, RequestId, VersionRange};
use wire::session::{SourceConfig, SourceEvent, SourceSession};
use wire::{Reason, Text};

use super::epoch::{self, FromEpoch, Waiting};
use super::{Ended, Link, LinkCommand, LinkEvent, Opened, Tell, Traffic, class_of, ended};
use crate::admin::agent::LinkBytes;

/// Control bytes read at once.
const CONTROL_READ: usize = 64 << 10;

/// A connection with its session.
pub(super) struct Session<'a> {
    connection: &'a Connection,
    tell: &'a Tell,
    /// Where what the connection carries is counted, and what was counted so far.
    traffic: (&'a Traffic, LinkBytes),
    session: SourceSession,
    control: (SendStream, RecvStream),
    /// The senders of epochs talk to the session through this.
    epochs: (mpsc::Sender<FromEpoch>, mpsc::Receiver<FromEpoch>),
    /// The epochs on their way, a frame that waits for room in each.
    ///
    /// Only a disk's oldest gets room: its frames are consumed without fail, while those of a
    /// later one may have to wait for it at the target, and would hold the room it needs.
    sending: BTreeMap<DiskId, BTreeMap<Epoch, Option<Waiting>>>,
    hashes: BTreeMap<RequestId, Sender<Vec<[u8; 32]>>>,
    leaves: BTreeMap<RequestId, Sender<Leaves>>,
}

impl<'a> Session<'a> {
    /// Opens the control stream; the hello is the first thing on it.
    pub(super) async fn open(connection: &'a Connection, link: &'a Link) -> Result<Self> {
        let session = SourceSession::new(SourceConfig {
            machine: link.machine,
            build: Text::lossy(concat!("pinnace ", env!("CARGO_PKG_VERSION"))),
            versions: VersionRange::SUPPORTED,
            features: Features::SUPPORTED,
        });
        Ok(Self {
            connection,
            tell: &link.tell,
            traffic: (&link.traffic, LinkBytes::default()),
            session,
            control: connection.open_bi().await?,
            epochs: mpsc::channel(64),
            sending: BTreeMap::new(),
            hashes: BTreeMap::new(),
            leaves: BTreeMap::new(),
        })
    }

    /// Serves until the connection ends.
    pub(super) async fn serve(
        mut self,
        commands: &mut mpsc::UnboundedReceiver<LinkCommand>,
    ) -> Ended {
        loop {
            let over = self.pump().await;
            self.traffic.0.note(self.connection, &mut self.traffic.1);
            if let Some(over) = over {
                return over;
            }
            tokio::select! {
                read = self.control.1.read_chunk(CONTROL_READ, true) => match read {
                    Ok(Some(chunk)) => self.session.handle_control(&chunk.bytes),
                    Ok(None) => {
                        let words = "the target ended the session".into();
                        return Ended::Failed(FailureClass::Passing, words);
                    }
                    Err(error) => return self.lost(&error),
                },
                command = commands.recv() => match command {
                    None | Some(LinkCommand::Stop) => return Ended::Stopped,
                    Some(LinkCommand::Reconnect) => return Ended::Replaced,
                    Some(command) => self.command(command),
                },
                Some(told) = self.epochs.1.recv() => self.told(told),
            }
        }
    }

    /// Sends what the session has to say, tells the core what it was told, grants room.
    async fn pump(&mut self) -> Option<Ended> {
        while let Some(bytes) = self.session.poll_transmit() {
            if let Err(error) = self.control.0.write_all(&bytes).await {
                return Some(self.lost(&error));
            }
        }
        while let Some(event) = self.session.poll_event() {
            if let Some(ended) = self.event(event) {
                return Some(ended);
            }
        }
        self.grant();
        None
    }

    /// The control stream is gone, with the connection or without it: a target may stop the one and
    /// keep the other alive, so nobody waits for that to end.
    fn lost(&self, error: &dyn std::error::Error) -> Ended {
        match self.connection.close_reason() {
            Some(reason) => ended(&anyhow!(reason)),
            None => Ended::Failed(FailureClass::Passing, format!("the session broke off: {error}")),
        }
    }

    fn event(&mut self, event: SourceEvent) -> Option<Ended> {
        match event {
            SourceEvent::Welcomed(welcome) => {
                tracing::info!(TARGET_ID = %welcome.target, version = welcome.version, "connected");
                (self.tell)(LinkEvent::Up { features: welcome.features });
            }
            SourceEvent::Opened(opened) => (self.tell)(LinkEvent::Opened(Opened {
                disk: opened.disk,
                durable: opened.last_durable,
                confirmed: opened.confirmed,
                replica: match opened.state {
                    ReplicaState::Empty => Replica::Empty,
                    ReplicaState::Partial => Replica::Partial,
                    ReplicaState::Follows => Replica::Follows,
                },
                ticket: opened.ticket,
            })),
            SourceEvent::Refused(refused) => {
                let (disk, code) = (refused.disk, refused.code);
                (self.tell)(LinkEvent::Refused {
                    disk,
                    code,
                    detail: refused.detail.as_str().into(),
                    replica: refused.replica,
                });
            }
            SourceEvent::Durable { disk, epoch } => (self.tell)(LinkEvent::Durable { disk, epoch }),
            SourceEvent::Failed(failed) => (self.tell)(LinkEvent::Failed {
                disk: failed.disk,
                epoch: failed.epoch,
                code: failed.code,
                detail: failed.detail.as_str().into(),
            }),
            SourceEvent::Hashes(hashes) => {
                if let Some(answer) = self.hashes.remove(&hashes.request) {
                    // A comparison that was cancelled no longer wants them.
                    drop(answer.send(hashes.hashes));
                }
            }
            SourceEvent::Leaves(leaves) => {
                if let Some(answer) = self.leaves.remove(&leaves.request) {
                    drop(answer.send(leaves));
                }
            }
            SourceEvent::Credited { .. }
            | SourceEvent::DiskClosed { .. }
            | SourceEvent::Pong(_) => {}
            SourceEvent::Closed { code, detail } => {
                self.connection.close(code.number().into(), detail.as_str().as_bytes());
                let words = format!("{code} {}", detail.as_str()).trim_end().to_owned();
                return Some(Ended::Failed(class_of(code), words));
            }
        }
        None
    }

    fn command(&mut self, command: LinkCommand) {
        match command {
            LinkCommand::Open(open) => self.note(|session| session.open_disk(*open)),
            LinkCommand::Ship { disk, epoch: link, frames } => {
                let epoch = link.epoch;
                // Refused if the disk was closed meanwhile, or if the core has not heard yet what
                // became of the epochs before: dropping the frames cancels.
                match self.session.begin_sealed(disk, link) {
                    Ok(()) => {
                        self.sending.entry(disk).or_default().insert(epoch, None);
                        let (connection, told) = (self.connection.clone(), self.epochs.0.clone());
                        tokio::spawn(epoch::send(connection, (disk, epoch), frames, told));
                    }
                    Err(error) => {
                        tracing::debug!(DISK = %disk, %error, "an epoch that is not sent");
                        let (code, detail) = (Reason::EpochAborted.into(), error.to_string());
                        (self.tell)(LinkEvent::Failed { disk, epoch, code, detail });
                    }
                }
            }
            LinkCommand::Hashes { disk, first_block, count, answer } => {
                match self.session.request_hashes(disk, first_block, count) {
                    Ok(request) => drop(self.hashes.insert(request, answer)),
                    // Dropping the answer tells the comparison.
                    Err(error) => tracing::debug!(DISK = %disk, %error, "no hashes"),
                }
            }
            LinkCommand::Leaves { disk, from, blocks, answer } => {
                match self.session.request_leaves(disk, from, blocks) {
                    Ok(request) => drop(self.leaves.insert(request, answer)),
                    Err(error) => tracing::debug!(DISK = %disk, %error, "no hashes"),
                }
            }
            LinkCommand::ConfirmPoints { disk, through } => {
                self.note(|session| session.confirm_points(disk, through));
            }
            LinkCommand::RetractPoints(retract) => {
                self.note(|session| session.retract_points(retract));
            }
            LinkCommand::Close { disk } => {
                self.note(|session| session.close_disk(disk, Forget::Keep));
            }
            LinkCommand::Reconnect | LinkCommand::TryNow | LinkCommand::Stop => {}
        }
    }

    fn told(&mut self, told: FromEpoch) {
        match told {
            FromEpoch::Wants { disk, epoch, waiting } => {
                self.sending.entry(disk).or_default().insert(epoch, Some(waiting));
            }
            FromEpoch::Shipped { disk, report } => {
                self.no_longer_sending(disk, report.epoch);
                (self.tell)(LinkEvent::Shipped { disk, report });
            }
            FromEpoch::Broken { disk, epoch, why } => {
                tracing::warn!(DISK = %disk, EPOCH = epoch.0, why, "an epoch broke off");
                self.no_longer_sending(disk, epoch);
                // The target answers that it failed; that answer reaches the core.
                self.note(|session| session.abort_epoch(disk, epoch));
            }
        }
    }

    /// Lets frames go while there is room for them.
    fn grant(&mut self) {
        for (disk, sending) in &mut self.sending {
            let Some((epoch, waiting)) = sending.iter_mut().next() else { continue };
            let room = self.session.room(*disk);
            if let Some(next) = waiting.take_if(|next| next.len <= room) {
                self.session.handle_sending(*disk, *epoch, next.len);
                if next.is_end {
                    self.session.handle_ending(*disk, *epoch);
                    // Before it goes, so before anybody can say in truth that he has it.
                    (self.tell)(LinkEvent::Ending { disk: *disk, epoch: *epoch });
                }
                // A sender that has given up meanwhile has reset its stream.
                let _ = next.granted.send(());
            }
        }
    }

    fn no_longer_sending(&mut self, disk: DiskId, epoch: Epoch) {
        if let Some(sending) = self.sending.get_mut(&disk) {
            sending.remove(&epoch);
        }
    }

    /// Does what a command asks, if the session's state still allows it.
    fn note<T, E: std::fmt::Display>(
        &mut self,
        ask: impl FnOnce(&mut SourceSession) -> Result<T, E>,
    ) {
        if let Err(error) = ask(&mut self.session) {
            tracing::debug!(%error, "a command that came too late");
        }
    }
}
