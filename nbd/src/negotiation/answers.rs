//! Encoding what the server says in a handshake.

use super::Offer;
use crate::numbers::{OPTION_REPLY, answer, info};
use crate::{BLOCK_PREFERRED, PAYLOAD_MAX};

/// Zeroes that follow the old answer to the choice of an export.
const PADDING: usize = 124;

/// Answers that are still to be sent.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<u8>);

impl Answers {
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn greeting(&mut self, first: u64, second: u64, flags: u16) {
        self.0.extend(first.to_be_bytes());
        self.0.extend(second.to_be_bytes());
        self.0.extend(flags.to_be_bytes());
    }

    pub(super) fn ack(&mut self, option: u32) {
        self.answer(option, answer::ACK, &[]);
    }

    pub(super) fn error(&mut self, option: u32, kind: u32, words: &str) {
        self.answer(option, kind, &[words.as_bytes()]);
    }

    pub(super) fn server(&mut self, option: u32, offer: &Offer) {
        let name = offer.name.as_bytes();
        let len = u32::try_from(name.len()).expect("an offer's name is at most 4096 bytes");
        self.answer(
            option,
            answer::SERVER,
            &[&len.to_be_bytes(), name, offer.description.as_bytes()],
        );
    }

    pub(super) fn export_info(&mut self, option: u32, offer: &Offer) {
        let (size, flags) = (offer.size().to_be_bytes(), offer.flags().to_be_bytes());
        self.answer(option, answer::INFO, &[&info::EXPORT.to_be_bytes(), &size, &flags]);
    }

    pub(super) fn block_size_info(&mut self, option: u32) {
        let minimum = 1_u32.to_be_bytes();
        let (preferred, maximum) = (BLOCK_PREFERRED.to_be_bytes(), PAYLOAD_MAX.to_be_bytes());
        let kind = info::BLOCK_SIZE.to_be_bytes();
        self.answer(option, answer::INFO, &[&kind, &minimum, &preferred, &maximum]);
    }

    pub(super) fn text_info(&mut self, option: u32, kind: u16, text: &str) {
        self.answer(option, answer::INFO, &[&kind.to_be_bytes(), text.as_bytes()]);
    }

    pub(super) fn context(&mut self, option: u32, id: u32, name: &str) {
        self.answer(option, answer::META_CONTEXT, &[&id.to_be_bytes(), name.as_bytes()]);
    }

    /// The answer to `EXPORT_NAME`, which has no envelope.
    pub(super) fn old_style_export(&mut self, offer: &Offer, zeroes: bool) {
        self.0.extend(offer.size().to_be_bytes());
        self.0.extend(offer.flags().to_be_bytes());
        if zeroes {
            self.0.extend([0; PADDING]);
        }
    }

    fn answer(&mut self, option: u32, kind: u32, data: &[&[u8]]) {
        let len: usize = data.iter().map(|part| part.len()).sum();
        let len = u32::try_from(len).expect("answers are a few KiB at most");
        self.0.extend(OPTION_REPLY.to_be_bytes());
        self.0.extend(option.to_be_bytes());
        self.0.extend(kind.to_be_bytes());
        self.0.extend(len.to_be_bytes());
        data.iter().for_each(|part| self.0.extend(*part));
    }
}
