//! The connection to the target: a thin shell around [`wire::SourceSession`].
//!
//! One task owns the session. Epochs are sent by a task each ([`epoch`]), which asks for room
//! before every frame. Towards the core there are two queues: commands come in, events go out.
//! A lost connection is tried again as [`control::Retry`] says; one that was refused for a reason
//! that only a person can change, when a person says so.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result};
use blocks::{DiskId, Epoch, Generation, MachineId, Ticket};
use control::{FailureClass, Next, Retry};
use crossbeam_channel::{Receiver, Sender};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint, TransportErrorCode};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use shipper::{
    BlockRange, HashSource, HashSourceError, LeafSource, ReplicaHashes, ShipOutput, ShipReport,
};
use tokio::sync::mpsc;
use tracker::Replica;
use wire::message::{Features, HashedFrom, Leaves, OpenDisk, RetractPoints};
use wire::{CloseCode, EpochLink, Reason};

use super::state::{AgentState, MachineIdentity};
use super::trouble::{class_of, spread};
use crate::admin::agent::LinkBytes;
use crate::exit::{Exit, Failure};
use crate::pki::{self, Identity, TARGET_NAME};
use crate::quic;

mod epoch;
mod session;

/// A connection that lasted this long is worth an attempt at once when it breaks.
const LASTED: Duration = Duration::from_secs(20);

/// What the core wants of the connection.
pub(super) enum LinkCommand {
    /// Replicate a disk.
    Open(Box<OpenDisk>),
    /// Send an epoch.
    Ship { disk: DiskId, epoch: EpochLink, frames: Receiver<ShipOutput> },
    /// Ask for hashes of the replica.
    Hashes { disk: DiskId, first_block: u64, count: u32, answer: Sender<Vec<[u8; 32]>> },
    /// Ask for hashes of leaves of the replica.
    Leaves { disk: DiskId, from: HashedFrom, blocks: Vec<u64>, answer: Sender<Leaves> },
    /// Points up to that of an epoch may be relied on.
    ConfirmPoints { disk: DiskId, through: Epoch },
    /// Points may lack writes.
    RetractPoints(RetractPoints),
    /// Stop replicating a disk; the target keeps what it has.
    Close { disk: DiskId },
    /// Begin a new session on a new connection.
    Reconnect,
    /// If there is no connection, try at once.
    TryNow,
    /// Close the connection in order.
    Stop,
}

/// What the connection tells the core.
pub(super) enum LinkEvent {
    /// The target has welcomed us; this is what both ends are able to do.
    Up {
        features: Features,
    },
    /// The connection is lost; it is tried again after this time.
    Down {
        reason: String,
        again: Duration,
    },
    /// The target refuses this machine, and is not asked again before a person says so.
    Denied {
        reason: String,
    },
    Opened(Opened),
    /// `replica` is the line that the replica is in, if the reason is that it is not the source's.
    Refused {
        disk: DiskId,
        code: CloseCode,
        detail: String,
        replica: Option<Generation>,
    },
    /// All of an epoch but its end is on its way, and the end follows.
    Ending {
        disk: DiskId,
        epoch: Epoch,
    },
    Shipped {
        disk: DiskId,
        report: ShipReport,
    },
    Durable {
        disk: DiskId,
        epoch: Epoch,
    },
    Failed {
        disk: DiskId,
        epoch: Epoch,
        code: CloseCode,
        detail: String,
    },
}

/// A disk that the target has opened, and how far its replica has come.
pub(super) struct Opened {
    pub(super) disk: DiskId,
    pub(super) durable: Epoch,
    pub(super) confirmed: Epoch,
    pub(super) replica: Replica,
    pub(super) ticket: Ticket,
}

/// How the link tells its owner what happened. Never blocks.
pub(super) type Tell = Box<dyn Fn(LinkEvent) + Send + Sync>;

/// The core's end of the queue of commands.
#[derive(Clone)]
pub(super) struct LinkSender(mpsc::UnboundedSender<LinkCommand>, Arc<Traffic>);

/// Bytes of datagrams of all connections so far.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Takes what a connection has carried since it was looked at before.
    fn note(&self, connection: &quinn::Connection, before: &mut LinkBytes) {
        let stats = connection.stats();
        let now = LinkBytes { sent: stats.udp_tx.bytes, received: stats.udp_rx.bytes };
        self.sent.fetch_add(now.sent.saturating_sub(before.sent), Relaxed);
        self.received.fetch_add(now.received.saturating_sub(before.received), Relaxed);
        *before = now;
    }
}

impl LinkSender {
    /// Never blocks. What is sent while the connection is down is dropped, and with it the
    /// receivers in it, which cancels the shipment.
    pub(super) fn send(&self, command: LinkCommand) {
        // The link ends only with the agent.
        drop(self.0.send(command));
    }

    /// What the connection has carried so far.
    pub(super) fn traffic(&self) -> LinkBytes {
        LinkBytes { sent: self.1.sent.load(Relaxed), received: self.1.received.load(Relaxed) }
    }

    /// Where a comparison of `disk` has the replica's hashes from.
    pub(super) fn replica_hashes(&self, disk: DiskId, features: Features) -> ReplicaHashes {
        let leaves = features.contain(Features::LEAVES).then(|| self.leaves(disk));
        ReplicaHashes { blocks: self.hashes(disk), leaves }
    }

    fn leaves(&self, disk: DiskId) -> LeafSource {
        let link = self.clone();
        Box::new(move |blocks: &[u64]| {
            let leaves = link.ask_for_leaves(disk, HashedFrom::Kept, blocks.to_vec());
            let leaves = leaves.ok_or("the connection to the target was lost")?;
            Ok(leaves.blocks.into_iter().map(|block| block.hashes).collect())
        })
    }

    /// Waits for hashes of leaves; nothing if they can't be had.
    pub(super) fn ask_for_leaves(
        &self,
        disk: DiskId,
        from: HashedFrom,
        blocks: Vec<u64>,
    ) -> Option<Leaves> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.0.send(LinkCommand::Leaves { disk, from, blocks, answer }).ok()?;
        answered.recv().ok()
    }

    fn hashes(&self, disk: DiskId) -> HashSource {
        let commands = self.0.clone();
        Box::new(move |range: BlockRange| {
            let (answer, answered) = crossbeam_channel::bounded(1);
            let lost = || HashSourceError::from("the connection to the target was lost");
            let command =
                LinkCommand::Hashes { disk, first_block: range.first, count: range.count, answer };
            commands.send(command).map_err(|_| lost())?;
            answered.recv().map_err(|_| lost())
        })
    }
}

/// The address of a target given as HOST:PORT.
pub(super) fn resolve(target: &str) -> Result<SocketAddr> {
    let bad = |why: String| Failure::new(Exit::Usage, format!("{target} is not HOST:PORT: {why}"));
    let mut found = target.to_socket_addrs().map_err(|error| bad(error.to_string()))?;
    Ok(found.next().ok_or_else(|| bad("no such host".into()))?)
}

/// Starts the link's thread. It ends after [`LinkCommand::Stop`].
pub(super) fn start(
    state: &AgentState,
    identity: MachineIdentity,
    retry_longest: Duration,
    tell: Tell,
) -> Result<(LinkSender, std::thread::JoinHandle<()>)> {
    let (sender, commands) = mpsc::unbounded_channel();
    let traffic = Arc::<Traffic>::default();
    let machine = identity.machine.parse().context("this machine's identity")?;
    let link = Link {
        target: identity.target,
        machine,
        pki: state.pki(),
        retry_longest,
        tell,
        traffic: Arc::clone(&traffic),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("link")
        .enable_all()
        .build()?;
    let run = move || runtime.block_on(link.run(commands));
    let thread = std::thread::Builder::new().name("link-main".into()).spawn(run)?;
    Ok((LinkSender(sender, traffic), thread))
}

/// The link of a machine that has not enrolled: whatever is sent goes nowhere.
pub(super) fn unconnected() -> LinkSender {
    LinkSender(mpsc::unbounded_channel().0, Arc::default())
}

/// What one task needs to connect and stay connected.
struct Link {
    target: String,
    machine: MachineId,
    pki: std::path::PathBuf,
    retry_longest: Duration,
    tell: Tell,
    traffic: Arc<Traffic>,
}

/// How a connection ended, or the attempt to make one.
enum Ended {
    Stopped,
    /// A new one is wanted in its place.
    Replaced,
    Failed(FailureClass, String),
}

/// How a wait for the next attempt ended.
enum Waited {
    Stopped,
    Over,
    /// A person does not want to wait.
    CutShort,
}

impl Link {
    async fn run(self, mut commands: mpsc::UnboundedReceiver<LinkCommand>) {
        let mut retry = Retry::new(self.retry_longest);
        loop {
            let began = tokio::time::Instant::now();
            let ended = self.connect_and_serve(&mut commands).await;
            if began.elapsed() >= LASTED {
                retry.handle_success();
            }
            let next = match ended {
                Ended::Stopped => return,
                Ended::Replaced => {
                    let reason = "a new session is wanted".to_owned();
                    (self.tell)(LinkEvent::Down { reason, again: Duration::ZERO });
                    continue;
                }
                Ended::Failed(class, reason) => {
                    let next = retry.handle_failure(class, spread());
                    (self.tell)(match next {
                        Next::After(again) => LinkEvent::Down { reason, again },
                        Next::AskAPerson => LinkEvent::Denied { reason },
                    });
                    next
                }
            };
            match wait(&mut commands, next).await {
                Waited::Stopped => return,
                Waited::CutShort => retry.handle_success(),
                Waited::Over => {}
            }
        }
    }

    async fn connect_and_serve(
        &self,
        commands: &mut mpsc::UnboundedReceiver<LinkCommand>,
    ) -> Ended {
        let (endpoint, connection) = match self.connect().await {
            Ok(connected) => connected,
            Err(error) => return ended(&error),
        };
        let ended = match session::Session::open(&connection, self).await {
            Ok(session) => session.serve(commands).await,
            Err(error) => ended(&error),
        };
        connection.close(CloseCode::from(wire::Reason::Done).number().into(), b"");
        endpoint.wait_idle().await;
        ended
    }

    async fn connect(&self) -> Result<(Endpoint, quinn::Connection)> {
        let address = resolve(&self.target)?;
        // Read each time: enrolling again replaces them.
        let identity = Identity::read(&self.pki, "machine")?;
        let ca = self.pki.join("ca.pem");
        let ca = CertificateDer::from_pem_file(&ca)
            .with_context(|| format!("reading {}", ca.display()))?;
        let tls = pki::agent_config(identity, &ca)?;
        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        client.transport_config(quic::transport());
        let endpoint = quic::client_endpoint(address)?;
        let connection = endpoint.connect_with(client, address, TARGET_NAME)?.await?;
        Ok((endpoint, connection))
    }
}

/// Waits until the next attempt, dropping what the core still asks of the old connection.
async fn wait(commands: &mut mpsc::UnboundedReceiver<LinkCommand>, next: Next) -> Waited {
    let interrupted = async {
        loop {
            match commands.recv().await {
                None | Some(LinkCommand::Stop) => return Waited::Stopped,
                Some(LinkCommand::TryNow) => return Waited::CutShort,
                Some(_) => {}
            }
        }
    };
    match next {
        Next::AskAPerson => interrupted.await,
        Next::After(wait) => tokio::time::timeout(wait, interrupted).await.unwrap_or(Waited::Over),
    }
}

/// Classes an error of the connection by the reason that the other side gave, if it gave one.
fn ended(error: &anyhow::Error) -> Ended {
    let by_tls = |code, words: String| match tls_alert(code) {
        true => {
            let words = format!("{words}; `pinnace agent enroll` gets a new certificate.");
            Ended::Failed(class_of(Reason::NotAuthenticated.into()), words)
        }
        false => Ended::Failed(FailureClass::Passing, words),
    };
    match error.downcast_ref::<ConnectionError>() {
        Some(ConnectionError::ApplicationClosed(close)) => {
            let number = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
            let code = CloseCode::from_number(number);
            let words = format!("{code} {}", String::from_utf8_lossy(&close.reason));
            Ended::Failed(class_of(code), words.trim_end().to_owned())
        }
        // What we make of the target's certificate, and what it makes of ours.
        Some(ConnectionError::TransportError(ours)) => by_tls(ours.code, ours.to_string()),
        Some(ConnectionError::ConnectionClosed(theirs)) => {
            by_tls(theirs.error_code, theirs.to_string())
        }
        _ => Ended::Failed(FailureClass::Passing, format!("{error:#}")),
    }
}

/// Whether TLS ended the connection: a certificate that is expired, unknown or missing. QUIC keeps
/// the codes from 0x100 to 0x1ff for TLS alerts (RFC 9001, section 4.8).
fn tls_alert(code: TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}
