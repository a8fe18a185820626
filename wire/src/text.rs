//! Text of a peer: short, valid UTF-8, and safe to print.

use std::fmt;

/// At most `MAX` bytes of UTF-8 without control characters, so that a peer can't write to
/// somebody's terminal or log what only looks like a line of ours.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text<const MAX: usize>(String);

/// Why a string is no [`Text`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TextError {
    /// Too long.
    #[error("a text of {len} bytes where {max} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// What is allowed.
        max: usize,
    },
    /// Not UTF-8.
    #[error("a text that is not UTF-8")]
    NotUtf8,
    /// It holds a control character.
    #[error("a text with a control character")]
    Control,
}

impl<const MAX: usize> Text<MAX> {
    /// A text that is exactly `text`.
    pub fn new(text: &str) -> Result<Self, TextError> {
        if text.len() > MAX {
            return Err(TextError::TooLong { len: text.len(), max: MAX });
        }
        if text.chars().any(char::is_control) {
            return Err(TextError::Control);
        }
        Ok(Self(text.to_owned()))
    }

    /// A text as near to `text` as can be: control characters become spaces, the end is cut off.
    pub fn lossy(text: &str) -> Self {
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let mut cut = String::new();
        for c in printable {
            if cut.len() + c.len_utf8() > MAX {
                break;
            }
            cut.push(c);
        }
        Self(cut)
    }

    /// A text from the bytes of a peer, whose length the caller has bounded.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        Self::new(std::str::from_utf8(bytes).map_err(|_| TextError::NotUtf8)?)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_write_to_a_terminal_is_refused_or_replaced() {
        assert_eq!(Text::<8>::new("a\x1b[2J"), Err(TextError::Control));
        assert_eq!(Text::<8>::lossy("a\nb\x1b").as_str(), "a b ");
        assert_eq!(Text::<8>::from_bytes(&[0xff]), Err(TextError::NotUtf8));
    }

    #[test]
    fn the_limit_counts_bytes_and_keeps_characters_whole() {
        assert_eq!(Text::<3>::new("abcd"), Err(TextError::TooLong { len: 4, max: 3 }));
        assert_eq!(Text::<3>::lossy("aäö").as_str(), "aä");
    }
}
