//! Secrets: random bytes that are overwritten when dropped and never printed.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A secret of `N` bytes. Compared in a time that does not depend on where two secrets differ.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct RandomError(getrandom::Error);

impl<const N: usize> Secret<N> {
    /// Its length in bytes.
    pub const LEN: usize = N;

    /// A new random secret.
    pub fn generate() -> Result<Self, RandomError> {
        random().map(Self)
    }

    /// A secret kept elsewhere.
    pub const fn from_bytes(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The secret itself, to be kept or sent; whoever asks is responsible for the copy.
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> std::fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret<{N}>(..)")
    }
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(RandomError)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::from_bytes([0xab; 32])), "Secret<32>(..)");
    }

    #[test]
    fn secrets_differ_by_chance_and_are_compared_whole() {
        let secret = Secret::<32>::generate().unwrap();
        assert_ne!(secret, Secret::generate().unwrap());
        let mut bytes = *secret.expose();
        assert_eq!(secret, Secret::from_bytes(bytes));
        bytes[31] ^= 1;
        assert_ne!(secret, Secret::from_bytes(bytes));
    }
}
