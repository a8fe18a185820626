//! Paths inside a store: made of names this program chose, never of a peer's string.

use std::fmt;

const NAME_MAX: usize = 128;

/// A relative path of zero or more plain names. The path of zero names is the store itself.
///
/// A name is 1 to 128 of `A-Z a-z 0-9 . _ -` and does not begin with a dot, so that no path leaves
/// the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(String);

/// A name that can't be part of a path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a plain name")]
pub struct StorePathError(pub String);

impl StorePath {
    /// The store itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of `name` in this directory.
    pub fn child(&self, name: &str) -> Result<Self, StorePathError> {
        if !is_plain(name) {
            return Err(StorePathError(name.to_owned()));
        }
        let separator = if self.0.is_empty() { "" } else { "/" };
        Ok(Self(format!("{}{separator}{name}", self.0)))
    }

    /// The path of `name` in this directory, for names the program itself has made.
    ///
    /// # Panics
    /// If `name` is not a plain name. Names that come from outside go through
    /// [`StorePath::child`].
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        self.child(name).expect("names made by the program are plain")
    }

    /// The directory that holds this path; the store's parent is the store.
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(self.0.rsplit_once('/').map_or_else(String::new, |(parent, _)| parent.to_owned()))
    }

    /// The last name, empty for the store itself.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The path as text, its names separated by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_MAX).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_the_store() {
        for bad in ["", ".", "..", ".hidden", "a/b", "a\0b", "ä", &"x".repeat(129)] {
            assert_eq!(StorePath::root().child(bad), Err(StorePathError(bad.to_owned())));
        }
    }

    #[test]
    fn parents_and_names() {
        let path = StorePath::root().join("disks").join("base");
        assert_eq!(path.as_str(), "disks/base");
        assert_eq!((path.parent().as_str(), path.name()), ("disks", "base"));
        assert_eq!(path.parent().parent(), StorePath::root());
    }
}
