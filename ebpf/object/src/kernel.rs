//! The version of the running kernel.

use std::{fmt, io};

use nix::sys::utsname::uname;

/// A kernel's release: the text, and its first two numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    text: String,
    version: (u32, u32),
}

impl Release {
    /// Of the running kernel.
    pub fn running() -> io::Result<Self> {
        let system = uname()?;
        let text = system.release().to_string_lossy();
        Self::parse(&text).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("unexpected release {text:?}"))
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self { text: text.to_owned(), version })
    }

    /// Whether it is older than a version, by the first two numbers.
    pub fn is_before(&self, version: (u32, u32)) -> bool {
        self.version < version
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_compare_by_their_first_two_numbers() {
        let before = |text, version| Release::parse(text).unwrap().is_before(version);
        assert!(before("6.1.0-56-cloud-amd64", (6, 3)));
        assert!(!before("6.12.117", (6, 3)));
        assert!(!before("7.2-rc1", (6, 19)));
        assert!(before("5.10.0", (5, 15)));
        assert_eq!(Release::parse("unknown"), None);
    }
}
