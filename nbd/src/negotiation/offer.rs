//! What a client is told of an export before it has chosen.

use crate::export::Export;
use crate::numbers::{STRING_LEN_MAX, transmission};

/// An export by its name and its properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub(super) name: String,
    pub(super) description: String,
    size: u64,
    writable: bool,
}

impl Offer {
    /// An offer of `export`. Name and description are cut to what the protocol carries, 4096 bytes.
    pub fn new(name: &str, description: &str, export: &dyn Export) -> Self {
        Self {
            name: cut(name),
            description: cut(description),
            size: export.len(),
            writable: export.writable().is_some(),
        }
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether clients may write.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// What it can do, in the protocol's bits.
    ///
    /// Several connections see one another's writes here, but a flush on one is promised to cover
    /// the others only where there are none: on read-only exports.
    pub(super) fn flags(&self) -> u16 {
        use transmission as t;
        let always = t::HAS_FLAGS | t::SEND_DF | t::SEND_CACHE;
        if self.writable {
            let writes = t::SEND_FLUSH | t::SEND_FUA | t::SEND_TRIM;
            always | writes | t::SEND_WRITE_ZEROES | t::SEND_FAST_ZERO
        } else {
            always | t::READ_ONLY | t::CAN_MULTI_CONN
        }
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(STRING_LEN_MAX)].to_owned()
}
