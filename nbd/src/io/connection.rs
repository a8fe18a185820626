//! One connection, from its first byte to its last.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::budget::Budget;
use super::channel::{Beginning, Channel, Received};
use super::server::{Limits, NamedExport};
use super::socket::Socket;
use super::tls::Tls;
use super::work::{Job, Payload, Worker};
use crate::export::Export;
use crate::negotiation::{Agreement, Negotiation, NegotiationError, Offer, Secrecy, Step};
use crate::reply::Form;
use crate::request::{Command, HEADER_LEN, Header, NoRequest, Terms};

/// What is thrown away at a time of a payload that nobody wants.
const SCRAP: usize = 16 * 1024;

/// What every connection of a server shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) exports: Vec<NamedExport>,
    pub(super) offers: Arc<[Offer]>,
    pub(super) tls: Option<Tls>,
    pub(super) limits: Limits,
    pub(super) budget: Arc<Budget>,
}

/// Why a connection ended before its client wanted it to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    #[error(transparent)]
    Request(#[from] NoRequest),
}

/// Serves one client until it leaves.
pub(super) fn serve(shared: &Shared, socket: &Arc<Socket>) -> Result<(), ConnectionError> {
    let channel = Channel::new(Arc::clone(socket), shared.limits.patience);
    let Some((channel, agreement)) = negotiate(shared, channel)? else { return Ok(()) };
    let export = &*shared.exports[agreement.export].export;
    let served = transmit(shared, &channel, (export, agreement));
    channel.close();
    served
}

/// The handshake. Nothing, if the client takes its leave in it.
fn negotiate(
    shared: &Shared,
    mut channel: Channel,
) -> Result<Option<(Channel, Agreement)>, ConnectionError> {
    let secrecy = if shared.tls.is_some() { Secrecy::TlsFirst } else { Secrecy::Plain };
    let mut negotiation = Negotiation::new(Arc::clone(&shared.offers), secrecy);
    // For all of it: a client that sends one option a minute is as slow as one that sends none.
    let deadline = channel.deadline();
    channel.send(&[&negotiation.take_output()])?;
    loop {
        let mut buffer = vec![0; negotiation.wanted()];
        if channel.receive(&mut buffer, Beginning::Before(deadline))? == Received::End {
            return Ok(None);
        }
        let step = negotiation.handle(&buffer)?;
        channel.send(&[&negotiation.take_output()])?;
        match (step, &shared.tls) {
            (Step::More, _) => {}
            (Step::StartTls, Some(tls)) => {
                channel = channel.secure(tls)?;
                negotiation.secured();
            }
            (Step::StartTls, None) => unreachable!("without TLS it is refused"),
            (Step::Serve(agreement), _) => return Ok(Some((channel, agreement))),
            (Step::End, _) => {
                channel.close();
                return Ok(None);
            }
        }
    }
}

fn transmit(
    shared: &Shared,
    channel: &Channel,
    (export, agreement): (&dyn Export, Agreement),
) -> Result<(), ConnectionError> {
    let terms = Terms::new(export, agreement);
    let form = if agreement.structured { Form::Structured } else { Form::Simple };
    let (jobs, queue) = bounded(shared.limits.queue);
    std::thread::scope(|scope| {
        for _ in 0..shared.limits.workers {
            let worker = Worker::new(channel, export, form, &shared.budget);
            let queue = queue.clone();
            std::thread::Builder::new()
                .name("nbd-worker".into())
                .spawn_scoped(scope, move || work(worker, channel, &queue))?;
        }
        // The workers' are the last ones, so that a connection without workers ends.
        drop(queue);
        let read = read_requests(shared, channel, &terms, &jobs);
        drop(jobs);
        read
    })
}

/// Carries out what comes until nothing does, or until the client can't be told.
fn work(mut worker: Worker<'_>, channel: &Channel, queue: &Receiver<Job>) {
    let _guard = HangUp(channel);
    while let Ok(job) = queue.recv() {
        if let Err(error) = worker.run(job) {
            tracing::debug!(%error, "a reply could not be sent");
            channel.abort();
            return;
        }
    }
}

/// Ends the connection if an export panics: the client would wait for its reply for ever.
struct HangUp<'a>(&'a Channel);

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abort();
        }
    }
}

fn read_requests(
    shared: &Shared,
    channel: &Channel,
    terms: &Terms,
    jobs: &Sender<Job>,
) -> Result<(), ConnectionError> {
    let mut bytes = [0; HEADER_LEN];
    while channel.receive(&mut bytes, Beginning::AnyTime)? == Received::All {
        let header = Header::parse(&bytes)?;
        let command = terms.admit(&header);
        if command == Ok(Command::Disconnect) {
            break;
        }
        let payload = match (&command, header.payload_len()) {
            (_, 0) => Payload::default(),
            (Ok(_), len) => {
                let _lease = Some(shared.budget.lease(len));
                let mut bytes = vec![0; len as usize];
                receive_rest(channel, &mut bytes)?;
                Payload { bytes, _lease }
            }
            (Err(_), len) => {
                skip(channel, len)?;
                Payload::default()
            }
        };
        if jobs.send(Job { cookie: header.cookie, command, payload }).is_err() {
            // No worker could send any more.
            break;
        }
    }
    Ok(())
}

fn receive_rest(channel: &Channel, bytes: &mut [u8]) -> io::Result<()> {
    match channel.receive(bytes, Beginning::Before(channel.deadline()))? {
        Received::All => Ok(()),
        Received::End => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads past a payload that is not wanted.
fn skip(channel: &Channel, len: u32) -> io::Result<()> {
    let mut scrap = [0; SCRAP];
    let mut left = len as usize;
    while left > 0 {
        let part = left.min(SCRAP);
        receive_rest(channel, &mut scrap[..part])?;
        left -= part;
    }
    Ok(())
}
