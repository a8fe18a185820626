//! The handshake of the server's end: fixed new style, from the greeting to an agreement.
//!
//! A state machine without I/O. It says how many bytes it wants next ([`Negotiation::wanted`]),
//! takes exactly these ([`Negotiation::handle`]), and hands out what is to be sent
//! ([`Negotiation::take_output`]) before anything else is read. So it never reads into what
//! belongs to the next phase or into a TLS handshake.
//!
//! ```text
//!  ClientFlags -> OptionHeader -> OptionData -> OptionHeader ...
//!                     |  ^                 \-> Serve | StartTls | End
//!                     v  |
//!                   Skipping                  (an option too long to be looked at)
//! ```
//!
//! Bounds: an option's data is at most [`OPTION_LEN_MAX`] bytes, more is skipped and refused; after
//! [`OPTIONS_MAX`] options the client is sent away.

mod answers;
mod offer;
mod options;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::layout::{Malformed, Reader};
use crate::numbers::{GREETING, OPTION, allocation, answer, handshake, info, option};
use answers::Answers;
pub use offer::Offer;
use options::{ContextQuery, InfoRequest};

/// Bytes of an option's data that are looked at: three of the longest strings.
pub const OPTION_LEN_MAX: u32 = 16 * 1024;

/// Options that a client may try. Real ones need fewer than ten.
pub const OPTIONS_MAX: u32 = 128;

const FLAGS_LEN: usize = 4;
const HEADER_LEN: usize = 16;
/// What is skipped at a time.
const SKIP_LEN: u32 = 4096;

/// Whether the connection is, or has to be, encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// There is no TLS here.
    Plain,
    /// Nothing is told before TLS.
    TlsFirst,
    /// TLS protects the connection.
    Tls,
}

/// What a client and this server have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The export, by its place among the offers.
    pub export: usize,
    /// Whether replies are structured.
    pub structured: bool,
    /// Whether the client may ask what is allocated.
    pub allocation: bool,
}

/// What comes after the output has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More of the handshake.
    More,
    /// A TLS handshake, and then [`Negotiation::secured`].
    StartTls,
    /// Requests.
    Serve(Agreement),
    /// Nothing: the client has taken its leave.
    End,
}

/// Why a handshake can't go on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NegotiationError {
    /// The client's flags have bits without a meaning.
    #[error("the client's flags {0:#x} have bits that mean nothing here")]
    Flags(u32),
    /// What should be an option is none.
    #[error("an option starts with {0:#x}")]
    NoOption(u64),
    /// An export was asked for in the way that has no answer for failures.
    #[error("the client asked for an export that is not here, or not without TLS")]
    NoExport,
    /// The client tries on and on.
    #[error("the client sent more than {OPTIONS_MAX} options")]
    TooManyOptions,
}

/// One handshake.
#[derive(Debug)]
pub struct Negotiation {
    offers: Arc<[Offer]>,
    secrecy: Secrecy,
    state: State,
    answers: Answers,
    options_left: u32,
    zeroes: bool,
    chosen: Chosen,
}

/// What options have chosen so far, and TLS makes undone.
#[derive(Debug, Default)]
struct Chosen {
    structured: bool,
    /// The export for which the allocation context was selected.
    allocation_of: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    ClientFlags,
    OptionHeader,
    OptionData { option: u32, len: u32 },
    Skipping { left: u32 },
}

impl Negotiation {
    /// A handshake that offers `offers`; the greeting is the first output.
    pub fn new(offers: Arc<[Offer]>, secrecy: Secrecy) -> Self {
        let mut answers = Answers::default();
        answers.greeting(GREETING, OPTION, handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
        Self {
            offers,
            secrecy,
            state: State::ClientFlags,
            answers,
            options_left: OPTIONS_MAX,
            zeroes: true,
            chosen: Chosen::default(),
        }
    }

    /// What is to be sent now.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.answers.take()
    }

    /// How many bytes [`handle`](Self::handle) wants; never more than [`OPTION_LEN_MAX`]. Zero is
    /// possible: an option may have no data.
    pub fn wanted(&self) -> usize {
        match self.state {
            State::ClientFlags => FLAGS_LEN,
            State::OptionHeader => HEADER_LEN,
            State::OptionData { len, .. } => len as usize,
            State::Skipping { left } => left.min(SKIP_LEN) as usize,
        }
    }

    /// Takes exactly the bytes that were wanted. After an error the connection is to be closed.
    ///
    /// # Panics
    /// If these are more or fewer bytes than were wanted.
    pub fn handle(&mut self, bytes: &[u8]) -> Result<Step, NegotiationError> {
        assert_eq!(bytes.len(), self.wanted(), "as many bytes as were wanted");
        match self.state {
            State::ClientFlags => self.client_flags(bytes),
            State::OptionHeader => self.option_header(bytes),
            State::OptionData { option, .. } => {
                self.state = State::OptionHeader;
                self.option(option, bytes)
            }
            State::Skipping { left } => {
                let left = left.saturating_sub(SKIP_LEN);
                self.state = if left == 0 { State::OptionHeader } else { State::Skipping { left } };
                Ok(Step::More)
            }
        }
    }

    /// TLS protects the connection from here on; what was chosen in the clear does not count.
    pub fn secured(&mut self) {
        self.secrecy = Secrecy::Tls;
        self.chosen = Chosen::default();
    }

    fn client_flags(&mut self, bytes: &[u8]) -> Result<Step, NegotiationError> {
        let flags = Reader::new(bytes).u32().expect("as long as was wanted");
        let known = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
        if flags & !u32::from(known) != 0 {
            return Err(NegotiationError::Flags(flags));
        }
        self.zeroes = flags & u32::from(handshake::NO_ZEROES) == 0;
        self.state = State::OptionHeader;
        Ok(Step::More)
    }

    fn option_header(&mut self, bytes: &[u8]) -> Result<Step, NegotiationError> {
        let mut reader = Reader::new(bytes);
        let mut header = || Ok::<_, Malformed>((reader.u64()?, reader.u32()?, reader.u32()?));
        let (magic, option, len) = header().expect("as long as was wanted");
        if magic != OPTION {
            return Err(NegotiationError::NoOption(magic));
        }
        self.options_left =
            self.options_left.checked_sub(1).ok_or(NegotiationError::TooManyOptions)?;
        if len <= OPTION_LEN_MAX {
            self.state = State::OptionData { option, len };
            return Ok(Step::More);
        }
        if option == option::EXPORT_NAME {
            return Err(NegotiationError::NoExport);
        }
        if option == option::SET_META_CONTEXT {
            self.chosen.allocation_of = None;
        }
        self.answers.error(option, answer::TOO_BIG, "no option needs to be this long");
        self.state = State::Skipping { left: len };
        Ok(Step::More)
    }

    fn option(&mut self, option: u32, data: &[u8]) -> Result<Step, NegotiationError> {
        if self.secrecy == Secrecy::TlsFirst {
            match option {
                option::STARTTLS | option::ABORT => {}
                option::EXPORT_NAME => return Err(NegotiationError::NoExport),
                _ => {
                    self.answers.error(option, answer::TLS_REQUIRED, "start TLS first");
                    return Ok(Step::More);
                }
            }
        }
        match option {
            option::EXPORT_NAME => return self.export_name(data),
            option::ABORT => {
                self.answers.ack(option);
                return Ok(Step::End);
            }
            option::STARTTLS => return Ok(self.start_tls(data)),
            option::INFO | option::GO => return Ok(self.info(option, data)),
            option::LIST => self.list(data),
            option::STRUCTURED_REPLY => self.structured_reply(data),
            option::LIST_META_CONTEXT => self.list_contexts(data),
            option::SET_META_CONTEXT => self.set_contexts(data),
            _ => self.answers.error(option, answer::UNSUPPORTED, "this option is not known here"),
        }
        Ok(Step::More)
    }

    /// The old way to choose, which can't say no but by hanging up.
    fn export_name(&mut self, data: &[u8]) -> Result<Step, NegotiationError> {
        let name = str::from_utf8(data).map_err(|_| NegotiationError::NoExport)?;
        let export = self.find(name).ok_or(NegotiationError::NoExport)?;
        self.answers.old_style_export(&self.offers[export], self.zeroes);
        Ok(Step::Serve(self.agreement(export)))
    }

    fn start_tls(&mut self, data: &[u8]) -> Step {
        let refused = match self.secrecy {
            _ if !data.is_empty() => (answer::INVALID, "this option has no data"),
            Secrecy::Plain => (answer::UNSUPPORTED, "there is no TLS here"),
            Secrecy::Tls => (answer::INVALID, "TLS is on already"),
            Secrecy::TlsFirst => {
                self.answers.ack(option::STARTTLS);
                return Step::StartTls;
            }
        };
        self.answers.error(option::STARTTLS, refused.0, refused.1);
        Step::More
    }

    fn list(&mut self, data: &[u8]) {
        if !self.has_no_data(option::LIST, data) {
            return;
        }
        for offer in self.offers.iter() {
            self.answers.server(option::LIST, offer);
        }
        self.answers.ack(option::LIST);
    }

    fn structured_reply(&mut self, data: &[u8]) {
        if self.has_no_data(option::STRUCTURED_REPLY, data) {
            self.chosen.structured = true;
            self.answers.ack(option::STRUCTURED_REPLY);
        }
    }

    fn has_no_data(&mut self, option: u32, data: &[u8]) -> bool {
        if !data.is_empty() {
            self.answers.error(option, answer::INVALID, "this option has no data");
        }
        data.is_empty()
    }

    fn info(&mut self, option: u32, data: &[u8]) -> Step {
        let Ok(request) = InfoRequest::parse(data) else {
            self.answers.error(option, answer::INVALID, "it is not laid out as this option is");
            return Step::More;
        };
        let Some(export) = self.known(option, request.name) else { return Step::More };
        let offer = &self.offers[export];
        self.answers.export_info(option, offer);
        self.answers.block_size_info(option);
        if request.wants(info::NAME) {
            self.answers.text_info(option, info::NAME, &offer.name);
        }
        if request.wants(info::DESCRIPTION) && !offer.description.is_empty() {
            self.answers.text_info(option, info::DESCRIPTION, &offer.description);
        }
        self.answers.ack(option);
        if option == option::GO { Step::Serve(self.agreement(export)) } else { Step::More }
    }

    fn list_contexts(&mut self, data: &[u8]) {
        let option = option::LIST_META_CONTEXT;
        let Some((_, query)) = self.context_query(option, data) else { return };
        let wanted = |query: &&str| matches!(*query, allocation::NAME | allocation::WILDCARD);
        if query.queries.is_empty() || query.queries.iter().any(wanted) {
            self.answers.context(option, 0, allocation::NAME);
        }
        self.answers.ack(option);
    }

    fn set_contexts(&mut self, data: &[u8]) {
        let option = option::SET_META_CONTEXT;
        // What was selected before is gone, whatever comes of this.
        self.chosen.allocation_of = None;
        if !self.chosen.structured {
            self.answers.error(option, answer::INVALID, "ask for structured replies first");
            return;
        }
        let Some((export, query)) = self.context_query(option, data) else { return };
        if query.queries.contains(&allocation::NAME) {
            self.chosen.allocation_of = Some(export);
            self.answers.context(option, allocation::ID, allocation::NAME);
        }
        self.answers.ack(option);
    }

    /// A query about contexts and the export it is about, or an answer that says why not.
    fn context_query<'a>(
        &mut self,
        option: u32,
        data: &'a [u8],
    ) -> Option<(usize, ContextQuery<'a>)> {
        let Ok(query) = ContextQuery::parse(data) else {
            self.answers.error(option, answer::INVALID, "it is not laid out as this option is");
            return None;
        };
        let export = self.known(option, query.name)?;
        Some((export, query))
    }

    /// The export of this name, or an answer that there is none.
    fn known(&mut self, option: u32, name: &str) -> Option<usize> {
        let export = self.find(name);
        if export.is_none() {
            self.answers.error(option, answer::UNKNOWN, "there is no export of this name");
        }
        export
    }

    /// The export of this name; an only one has the empty name as well.
    fn find(&self, name: &str) -> Option<usize> {
        let named = self.offers.iter().position(|offer| offer.name == name);
        named.or_else(|| (name.is_empty() && self.offers.len() == 1).then_some(0))
    }

    fn agreement(&self, export: usize) -> Agreement {
        Agreement {
            export,
            structured: self.chosen.structured,
            allocation: self.chosen.allocation_of == Some(export),
        }
    }
}
