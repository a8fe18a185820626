//! Enrolment: how a new machine gets its certificate.
//!
//! It runs over a connection of its own ([`ALPN_ENROLL`](crate::ALPN_ENROLL)), on which only the
//! target has a certificate; the machine knows the authority from its [`Token`](crate::Token). One
//! request, one answer, in the envelope of [`message`](crate::message). Who checks the token and
//! signs the request is not decided here.

use blocks::MachineId;
use bytes::Bytes;

use crate::close::{CloseCode, Detail};
use crate::layout::{LayoutError, Reader, Writer};
use crate::message::{Envelope, MessageError, VersionRange, encode};
use crate::text::Text;
use crate::token::{TokenId, TokenSecret};

#[cfg(test)]
mod tests;

/// Bytes of a certificate request at most.
pub const CSR_LEN_MAX: usize = 8 * 1024;

/// Bytes of one certificate of a chain at most.
pub const CERTIFICATE_LEN_MAX: usize = 16 * 1024;

/// Certificates of a chain at most.
pub const CHAIN_MAX: usize = 4;

/// The name a machine gives itself.
pub type Hostname = Text<255>;

/// The machine's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollRequest {
    /// The versions of the protocol the machine speaks.
    pub versions: VersionRange,
    /// Which token it has.
    pub token: TokenId,
    /// The proof that it has it.
    pub secret: TokenSecret,
    /// The machine.
    pub machine: MachineId,
    /// Its name.
    pub hostname: Hostname,
    /// The request for a certificate (PKCS #10, DER), at most [`CSR_LEN_MAX`] bytes.
    pub csr: Der<CSR_LEN_MAX>,
}

/// The target's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnrollAnswer {
    /// The machine is enrolled.
    Enrolled(Enrolled),
    /// It is not.
    Refused {
        /// The reason.
        code: CloseCode,
        /// A few words more.
        detail: Detail,
    },
}

/// What an enrolled machine gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The target.
    pub target: MachineId,
    /// The machine's certificate, then those that vouch for it; the last is the authority's.
    pub chain: Vec<Der<CERTIFICATE_LEN_MAX>>,
}

/// Something in DER of at most `MAX` bytes, not parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Der<const MAX: usize>(Vec<u8>);

/// A DER object beyond its limit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{len} bytes of DER where {max} are allowed")]
pub struct DerError {
    /// Its length.
    pub len: usize,
    /// What is allowed.
    pub max: usize,
}

const REQUEST: u16 = 0x4001;
const ENROLLED: u16 = 0xc001;
const REFUSED: u16 = 0xc002;

impl<const MAX: usize> Der<MAX> {
    /// Takes bytes within the limit.
    pub fn new(bytes: Vec<u8>) -> Result<Self, DerError> {
        if bytes.len() > MAX.min(u16::MAX.into()) {
            return Err(DerError { len: bytes.len(), max: MAX });
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        Ok(Self(body.sized("length of DER", MAX)?.to_vec()))
    }
}

impl EnrollRequest {
    /// The request with its envelope.
    pub fn encode(&self) -> Bytes {
        encode(REQUEST, |body| {
            body.u16(self.versions.min);
            body.u16(self.versions.max);
            body.array(&self.token.0);
            body.array(self.secret.expose());
            body.array(&self.machine.0);
            body.text(&self.hostname);
            body.sized(&self.csr.0);
        })
    }

    /// The request in an envelope.
    pub fn decode(envelope: &Envelope) -> Result<Self, MessageError> {
        let kind = envelope.kind;
        if kind != REQUEST {
            return Err(MessageError::Type(kind));
        }
        let mut body = Reader::new(&envelope.body);
        let request = Self::read(&mut body).and_then(|request| body.end().map(|()| request));
        request.map_err(|source| MessageError::Layout { kind, source })
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        Ok(Self {
            versions: VersionRange { min: body.u16()?, max: body.u16()? },
            token: TokenId(body.array()?),
            secret: TokenSecret::from_bytes(body.array()?),
            machine: MachineId(body.array()?),
            hostname: body.text()?,
            csr: Der::read(body)?,
        })
    }
}

impl EnrollAnswer {
    /// The answer with its envelope.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Enrolled(enrolled) => encode(ENROLLED, |body| enrolled.write(body)),
            Self::Refused { code, detail } => encode(REFUSED, |body| {
                body.u32(code.number());
                body.text(detail);
            }),
        }
    }

    /// The answer in an envelope.
    pub fn decode(envelope: &Envelope) -> Result<Self, MessageError> {
        let kind = envelope.kind;
        let mut body = Reader::new(&envelope.body);
        let answer = match kind {
            ENROLLED => Enrolled::read(&mut body).map(Self::Enrolled),
            REFUSED => read_refused(&mut body),
            _ => return Err(MessageError::Type(kind)),
        };
        let checked = answer.and_then(|answer| body.end().map(|()| answer));
        checked.map_err(|source| MessageError::Layout { kind, source })
    }
}

impl Enrolled {
    fn write(&self, body: &mut Writer) {
        let chain = &self.chain[..self.chain.len().min(CHAIN_MAX)];
        body.array(&self.target.0);
        body.u8(u8::try_from(chain.len()).expect("cut to CHAIN_MAX"));
        chain.iter().for_each(|certificate| body.sized(&certificate.0));
    }

    fn read(body: &mut Reader<'_>) -> Result<Self, LayoutError> {
        let target = MachineId(body.array()?);
        let count = body.u8()?;
        if count == 0 || usize::from(count) > CHAIN_MAX {
            return Err(LayoutError::Field { field: "count of certificates", value: count.into() });
        }
        let chain = (0..count).map(|_| Der::read(body)).collect::<Result<_, _>>()?;
        Ok(Self { target, chain })
    }
}

fn read_refused(body: &mut Reader<'_>) -> Result<EnrollAnswer, LayoutError> {
    let code = CloseCode::from_number(body.u32()?);
    Ok(EnrollAnswer::Refused { code, detail: body.text()? })
}
