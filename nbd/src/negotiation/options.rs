//! The data of the options that have some.

use crate::layout::{Malformed, Reader};
use crate::numbers::STRING_LEN_MAX;

/// Data of `INFO` and `GO`: an export's name, and what is wanted of it.
pub(super) struct InfoRequest<'a> {
    pub(super) name: &'a str,
    wants: Vec<u16>,
}

impl<'a> InfoRequest<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(data);
        let name = reader.string(STRING_LEN_MAX)?;
        let count = reader.u16()?;
        let wants = (0..count).map(|_| reader.u16()).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { name, wants })
    }

    pub(super) fn wants(&self, kind: u16) -> bool {
        self.wants.contains(&kind)
    }
}

/// Data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`: an export's name, and queries.
pub(super) struct ContextQuery<'a> {
    pub(super) name: &'a str,
    pub(super) queries: Vec<&'a str>,
}

impl<'a> ContextQuery<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(data);
        let name = reader.string(STRING_LEN_MAX)?;
        let count = reader.u32()?;
        // Each takes four bytes at least, so that the data bounds what a wrong count collects.
        let queries =
            (0..count).map(|_| reader.string(STRING_LEN_MAX)).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { name, queries })
    }
}
