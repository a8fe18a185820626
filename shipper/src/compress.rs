//! Compressing the data of a batch, if that is of use.
//!
//! Owns a zstd context and its output buffer, both reused for every batch. Data that would shrink
//! by less than one part in [`GAIN_MIN`] is left as it is: the target then need not decompress it.
//! To find that out cheaply, a few blocks are tried before a large batch is.

use zstd::bulk::Compressor;

/// Compression has to save one part in this many to be worth its decompression.
const GAIN_MIN: usize = 16;

/// Below this, compressing costs no more than sampling would.
const SAMPLED_MIN: usize = 128 << 10;

const SAMPLE_BLOCK: usize = 4 << 10;
const SAMPLE_BLOCKS: usize = 6;

/// How data travels.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packed<'a> {
    /// As it is.
    Raw(&'a [u8]),
    /// One zstd frame.
    Zstd(&'a [u8]),
}

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
    output: Vec<u8>,
    sample: Vec<u8>,
}

impl Packer {
    /// A compressor for data of up to `len_max` bytes.
    pub(crate) fn new(len_max: usize) -> std::io::Result<Self> {
        let level = 1;
        Ok(Self {
            zstd: Compressor::new(level)?,
            level,
            output: vec![0; len_max],
            sample: Vec::with_capacity(SAMPLE_BLOCK * SAMPLE_BLOCKS),
        })
    }

    /// Compresses `data`, or finds that it is better left alone.
    pub(crate) fn pack<'a>(&'a mut self, data: &'a [u8], effort: Effort) -> Packed<'a> {
        let Effort::Level(level) = effort else { return Packed::Raw(data) };
        if data.len() >= SAMPLED_MIN && !self.sample_shrinks(data, level) {
            return Packed::Raw(data);
        }
        match self.compress(data, level) {
            Some(len) => Packed::Zstd(&self.output[..len]),
            None => Packed::Raw(data),
        }
    }

    /// Whether a few blocks, spread evenly, shrink enough.
    fn sample_shrinks(&mut self, data: &[u8], level: i32) -> bool {
        let mut sample = std::mem::take(&mut self.sample);
        sample.clear();
        let stride = data.len() / SAMPLE_BLOCKS;
        for i in 0..SAMPLE_BLOCKS {
            sample.extend_from_slice(&data[i * stride..][..SAMPLE_BLOCK]);
        }
        let shrinks = self.compress(&sample, level).is_some();
        self.sample = sample;
        shrinks
    }

    /// Compresses into `output`, unless the result would be too long to be of use.
    fn compress(&mut self, data: &[u8], level: i32) -> Option<usize> {
        let room = data.len() - data.len().div_ceil(GAIN_MIN);
        if level != self.level && self.zstd.set_compression_level(level).is_ok() {
            self.level = level;
        }
        // The one error to expect is an output that does not fit, and whatever the error, sending
        // the data as it is remains right.
        self.zstd.compress_to_buffer(data, &mut self.output[..room]).ok()
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn text_shrinks_at_every_level_and_comes_back() {
        let data = text(LEN);
        let mut packer = Packer::new(LEN).unwrap();
        for level in [-7, -1, 1, 3, 9] {
            let Packed::Zstd(packed) = packer.pack(&data, Effort::Level(level)) else {
                panic!("text is compressible at level {level}");
            };
            assert!(packed.len() < LEN / 2);
            assert_eq!(zstd::bulk::decompress(packed, LEN).unwrap(), data);
        }
    }

    #[test]
    fn noise_and_what_is_to_be_stored_stay_as_they_are() {
        let mut packer = Packer::new(LEN).unwrap();
        for len in [1, 512, 4096, SAMPLED_MIN, LEN] {
            let data = noise(len);
            assert_eq!(packer.pack(&data, Effort::Level(1)), Packed::Raw(&data[..]));
        }
        let data = text(LEN);
        assert_eq!(packer.pack(&data, Effort::Store), Packed::Raw(&data[..]));
    }

    #[test]
    fn noise_that_a_sample_misses_is_not_sent_longer() {
        let mut data = noise(LEN);
        for i in 0..SAMPLE_BLOCKS {
            data[i * (LEN / SAMPLE_BLOCKS)..][..SAMPLE_BLOCK].fill(b' ');
        }
        let mut packer = Packer::new(LEN).unwrap();
        assert_eq!(packer.pack(&data, Effort::Level(1)), Packed::Raw(&data[..]));
    }
}
