//! Compressing the data of a batch, if that is of use.
//!
//! Owns a zstd context, reused for every batch, and writes into the frame that will carry the data,
//! where it is sealed in place: between the buffer that was read and the wire it is copied nowhere.
//! Data that would shrink by less than one part in [`GAIN_MIN`] is left as it is: the target then
//! need not decompress it. To find that out cheaply, a few blocks are tried before a large batch is.

use wire::{Codec, FrameBuffer};
use zstd::bulk::Compressor;

/// Compression has to save one part in this many to be worth its decompression.
const GAIN_MIN: usize = 16;

/// Below this, compressing costs no more than sampling would.
const SAMPLED_MIN: usize = 128 << 10;

const SAMPLE_BLOCK: usize = 4 << 10;
const SAMPLE_BLOCKS: usize = 6;

/// What to do to data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Nothing.
    Store,
    /// Compress at this zstd level.
    Level(i32),
}

/// A worker's compressor.
pub(crate) struct Packer {
    zstd: Compressor<'static>,
    level: i32,
    sample: Vec<u8>,
    /// Where the sample is compressed to.
    tried: Vec<u8>,
}

impl Packer {
    /// A compressor.
    pub(crate) fn new() -> std::io::Result<Self> {
        let (level, sampled) = (1, SAMPLE_BLOCK * SAMPLE_BLOCKS);
        Ok(Self {
            zstd: Compressor::new(level)?,
            level,
            sample: Vec::with_capacity(sampled),
            tried: vec![0; room_for(sampled)],
        })
    }

    /// Compresses `data` into the payload of an empty frame, or copies it there where that is
    /// better. The frame takes no more memory than it needs.
    pub(crate) fn pack(&mut self, data: &[u8], effort: Effort, frame: &mut FrameBuffer) -> Codec {
        let worth_it = match effort {
            Effort::Store => false,
            Effort::Level(level) => {
                self.use_level(level);
                (data.len() < SAMPLED_MIN || self.sample_shrinks(data)) && self.code(data, frame)
            }
        };
        if worth_it {
            return Codec::Zstd;
        }
        frame.clear();
        frame.reserve(data.len());
        frame.extend(data);
        Codec::Raw
    }

    /// Compresses into the frame; whether that was of use.
    fn code(&mut self, data: &[u8], frame: &mut FrameBuffer) -> bool {
        let room = room_for(data.len());
        frame.reserve(room);
        // The one error to expect is an output that does not fit, and whatever the error, sending
        // the data as it is remains right. An allocation may have more room than was asked for.
        let coded = self.zstd.compress_to_buffer(data, &mut frame.cursor());
        let worth_it = coded.is_ok_and(|len| len <= room);
        frame.shrink();
        worth_it
    }

    /// Whether a few blocks, spread evenly, shrink enough.
    fn sample_shrinks(&mut self, data: &[u8]) -> bool {
        self.sample.clear();
        let stride = data.len() / SAMPLE_BLOCKS;
        for i in 0..SAMPLE_BLOCKS {
            self.sample.extend_from_slice(&data[i * stride..][..SAMPLE_BLOCK]);
        }
        self.zstd.compress_to_buffer(&self.sample, &mut self.tried[..]).is_ok()
    }

    fn use_level(&mut self, level: i32) {
        if level != self.level && self.zstd.set_compression_level(level).is_ok() {
            self.level = level;
        }
    }
}

/// What data may be compressed to and be worth its decompression.
fn room_for(len: usize) -> usize {
    len - len.div_ceil(GAIN_MIN)
}

#[cfg(test)]
mod tests {
    use blocks::{DiskId, Epoch, EpochKind, Generation, Sector};
    use wire::{
        CheckedFrame, Content, DataKey, EpochLink, FrameExtent, FrameSpec, Opener, Sealer, Sequence,
    };

    use super::*;

    const LEN: usize = 1 << 20;

    fn text(len: usize) -> Vec<u8> {
        let words = [&b"recovery "[..], b"point ", b"epoch ", b"of the ", b"replica ", b"disk\n"];
        let mut state = 1u64;
        let mut bytes = Vec::new();
        while bytes.len() < len {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(words[(state >> 33) as usize % words.len()]);
        }
        bytes.truncate(len);
        bytes
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    /// What a packer makes of data, and the payload.
    fn pack(packer: &mut Packer, data: &[u8], effort: Effort) -> (Codec, Vec<u8>) {
        let sectors = u32::try_from(data.len().div_ceil(512)).unwrap();
        let extents = [FrameExtent { start: Sector(0), sectors, content: Content::Data }];
        let mut frame = FrameBuffer::new(1, 0);
        let codec = packer.pack(data, effort, &mut frame);
        let key = DataKey::generate().unwrap();
        let sealer = Sealer::new(&key, DiskId([1; 16]), Generation([2; 16])).unwrap();
        let link = EpochLink { kind: EpochKind::Seed, epoch: Epoch(1), follows: Epoch(0) };
        let spec = FrameSpec { link, sequence: Sequence(0), codec, extents: &extents };
        let frame = CheckedFrame::parse(sealer.seal_buffer(&spec, frame).unwrap()).unwrap();
        (codec, Opener::new(&key).open(&frame).unwrap().payload)
    }

    #[test]
    fn text_shrinks_at_every_level_and_comes_back() {
        let data = text(LEN);
        let mut packer = Packer::new().unwrap();
        for level in [-7, -1, 1, 3, 9] {
            let (codec, packed) = pack(&mut packer, &data, Effort::Level(level));
            assert_eq!(codec, Codec::Zstd, "text is compressible at level {level}");
            assert!(packed.len() < LEN / 2);
            assert_eq!(zstd::bulk::decompress(&packed, LEN).unwrap(), data);
        }
    }

    #[test]
    fn noise_and_what_is_to_be_stored_stay_as_they_are() {
        let mut packer = Packer::new().unwrap();
        for len in [512, 4096, SAMPLED_MIN, LEN] {
            let data = noise(len);
            assert_eq!(pack(&mut packer, &data, Effort::Level(1)), (Codec::Raw, data));
        }
        let data = text(LEN);
        assert_eq!(pack(&mut packer, &data, Effort::Store), (Codec::Raw, data));
    }

    #[test]
    fn noise_that_a_sample_misses_is_not_sent_longer() {
        let mut data = noise(LEN);
        for i in 0..SAMPLE_BLOCKS {
            data[i * (LEN / SAMPLE_BLOCKS)..][..SAMPLE_BLOCK].fill(b' ');
        }
        let mut packer = Packer::new().unwrap();
        assert_eq!(pack(&mut packer, &data, Effort::Level(1)), (Codec::Raw, data));
    }
}
