//! Identities: 128 random bits each, written as 32 hexadecimal digits.

use std::{fmt, str::FromStr};

/// Text that is not 32 hexadecimal digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an identity is 32 hexadecimal digits, optionally with hyphens")]
pub struct ParseIdentityError;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdentityError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse(text).map(Self)
            }
        }
    };
}

identity! {
    /// One protected disk, chosen at random when protection is asked for.
    DiskId
}
identity! {
    /// One machine, chosen at random when it is enrolled.
    MachineId
}
identity! {
    /// One line of a disk's history. It changes whenever that history forks.
    Generation
}
identity! {
    /// One recovery point of a machine, chosen at random when its cut is made.
    PointId
}

fn parse(text: &str) -> Result<[u8; 16], ParseIdentityError> {
    let mut bytes = [0; 16];
    let mut digits = text.chars().filter(|c| *c != '-');
    for byte in &mut bytes {
        let mut digit = || digits.next().and_then(|c| c.to_digit(16)).ok_or(ParseIdentityError);
        *byte = u8::try_from(digit()? * 16 + digit()?).map_err(|_| ParseIdentityError)?;
    }
    if digits.next().is_some() { Err(ParseIdentityError) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let id = DiskId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("00112233-4455-6677-8899-aabbccddeeff".parse::<DiskId>().unwrap().0[1], 0x11);
        for bad in ["", "00", "zz112233445566778899aabbccddeeff", &"0".repeat(33)] {
            assert_eq!(bad.parse::<DiskId>(), Err(ParseIdentityError));
        }
    }
}
