//! A target that was taken over, keys and all: what it says is garbage, impossible, or a lie that
//! can be told from the truth. The agent leaves it, lives on, and has forgotten no write: when the
//! path leads to the honest target again, the replica becomes the disk, byte for byte.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, DiskId, Epoch, Generation, MachineId, Ticket};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use vm_tests::{Rig, Site};
use wire::close::Detail;
use wire::message::{
    DiskOpened, EpochFailed, Features, Hashes, MessageDecoder, ReplicaState, RequestId, Welcome,
};
use wire::session::WINDOW_MIN;
use wire::{AgentMessage, Reason, TargetMessage};

use crate::bystander::{Bystander, PATIENCE, memory_peak, site};

/// What an agent may need at most, in KiB: its buffer pool, the connection's windows, the runtime.
const MEMORY_MAX_KIB: u64 = 512 << 10;
/// Lies from one visit to the honest target to the next.
const LIES_A_ROUND: usize = 4;
const STREAM_WINDOW: u32 = 64 << 10;

/// How far the impostor plays along before it lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Hello,
    Welcome,
    /// A disk was asked for and is open.
    Opening,
    /// A part of an epoch has come, and not its end.
    Part,
}

/// What the impostor knows when it lies.
struct Known {
    disk: DiskId,
    generation: Generation,
    /// The epoch under way, or the one it said is durable.
    epoch: Epoch,
}

struct Lie {
    name: &'static str,
    after: After,
    /// Nothing, of one that stops listening.
    tell: fn(&Known) -> Vec<u8>,
}

const fn lie(name: &'static str, after: After, tell: fn(&Known) -> Vec<u8>) -> Lie {
    Lie { name, after, tell }
}

use After::{Hello, Opening, Part};

static LIES: [Lie; 21] = [
    lie("noise instead of a welcome", Hello, |_| vec![0xa5; 4096]),
    lie("a message of 4 GiB", Hello, |_| vec![0xff; 64]),
    lie("a version nobody offered", Hello, |_| welcome(9, WINDOW_MIN, 0)),
    lie("a feature nobody offered", Hello, |_| welcome(1, WINDOW_MIN, 1 << 63)),
    lie("no window", Hello, |_| welcome(1, ByteLen(0), 0)),
    lie("an open disk before the welcome", Hello, |_| opened(DISK, GENERATION, Epoch(1))),
    lie("a second welcome", After::Welcome, |_| welcome(1, WINDOW_MIN, 0)),
    lie("a disk nobody asked for", After::Welcome, |_| opened(DISK, GENERATION, Epoch(1))),
    lie("another generation", After::Welcome, |it| opened(it.disk, GENERATION, Epoch(1))),
    lie("an epoch that none can follow", After::Welcome, |it| {
        opened(it.disk, it.generation, Epoch(u64::MAX))
    }),
    lie("an agent's own words", Opening, |_| AgentMessage::Ping(1).encode().to_vec()),
    lie("hashes of nothing", Opening, |it| {
        let (disk, request) = (it.disk, RequestId(7));
        let hashes = Hashes { disk, request, first_block: 0, hashes: vec![[0; 32]; 4096] };
        TargetMessage::Hashes(hashes).encode().to_vec()
    }),
    lie("an epoch that was never sent", Opening, |it| durable(it.disk, Epoch(1 << 40))),
    lie("a failure of the future", Opening, |it| {
        let (code, detail) = (Reason::StoreFull.into(), Detail::default());
        let failed = EpochFailed { disk: it.disk, epoch: Epoch(1 << 40), code, detail };
        TargetMessage::EpochFailed(failed).encode().to_vec()
    }),
    lie("a disk that nobody closed", Opening, |it| {
        TargetMessage::DiskClosed { disk: it.disk }.encode().to_vec()
    }),
    lie("a million pongs and a lie", Opening, |it| {
        let pongs = TargetMessage::Pong(1).encode().repeat(1 << 20);
        [pongs, durable(it.disk, Epoch(1 << 40))].concat()
    }),
    lie("a deaf ear, on a connection that is kept alive", Opening, |_| Vec::new()),
    lie("credit for an epoch that is not there", Opening, |it| credit(it.disk, Epoch(1 << 40), 1)),
    lie("more credit than was sent", Part, |it| credit(it.disk, it.epoch, u64::MAX)),
    lie("half an epoch is durable", Part, |it| durable(it.disk, it.epoch)),
    lie("the epoch after it is durable", Part, |it| durable(it.disk, it.epoch.next())),
];

const DISK: DiskId = DiskId([0x44; 16]);
const GENERATION: Generation = Generation([0x44; 16]);

fn welcome(version: u16, window: ByteLen, features: u64) -> Vec<u8> {
    let (features, target) = (Features(features), MachineId([5; 16]));
    TargetMessage::Welcome(Welcome { version, features, target, window }).encode().to_vec()
}

fn opened(disk: DiskId, generation: Generation, last_durable: Epoch) -> Vec<u8> {
    opened_for(disk, generation, last_durable, Ticket { number: 1, secret: [1; 16] })
}

/// Opened as the honest target would: with a ticket of which it knows.
fn opened_for(
    disk: DiskId,
    generation: Generation,
    last_durable: Epoch,
    ticket: Ticket,
) -> Vec<u8> {
    let (confirmed, state) = (Epoch::NONE, ReplicaState::Follows);
    let opened = DiskOpened { disk, generation, last_durable, confirmed, state, ticket };
    TargetMessage::DiskOpened(opened).encode().to_vec()
}

fn durable(disk: DiskId, epoch: Epoch) -> Vec<u8> {
    TargetMessage::EpochDurable { disk, epoch }.encode().to_vec()
}

fn credit(disk: DiskId, epoch: Epoch, bytes: u64) -> Vec<u8> {
    TargetMessage::Credit { disk, epoch, consumed: ByteLen(bytes) }.encode().to_vec()
}

/// Both directions of the control stream, and the stream of an epoch that was begun.
type Streams = (SendStream, RecvStream, Option<RecvStream>);

/// Where the path leads in place of the site's target, with its keys.
struct Impostor {
    runtime: Runtime,
    endpoint: Endpoint,
    /// What it says is durable: what the honest target holds.
    durable: Epoch,
}

impl Impostor {
    fn start(site: &Site, durable: Epoch) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let tls = tls(&site.store().join("pki"))?;
        let crypto = QuicServerConfig::try_from(tls)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        // Small, so that an epoch that nobody reads is never sent whole.
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(STREAM_WINDOW.into());
        server.transport_config(Arc::new(transport));
        let anywhere = (Ipv4Addr::LOCALHOST, 0).into();
        let endpoint = runtime.block_on(async { Endpoint::server(server, anywhere) })?;
        Ok(Self { runtime, endpoint, durable })
    }

    fn address(&self) -> Result<SocketAddr> {
        self.endpoint.local_addr().context("the impostor's address")
    }

    /// Lies to the agent that comes, and waits until it has had enough.
    fn lie(&self, lie: &Lie) -> Result<()> {
        let lying = async {
            let incoming = self.endpoint.accept().await.context("the endpoint is open")?;
            let connection = incoming.await?;
            // To drop the streams would end the session, or the epoch, and hide what the lie does.
            let _streams = self.converse(&connection, lie).await?;
            // An agent that believed it would keep the connection alive. How it ended does not matter:
            // the last datagram of one that was left may be lost.
            connection.closed().await;
            anyhow::Ok(())
        };
        let lied = self.runtime.block_on(async { timeout(PATIENCE, lying).await });
        lied.context("the agent keeps listening")?
    }

    /// Lies, and hands out the streams, read as far as that took.
    async fn converse(&self, connection: &Connection, lie: &Lie) -> Result<Streams> {
        let mut unread = None;
        let (mut send, mut receive) = connection.accept_bi().await?;
        let mut decoder = MessageDecoder::new();
        let mut known = Known { disk: DISK, generation: GENERATION, epoch: self.durable };
        loop {
            while let Some(envelope) = decoder.next_message()? {
                match AgentMessage::decode(&envelope)? {
                    AgentMessage::Hello(_) if lie.after == Hello => {
                        send.write_all(&(lie.tell)(&known)).await?;
                        return Ok((send, receive, unread));
                    }
                    AgentMessage::Hello(_) => {
                        send.write_all(&welcome(1, WINDOW_MIN, 0)).await?;
                    }
                    AgentMessage::OpenDisk(open) => {
                        known = Known { disk: open.disk, generation: open.generation, ..known };
                        if lie.after == After::Welcome {
                            send.write_all(&(lie.tell)(&known)).await?;
                            return Ok((send, receive, unread));
                        }
                        let ticket = open.origin.claim.ticket;
                        let answer = opened_for(open.disk, open.generation, self.durable, ticket);
                        send.write_all(&answer).await?;
                        if lie.after == Part {
                            let (epoch, stream) = part_of_an_epoch(connection).await?;
                            (known.epoch, unread) = (epoch, Some(stream));
                        }
                        let words = (lie.tell)(&known);
                        if words.is_empty() {
                            receive.stop(VarInt::from_u32(0))?;
                        }
                        // What follows is for the agent to judge; it may be gone already.
                        drop(send.write_all(&words).await);
                        return Ok((send, receive, unread));
                    }
                    _ => {}
                }
            }
            let chunk = receive.read_chunk(1 << 16, true).await?.context("the agent hung up")?;
            decoder.push(&chunk.bytes);
        }
    }
}

/// Takes the header of the first frame that comes, and reads no more.
async fn part_of_an_epoch(connection: &Connection) -> Result<(Epoch, RecvStream)> {
    let mut stream = connection.accept_uni().await?;
    let mut header = [0; wire::frame::HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let epoch = wire::FrameHeader::parse(&header)?.epoch;
    Ok((epoch, stream))
}

fn tls(pki: &Path) -> Result<rustls::ServerConfig> {
    let chain = CertificateDer::pem_file_iter(pki.join("target.pem"))?;
    let key = PrivateKeyDer::from_pem_file(pki.join("target.key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain.collect::<Result<_, _>>()?, key)?;
    tls.alpn_protocols = vec![wire::ALPN_DATA.to_vec()];
    Ok(tls)
}

/// Lies to an agent that has just started: one that was lied to waits before it tries again, or for a
/// person. Each lie is told at a new end of the path, to which only this agent comes.
fn lie_to(site: &mut Site, durable: Epoch, lie: &Lie) -> Result<()> {
    site.agent.kill_9()?;
    let impostor = Impostor::start(site, durable)?;
    site.relay.lead_to(impostor.address()?);
    site.agent.restart()?;
    let id = site.agent.id();
    impostor.lie(lie)?;
    site.wait_for_agent()?;
    ensure!(site.agent.ended()?.is_none() && site.agent.id() == id, "the agent has ended");
    let peak = memory_peak(id)?;
    ensure!(peak < MEMORY_MAX_KIB, "the agent needed {peak} KiB");
    Ok(())
}

#[test]
fn an_agent_outlives_every_lie_of_its_target_and_forgets_nothing() -> Result<()> {
    let Some(rig) = Rig::start()? else { return Ok(()) };
    let mut bystander = Bystander::create(&rig)?;
    let mut site = site(&rig, None)?;
    bystander.begin(&rig, &site)?;
    let name = bystander.name().to_owned();
    site.wait_for_epochs(&name, 2, PATIENCE)?;
    for lies in LIES.chunks(LIES_A_ROUND) {
        site.target.stop(Duration::from_secs(20))?;
        let held = site.disk(&name)?["epoch"].as_u64().context("an epoch")?;
        for lie in lies {
            lie_to(&mut site, Epoch(held), lie)
                .with_context(|| format!("{}\n{}", lie.name, site.logs()))?;
        }
        ensure!(!site.agent.log()?.contains("panicked"), "{}", site.logs());
        // The honest one again, and an agent that does not wait.
        site.target.restart()?;
        site.relay.lead_to(site.listen);
        site.agent.kill_9()?;
        site.agent.restart()?;
        site.wait_for_agent()?;
        site.wait_for_epochs(&name, 2, PATIENCE).with_context(|| site.logs())?;
    }
    bystander.end_with_gaps(&site)
}
