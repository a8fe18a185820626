//! The index of a delta: where its frames are, and what of the disk each holds.
//!
//! Version 1 bounds what a frame touches; the exact extents are in the frame's own table. Version 2
//! has them in the index too, so that a view is opened without reading a frame. An index whose
//! checksum holds is right by accident or not at all, but it is not authentic: whoever uses an
//! extent looks it up in the frame, which is.

use blocks::Sector;
use wire::{
    Content, EpochSummary, FrameExtent,
    frame::{EXTENTS_MAX, FRAME_LEN_MAX},
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

/// No disk has more sectors; the limit of [`blocks::Geometry`].
const SECTORS_MAX: u64 = 1 << 45;

pub(super) const BOUNDS_ENTRY_LEN: u64 = size_of::<RawBounds>() as u64;

/// Where a content frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameAt {
    /// From the start of the file.
    pub(crate) offset: u64,
    pub(crate) len: u32,
    /// How many extents it has; 0 if the index does not say.
    pub(crate) extents: u16,
}

/// The frames of a delta in order of the file, and their extents if the index lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) frames: Vec<FrameAt>,
    /// Of all frames, in the order of the frames.
    pub(crate) extents: Vec<FrameExtent>,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawBounds {
    offset: U64,
    first: U64,
    end: U64,
    len: U32,
    reserved: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFrame {
    len: U32,
    extents: U16,
    reserved: U16,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawExtent {
    start: U64,
    sectors: U32,
    content: U32,
}

const _: () = assert!(size_of::<RawBounds>() == 32);
const _: () = assert!(size_of::<RawFrame>() == 8 && size_of::<RawExtent>() == 16);

/// Bytes of an index of version 2.
pub(super) const fn exact_len(frames: u64, extents: u64) -> u64 {
    frames * size_of::<RawFrame>() as u64 + extents * size_of::<RawExtent>() as u64
}

impl Index {
    /// Adds the next frame of the file.
    pub(super) fn push(&mut self, len: u32, extents: &[FrameExtent]) {
        let offset = self.end();
        let count = u16::try_from(extents.len()).expect("a checked frame has few extents");
        self.frames.push(FrameAt { offset, len, extents: count });
        self.extents.extend_from_slice(extents);
    }

    /// Where the content frames end and the end frame begins.
    pub(super) fn end(&self) -> u64 {
        self.frames.last().map_or(0, |last| last.offset + u64::from(last.len))
    }

    /// The index of version 2.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in &self.frames {
            let raw = RawFrame {
                len: frame.len.into(),
                extents: frame.extents.into(),
                reserved: U16::ZERO,
            };
            bytes.extend_from_slice(raw.as_bytes());
        }
        for extent in &self.extents {
            let raw = RawExtent {
                start: extent.start.0.into(),
                sectors: extent.sectors.into(),
                content: (extent.content as u32).into(),
            };
            bytes.extend_from_slice(raw.as_bytes());
        }
        bytes
    }

    /// The index of version 1 of which the checksum holds: frames from the start of the file, one
    /// after the other, none longer than a frame can be, all before `frames_end`.
    pub(super) fn decode_bounds(bytes: &[u8], frames_end: u64) -> Option<Self> {
        let raw = <[RawBounds]>::ref_from_bytes(bytes).ok()?;
        let mut index = Self::default();
        for entry in raw {
            let is_next = entry.offset.get() == index.end();
            if !is_next || !is_frame_len(entry.len.get()) || entry.first.get() >= entry.end.get() {
                return None;
            }
            index.push(entry.len.get(), &[]);
        }
        // The end frame lies between the last content frame and the index.
        (index.end() < frames_end).then_some(index)
    }

    /// The index of version 2 of which the checksum holds: as many frames as `summary` counts,
    /// and of each the extents, ascending and disjoint, which add up to what `summary` says.
    /// `frames_end` is where the last content frame ends.
    pub(super) fn decode_exact(
        bytes: &[u8],
        summary: &EpochSummary,
        frames_end: u64,
    ) -> Option<Self> {
        let count = usize::try_from(summary.frames).ok()?;
        let (frames, rest) = <[RawFrame]>::ref_from_prefix_with_elems(bytes, count).ok()?;
        let raw = <[RawExtent]>::ref_from_bytes(rest).ok()?;
        let mut index =
            Self { frames: Vec::with_capacity(count), extents: Vec::with_capacity(raw.len()) };
        let mut rest = raw;
        let (mut data_bytes, mut zero_bytes) = (0, 0);
        for frame in frames {
            let (len, extents) = (frame.len.get(), frame.extents.get());
            if !is_frame_len(len) || !(1..=EXTENTS_MAX).contains(&extents) {
                return None;
            }
            index.frames.push(FrameAt { offset: index.end(), len, extents });
            let mut reached = Sector(0);
            for raw in rest.split_off(..usize::from(extents))? {
                let extent = decode_extent(raw).filter(|extent| extent.start >= reached)?;
                reached = extent.extent().end();
                match extent.content {
                    Content::Data => data_bytes += extent.extent().len().0,
                    Content::Zeroes => zero_bytes += extent.extent().len().0,
                }
                index.extents.push(extent);
            }
        }
        let adds_up = (data_bytes, zero_bytes) == (summary.data_bytes, summary.zero_bytes);
        (rest.is_empty() && adds_up && index.end() == frames_end).then_some(index)
    }
}

fn is_frame_len(len: u32) -> bool {
    len > 0 && len as usize <= FRAME_LEN_MAX
}

fn decode_extent(raw: &RawExtent) -> Option<FrameExtent> {
    let content = match raw.content.get() {
        0 => Content::Data,
        1 => Content::Zeroes,
        _ => return None,
    };
    let extent =
        FrameExtent { start: Sector(raw.start.get()), sectors: raw.sectors.get(), content };
    (extent.sectors > 0 && extent.extent().end().0 <= SECTORS_MAX).then_some(extent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_index_of_bounds_is_a_gapless_run_of_frames() {
        let entry = |offset: u64, len: u32, first: u64, end: u64| {
            let (offset, first, end) = (offset.into(), first.into(), end.into());
            RawBounds { offset, first, end, len: len.into(), reserved: U32::ZERO }
        };
        let decode = |raw: &[RawBounds]| Index::decode_bounds(raw.as_bytes(), 1000);
        let good = [entry(0, 300, 5, 9), entry(300, 400, 0, 1)];
        assert_eq!(decode(&good).unwrap().frames.len(), 2);
        assert_eq!(decode(&[]).unwrap().frames.len(), 0);
        for bad in [
            [entry(0, 300, 5, 9), entry(301, 400, 0, 1)],
            [entry(0, 300, 5, 9), entry(300, 700, 0, 1)],
            [entry(0, 300, 5, 5), entry(300, 400, 0, 1)],
            [entry(0, 0, 5, 9), entry(0, 400, 0, 1)],
            [entry(0, u32::MAX, 5, 9), entry(u64::from(u32::MAX), 400, 0, 1)],
        ] {
            assert_eq!(decode(&bad), None);
        }
        assert_eq!(Index::decode_bounds(&good.as_bytes()[1..], 1000), None);
    }

    fn extent(start: u64, sectors: u32, content: Content) -> FrameExtent {
        FrameExtent { start: Sector(start), sectors, content }
    }

    fn index(extents: [&[FrameExtent]; 2]) -> Index {
        let mut index = Index::default();
        index.push(300, extents[0]);
        index.push(400, extents[1]);
        index
    }

    #[test]
    fn an_exact_index_adds_up_to_what_the_trailer_says() {
        use Content::{Data, Zeroes};
        let first = [extent(9, 2, Data), extent(11, 5, Zeroes)];
        let second = [extent(0, 3, Data)];
        let good = index([&first, &second]);
        let bytes = good.encode();
        assert_eq!(bytes.len() as u64, exact_len(2, 3));
        assert_eq!(
            bytes[..24],
            [44, 1, 0, 0, 2, 0, 0, 0, 144, 1, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]
        );
        let summary =
            EpochSummary { frames: 2, data_bytes: 5 * 512, zero_bytes: 5 * 512, completes: true };
        let decode = |index: &Index| Index::decode_exact(&index.encode(), &summary, 700);
        assert_eq!(decode(&good), Some(good.clone()));
        for bad in [
            index([&[extent(9, 2, Data), extent(10, 5, Zeroes)], &second]),
            index([&[extent(11, 5, Zeroes), extent(9, 2, Data)], &second]),
            index([&[extent(9, 2, Data), extent(11, 6, Zeroes)], &second]),
            index([&[extent(9, 2, Zeroes), extent(11, 5, Zeroes)], &second]),
            index([&first, &[extent(0, 3, Data), extent(4, 0, Data)]]),
            index([&first, &[extent((1 << 45) - 2, 3, Data)]]),
            index([&first, &[]]),
        ] {
            assert_eq!(decode(&bad), None, "{bad:?}");
        }
        assert_eq!(Index::decode_exact(&bytes, &summary, 701), None);
        assert_eq!(Index::decode_exact(&bytes[..bytes.len() - 1], &summary, 700), None);
        assert_eq!(Index::decode_exact(&bytes, &EpochSummary { frames: 3, ..summary }, 700), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200), frames in 0u64..12, end: u64,
            (data_bytes, zero_bytes) in any::<(u64, u64)>(),
        ) {
            let summary = EpochSummary { frames, data_bytes, zero_bytes, completes: true };
            let _ = Index::decode_exact(&bytes, &summary, end);
            let _ = Index::decode_bounds(&bytes, end);
        }
    }
}
