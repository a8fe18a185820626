//! `pinnace target run`: puts the target together, and serves until it is told to stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use blocks::MachineId;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Connection, Endpoint, Incoming};
use replica::Store;
use rustls::pki_types::CertificateDer;
use wire::{CloseCode, Reason};

use super::assignments::Assignments;
use super::connection::{self, Holdings};
use super::enroll::Enroller;
use super::layout::Layout;
use super::machines::Machines;
use super::points::Points;
use super::requests::Requests;
use super::retention::Retention;
use super::scrub::Scrub;
use super::status::Overview;
use super::tokens::Tokens;
use crate::admin::Server;
use crate::config::{RetentionConfig, TargetConfig};
use crate::pki::{self, ALPN_ENROLL, Authority, Identity};
use crate::quic::ResetKey;
use crate::{agent, logging, metrics, quic, service};

/// How long connections may take to end when the target stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// Runs the target.
pub(crate) fn run(config: &TargetConfig) -> Result<()> {
    logging::start();
    service::allow_many_files();
    let layout = Layout::new(&config.store);
    let target: MachineId = layout.identity()?.id.parse().context("the target's identity")?;
    let authority = Authority::read(&layout.pki())?;
    let store = Arc::new(Store::open(&layout.replicas()).context("opening the store")?);
    for (disk, error) in store.damaged() {
        tracing::error!(DISK = %disk, %error, "a replica is damaged");
    }
    store.set_view_cache(config.view_cache);
    let server = Server::bind(&config.socket)?;
    let _marker = agent::own_store::announce(layout.root())?;
    let tls = authority.server_config(Identity::read(&layout.pki(), "target")?)?;
    let tokens = Arc::new(Mutex::new(Tokens::read(layout.tokens())?));
    let machines = Machines::new(layout.machines());
    let fingerprint = authority.fingerprint();
    let assignments = Assignments::read(layout.assignments(), machines.clone())?;
    let enroller =
        Enroller { authority, tokens: tokens.clone(), machines: machines.clone(), target };
    let peers = Peers::default();
    let RetentionConfig { ladder, quota } = config.retention.clone();
    let retention = Retention::new(Arc::clone(&store), ladder, quota);
    let scrub = Scrub::new(Arc::clone(&store), layout.scrub(), config.scrub);
    let overview = Overview {
        target,
        store: layout.root().to_owned(),
        listen: config.listen,
        replicas: Arc::clone(&store),
        peers: peers.clone(),
        retention: retention.clone(),
        scrub: scrub.clone(),
    };
    if let Some(listen) = config.metrics {
        let (overview, pki) = (overview.clone(), layout.pki());
        metrics::serve_if_possible(listen, move || overview.metrics(&pki));
    }
    let points = Points {
        store: Arc::clone(&store),
        retention: retention.clone(),
        scratch: layout.scratch(),
    };
    let asked = assignments.clone();
    let requests =
        Requests { overview, tokens, authority: fingerprint, assignments: asked, points };
    let _socket = server.serve_callers(move |request, caller| requests.answer(request, caller))?;
    retention.start()?;
    scrub.start()?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    service::on_stop(move || {
        // Nobody waits any more once serving has failed.
        let _ = stop.send(());
    })?;
    let reset_key = ResetKey::read(&layout.reset_key())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let endpoint = listen(config, tls, &reset_key)?;
        service::ready();
        tracing::info!(listen = %config.listen, store = %config.store.display(), "the target serves");
        let target = Arc::new(Target { holdings: Holdings { store, assignments, disk_size_max: config.disk_size_max, retention }, enroller, machines, target, peers });
        tokio::select! {
            () = target.accept_all(&endpoint) => {}
            _ = stopped => {}
        }
        endpoint.close(CloseCode::from(Reason::ShuttingDown).number().into(), b"");
        drop(tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await);
        Ok(())
    });
    runtime.shutdown_timeout(FAREWELL);
    served
}

fn listen(
    config: &TargetConfig,
    tls: rustls::ServerConfig,
    reset_key: &ResetKey,
) -> Result<Endpoint> {
    let crypto = QuicServerConfig::try_from(tls)?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(quic::transport());
    quic::server_endpoint(server, config.listen, reset_key)
}

/// The connected machines, newest connection each.
#[derive(Clone, Default)]
pub(super) struct Peers(Arc<Mutex<HashMap<MachineId, Connection>>>);

impl Peers {
    /// Takes note of a connection, and closes the one it replaces: an agent has one connection, so
    /// the older is one whose end has not been noticed.
    fn replace(&self, machine: MachineId, connection: &Connection) {
        let old = self.lock().insert(machine, connection.clone());
        if let Some(old) = old {
            old.close(CloseCode::from(Reason::Done).number().into(), b"replaced");
        }
    }

    fn remove(&self, machine: MachineId, connection: &Connection) {
        let mut peers = self.lock();
        if peers.get(&machine).is_some_and(|other| other.stable_id() == connection.stable_id()) {
            peers.remove(&machine);
        }
    }

    pub(super) fn get(&self, machine: MachineId) -> Option<Connection> {
        self.lock().get(&machine).cloned()
    }

    pub(super) fn contains(&self, machine: MachineId) -> bool {
        self.lock().contains_key(&machine)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MachineId, Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Target {
    holdings: Holdings,
    enroller: Enroller,
    machines: Machines,
    target: MachineId,
    peers: Peers,
}

impl Target {
    async fn accept_all(self: &Arc<Self>, endpoint: &Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let target = Arc::clone(self);
            tokio::spawn(async move {
                let from = incoming.remote_address();
                if let Err(error) = target.serve(incoming).await {
                    tracing::info!(%from, "a connection ended: {error:#}");
                }
            });
        }
    }

    async fn serve(&self, incoming: Incoming) -> Result<()> {
        let connection = incoming.await?;
        if protocol(&connection).as_deref() == Some(ALPN_ENROLL) {
            return self.enroller.serve(&connection).await;
        }
        let Some(machine) = self.authenticate(&connection)? else {
            let code = CloseCode::from(Reason::NotAuthenticated);
            connection.close(code.number().into(), b"enrol this machine with a token");
            return Ok(());
        };
        self.peers.replace(machine, &connection);
        let served =
            connection::serve(connection.clone(), self.holdings.clone(), (self.target, machine));
        let result = served.await;
        self.peers.remove(machine, &connection);
        result
    }

    /// The machine that the peer's certificate was made for, if it is the last one made for it.
    fn authenticate(&self, connection: &Connection) -> Result<Option<MachineId>> {
        let Some(identity) = connection.peer_identity() else { return Ok(None) };
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>();
        let Ok(chain) = chain else { return Ok(None) };
        let Some(certificate) = chain.first() else { return Ok(None) };
        let Ok(machine) = pki::common_name(certificate)?.parse::<MachineId>() else {
            return Ok(None);
        };
        let certified = self.machines.is_certified(machine, pki::fingerprint(certificate))?;
        Ok(certified.then_some(machine))
    }
}

fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}
