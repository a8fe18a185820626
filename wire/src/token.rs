//! Enrolment tokens: what an operator carries from the target to a new machine.
//!
//! A token names itself, proves that its bearer was told, and tells the new machine which
//! authority to expect, so that it can't be enrolled by anybody else. `docs/wire.md` has the
//! layout of the bytes; how they are written for people is the binary's.

use zeroize::Zeroizing;

use crate::layout::Reader;
use crate::secret::{RandomError, Secret, random};

const VERSION: u8 = 1;

/// What the bearer of a token proves to know.
pub type TokenSecret = Secret<16>;

/// The name of a token, by which the target finds it; not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 8]);

/// An enrolment token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name.
    pub id: TokenId,
    /// What its bearer proves to know.
    pub secret: TokenSecret,
    /// SHA-256 of the certificate (DER) of the authority that the target's own must come from.
    pub ca_sha256: [u8; 32],
}

/// Why bytes are no token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Too short or too long.
    #[error("a token is {expected} bytes long, this has {0}", expected = Token::LEN)]
    Length(usize),
    /// Mistyped, or cut and pasted badly.
    #[error("the token's checksum does not match: it was not copied right")]
    Checksum,
    /// A token of a later version.
    #[error("a token of version {0}; this is version {VERSION}")]
    Version(u8),
}

impl Token {
    /// Its length in bytes.
    pub const LEN: usize = 61;

    /// A new token with a random id and secret.
    pub fn generate(ca_sha256: [u8; 32]) -> Result<Self, RandomError> {
        Ok(Self { id: TokenId(random()?), secret: Secret::generate()?, ca_sha256 })
    }

    /// The token as bytes; as secret as the token.
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::LEN]> {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.id.0);
        bytes[9..25].copy_from_slice(self.secret.expose());
        bytes[25..57].copy_from_slice(&self.ca_sha256);
        let checksum = crc32c::crc32c(&bytes[..57]);
        bytes[57..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// A token from bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenError> {
        let bytes: &[u8; Self::LEN] =
            bytes.try_into().map_err(|_| TokenError::Length(bytes.len()))?;
        let length = |_| TokenError::Length(bytes.len());
        let mut reader = Reader::new(bytes);
        let version = reader.u8().map_err(length)?;
        let id = TokenId(reader.array().map_err(length)?);
        let secret = Secret::from_bytes(reader.array().map_err(length)?);
        let ca_sha256 = reader.array().map_err(length)?;
        if reader.u32().map_err(length)? != crc32c::crc32c(&bytes[..57]) {
            return Err(TokenError::Checksum);
        }
        if version != VERSION {
            return Err(TokenError::Version(version));
        }
        Ok(Self { id, secret, ca_sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> Token {
        Token { id: TokenId([1; 8]), secret: Secret::from_bytes([2; 16]), ca_sha256: [3; 32] }
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let mut golden = vec![1];
        golden.extend([1; 8]);
        golden.extend([2; 16]);
        golden.extend([3; 32]);
        golden.extend(crc32c::crc32c(&golden).to_le_bytes());
        assert_eq!(token().to_bytes().as_slice(), golden);
        assert_eq!(Token::from_bytes(&golden), Ok(token()));
    }

    #[test]
    fn a_token_copied_badly_is_refused() {
        let bytes = token().to_bytes();
        for bit in 0..Token::LEN * 8 {
            let mut bytes = *bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Token::from_bytes(&bytes), Err(TokenError::Checksum));
        }
        for len in 0..Token::LEN {
            assert_eq!(Token::from_bytes(&bytes[..len]), Err(TokenError::Length(len)));
        }
    }

    #[test]
    fn a_token_of_a_later_version_is_named_as_such() {
        let mut bytes = *token().to_bytes();
        bytes[0] = 2;
        let checksum = crc32c::crc32c(&bytes[..57]);
        bytes[57..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Token::from_bytes(&bytes), Err(TokenError::Version(2)));
    }

    proptest! {
        #[test]
        fn garbage_is_no_token(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Token::from_bytes(&bytes).is_err());
        }
    }
}
