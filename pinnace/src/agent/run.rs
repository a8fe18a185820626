//! `pinnace agent run`: puts the agent together, and runs it until it is told to stop.

use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Sender, bounded, unbounded};
use ebpf::{Programs, Tracking};
use shipper::{Engine, EngineConfig, Limits};
use wire::message::Features;

use super::core::points::Points;
use super::core::{Core, Event};
use super::link::{self, LinkCommand};
use super::protect;
use super::recorded::{self, AbsentDisk};
use super::state::AgentState;
use crate::admin::Server;
use crate::admin::agent::{LinkStatus, Request};
use crate::causes::with_causes;
use crate::config::AgentConfig;
use crate::exit::{Exit, Failure};
use crate::{identity, logging, metrics, service};

/// Runs the agent.
pub(crate) fn run(config: AgentConfig) -> Result<()> {
    logging::start();
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::new(Exit::Refused, "the agent needs root").into());
    }
    let state = AgentState::open(&config.state_dir)?;
    let (sender, events) = unbounded();
    let server = Server::bind(&config.socket)?;
    let engine = Engine::start(engine_config(&config)?).context("starting the pipeline")?;
    let metrics = config.metrics;
    let (mut core, link) = assemble(config, state, engine, sender.clone())?;
    take_up_all(&mut core)?;
    if let Some(listen) = metrics {
        let asks = sender.clone();
        metrics::serve_if_possible(listen, move || ask(&asks, Event::Scrape));
    }
    let asks = sender.clone();
    let _socket =
        server.serve(move |request: Request| ask(&asks, |answer| Event::Admin(request, answer)))?;
    service::on_stop(move || drop(sender.send(Event::Stop)))?;
    service::ready();
    tracing::info!(disks = core.disks.len(), "the agent runs");
    let result = core.run(&events);
    core.link.send(LinkCommand::Stop);
    if let Some(link) = link {
        // A panic of the link has been printed; the core's result matters more.
        drop(link.join());
    }
    result
}

type LinkThread = Option<std::thread::JoinHandle<()>>;

fn assemble(
    config: AgentConfig,
    state: AgentState,
    engine: Engine,
    events: Sender<Event>,
) -> Result<(Core, LinkThread)> {
    let identity = state.identity()?;
    let (machine, target) = match &identity {
        Some(identity) => (Some(identity.machine.parse()?), Some(identity.target.clone())),
        None => (None, None),
    };
    let (link, thread) = match identity {
        Some(identity) => {
            // The core ends after the link.
            let events = events.clone();
            let tell = move |event| drop(events.send(Event::Link(event)));
            let (link, thread) =
                link::start(&state, identity, config.retry_longest, Box::new(tell))?;
            (link, Some(thread))
        }
        None => (link::unconnected(), None),
    };
    let link_status = match machine {
        Some(_) => LinkStatus::Connecting { last_error: None, next_attempt: None },
        None => LinkStatus::NotEnrolled,
    };
    let points = Points::new(&config.policy);
    let core = Core {
        config,
        state,
        machine,
        target,
        boot_id: identity::boot_id()?,
        tracking: None,
        programs: None,
        behind: BTreeMap::new(),
        engine,
        disks: BTreeMap::new(),
        absent: Vec::new(),
        link,
        link_status,
        features: Features::default(),
        next_check: Instant::now(),
        points,
        events,
    };
    Ok((core, thread))
}

/// Takes every recorded disk up again. One that can't be is a problem that is shown, and no reason
/// to leave the others alone.
fn take_up_all(core: &mut Core) -> Result<()> {
    let records = core.state.disks()?;
    if records.is_empty() {
        // What fails here fails again, and is told, when a disk is to be protected.
        core.programs = Programs::load(core.config.tracking).ok();
    } else {
        let config = &core.config;
        let (tracking, attached) = Tracking::open_or_load_with(&config.pin_dir, config.tracking)
            .context("loading the tracking programs")?;
        tracing::info!(?attached, "the tracking programs are in the kernel");
        core.tracking =
            Some(if tracking.is_current() { tracking } else { upgrade(core, tracking)? });
    }
    for record in records {
        let taken = recorded::find(&record, &identity::hex(&core.boot_id))
            .and_then(|device| protect::take_up(core, &record, device));
        if let Err(error) = taken {
            let problem = format!("{} is not protected: {error:#}", record.path.display());
            tracing::error!("{problem}");
            core.absent.push(AbsentDisk { record, problem });
        }
    }
    forget_strays(core)
}

/// Has the programs of this build do what those of another did. If that fails, they go on.
fn upgrade(core: &mut Core, tracking: Tracking) -> Result<Tracking> {
    match tracking.upgrade() {
        Ok((tracking, behind)) => {
            tracing::info!("the tracking programs were replaced by those of this build");
            core.behind = behind.into_iter().collect();
            Ok(tracking)
        }
        Err(error) => {
            let error = with_causes(&error);
            tracing::warn!(error, "the tracking programs of another build go on");
            let config = &core.config;
            let opened = Tracking::open_or_load_with(&config.pin_dir, config.tracking);
            Ok(opened.context("taking up the tracking programs")?.0)
        }
    }
}

/// Disks that the kernel tracks without a record: their protection was interrupted.
fn forget_strays(core: &mut Core) -> Result<()> {
    let Some(tracking) = &mut core.tracking else { return Ok(()) };
    let known = |slot| core.disks.values().any(|disk| disk.tracked.slot() == slot);
    let strays: Vec<_> =
        tracking.disks().map(ebpf::TrackedDisk::slot).filter(|slot| !known(*slot)).collect();
    for slot in strays {
        // A disk that could not be taken up stays recorded; it is compared when it comes back.
        tracking.remove_disk(slot)?;
    }
    Ok(())
}

fn engine_config(config: &AgentConfig) -> Result<EngineConfig> {
    let limits = Limits {
        bytes_per_second: config.bandwidth.and_then(|bytes| NonZeroU64::new(bytes.0)),
        reads_per_second: config.iops.and_then(NonZeroU64::new),
    };
    let workers = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Ok(EngineConfig { pool: config.buffer_pool, workers, limits, ..EngineConfig::default() })
}

/// Puts a question to the core and waits for its answer.
fn ask<A>(events: &Sender<Event>, question: impl FnOnce(Sender<Result<A>>) -> Event) -> Result<A> {
    let (answer, answered) = bounded(1);
    let stopping = || Failure::new(Exit::Unreachable, "the agent is stopping");
    events.send(question(answer)).map_err(|_| stopping())?;
    answered.recv_timeout(Duration::from_secs(600)).map_err(|_| stopping())?
}
