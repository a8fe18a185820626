//! A client that says what it likes, over real QUIC, with whatever certificate it has.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use blocks::MachineId;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use vm_tests::Site;
use wire::message::{Features, OpenDisk, VersionRange};
use wire::session::{SourceConfig, SourceEvent, SourceSession};
use wire::{CloseCode, Text};

/// The name that a target's certificate has.
const TARGET_NAME: &str = "target.pinnace";
/// How long the target may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What a client shows of itself: a chain and its key, or nothing.
pub(crate) type Credentials = Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>;

/// The credentials in a machine's state directory.
pub(crate) fn credentials(state: &Path) -> Result<Credentials> {
    let chain = CertificateDer::pem_file_iter(state.join("pki/machine.pem"))?;
    let key = PrivateKeyDer::from_pem_file(state.join("pki/machine.key"))?;
    Ok(Some((chain.collect::<Result<_, _>>()?, key)))
}

/// The identity in a machine's state directory.
pub(crate) fn machine(state: &Path) -> Result<MachineId> {
    let identity = fs::read(state.join("identity.json")).context("reading an identity")?;
    let identity: serde_json::Value = serde_json::from_slice(&identity)?;
    Ok(identity["machine"].as_str().context("an identity names its machine")?.parse()?)
}

/// How a data stream ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Finished,
    LeftOpen,
}

/// A connection to a target, and what it says there.
pub(crate) struct Stranger {
    runtime: Runtime,
    connection: Connection,
    control: (SendStream, RecvStream),
    session: SourceSession,
    /// Streams that are left open, so that dropping them does not end them.
    open: Vec<SendStream>,
    // Last: the connection needs it.
    _endpoint: Endpoint,
}

impl Stranger {
    /// Connects to the target at `address`, whose authority's certificate is `ca`.
    ///
    /// That the target refuses the certificate may show only later: TLS 1.3 lets the client speak
    /// first.
    pub(crate) fn connect(
        address: SocketAddr,
        ca: &Path,
        credentials: Credentials,
    ) -> Result<Self> {
        let runtime = runtime()?;
        let client = client(ca, credentials, wire::ALPN_DATA)?;
        let connected =
            runtime.block_on(async { timeout(ANSWER, connected(client, address)).await });
        let (endpoint, connection, control) = connected.context("no answer")??;
        let session = SourceSession::new(config(MachineId([0; 16]), VersionRange::SUPPORTED));
        Ok(Self { runtime, connection, control, session, open: Vec::new(), _endpoint: endpoint })
    }

    /// Says hello as `machine`, and waits for nothing.
    pub(crate) fn say_hello(&mut self, machine: MachineId, versions: VersionRange) {
        self.session = SourceSession::new(config(machine, versions));
        self.transmit();
    }

    /// Says hello as the machine that it is, and waits for the welcome.
    pub(crate) fn introduce(&mut self, machine: MachineId) -> Result<()> {
        self.say_hello(machine, VersionRange::SUPPORTED);
        match self.next_event()? {
            SourceEvent::Welcomed(_) => Ok(()),
            other => bail!("{other:?} instead of a welcome"),
        }
    }

    /// Asks for a disk, and returns the answer.
    pub(crate) fn open_disk(&mut self, open: OpenDisk) -> Result<SourceEvent> {
        self.session.open_disk(open)?;
        self.transmit();
        self.next_event()
    }

    /// Sends bytes on the control stream, behind the session's back.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        // A connection that was closed meanwhile is what is waited for afterwards.
        drop(self.runtime.block_on(self.control.0.write_all(bytes)));
    }

    /// The same, for as long as the target takes to take them, up to `limit`; whether it did.
    pub(crate) fn say_within(&mut self, bytes: &[u8], limit: Duration) -> bool {
        let said = self.control.0.write_all(bytes);
        let said = self.runtime.block_on(async { timeout(limit, said).await });
        matches!(said, Ok(Ok(())))
    }

    /// Sends bytes on a data stream of their own, as fast as the target takes them.
    pub(crate) fn send(&mut self, bytes: &[u8], end: End) -> Result<()> {
        let connection = self.connection.clone();
        let sending = async {
            let mut stream = connection.open_uni().await?;
            // The target may have seen enough.
            let wrote = timeout(ANSWER, stream.write_all(bytes)).await;
            if end == End::Finished && matches!(wrote, Ok(Ok(()))) {
                stream.finish()?;
            }
            anyhow::Ok(stream)
        };
        match self.runtime.block_on(sending) {
            Ok(stream) => self.open.push(stream),
            Err(error) if error.is::<ConnectionError>() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The session, to be told what its peer should believe.
    pub(crate) fn session(&mut self) -> &mut SourceSession {
        &mut self.session
    }

    /// The next thing the target says; credit is not worth mentioning.
    pub(crate) fn next_event(&mut self) -> Result<SourceEvent> {
        loop {
            match self.session.poll_event() {
                Some(SourceEvent::Credited { .. }) => continue,
                Some(event) => return Ok(event),
                None => {}
            }
            let reading = self.control.1.read_chunk(64 << 10, true);
            let read = self.runtime.block_on(async { timeout(ANSWER, reading).await });
            match read.context("the target says nothing")? {
                Ok(Some(chunk)) => self.session.handle_control(&chunk.bytes),
                Ok(None) => bail!("the target ended the control stream"),
                Err(error) => return Err(anyhow!(error).context("reading the control stream")),
            }
        }
    }

    /// Waits until the target closes the connection, and returns its reason.
    pub(crate) fn closed(self) -> Result<CloseCode> {
        match self.ended()? {
            ConnectionError::ApplicationClosed(close) => {
                Ok(CloseCode::from_number(u32::try_from(close.error_code.into_inner())?))
            }
            other => Err(anyhow!(other).context("the target gave no reason")),
        }
    }

    /// Waits until the connection ends, and returns how.
    pub(crate) fn ended(self) -> Result<ConnectionError> {
        let closed = self.connection.closed();
        let closed = self.runtime.block_on(async { timeout(ANSWER, closed).await });
        closed.context("the target keeps the connection")
    }

    /// Sends what the session has to say.
    pub(crate) fn transmit(&mut self) {
        while let Some(bytes) = self.session.poll_transmit() {
            self.say(&bytes);
        }
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

/// A client that trusts the authority `ca`, shows `credentials` and speaks `protocol`.
fn client(ca: &Path, credentials: Credentials, protocol: &[u8]) -> Result<quinn::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let mut tls = match credentials {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![protocol.to_vec()];
    Ok(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)))
}

async fn connected(
    client: quinn::ClientConfig,
    address: SocketAddr,
) -> Result<(Endpoint, Connection, (SendStream, RecvStream))> {
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
    let connection = endpoint.connect_with(client, address, TARGET_NAME)?.await?;
    let control = connection.open_bi().await?;
    Ok((endpoint, connection, control))
}

/// Somebody without a certificate, where new machines are let in.
pub(crate) struct Visitor {
    runtime: Runtime,
    stream: (SendStream, RecvStream),
    _connection: Connection,
    // Last: the connection needs it.
    _endpoint: Endpoint,
}

impl Visitor {
    /// Connects, and says nothing.
    pub(crate) fn knock(site: &Site) -> Result<Self> {
        let runtime = runtime()?;
        let client = client(&site.store().join("pki/ca.pem"), None, wire::ALPN_ENROLL)?;
        let connected =
            runtime.block_on(async { timeout(ANSWER, connected(client, site.listen)).await });
        let (endpoint, connection, stream) = connected.context("no answer")??;
        Ok(Self { runtime, stream, _connection: connection, _endpoint: endpoint })
    }

    /// Sends bytes, and returns the answer; nothing if the target hangs up instead.
    pub(crate) fn ask(mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        let asking = async {
            // A target that has seen enough stops reading.
            drop(self.stream.0.write_all(bytes).await);
            drop(self.stream.0.finish());
            self.stream.1.read_to_end(1 << 16).await.ok()
        };
        let answer = self.runtime.block_on(async { timeout(ANSWER, asking).await });
        Ok(answer.context("the target says nothing")?.filter(|answer| !answer.is_empty()))
    }
}

fn config(machine: MachineId, versions: VersionRange) -> SourceConfig {
    let build = Text::lossy("a stranger");
    SourceConfig { machine, build, versions, features: Features::default() }
}
