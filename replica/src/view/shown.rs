//! A map by frame instead of by place: which of its segments are in a frame.
//!
//! Four bytes a segment, so that whoever has decoded a frame finds what of it is shown without
//! looking all of it up.

use super::map::Segment;

/// The segments of each frame, ascending, as places in the map.
#[derive(Debug)]
pub(super) struct Shown {
    /// Where the segments of each frame begin, and at last where those of the last one end.
    begins: Vec<u32>,
    segments: Vec<u32>,
}

impl Shown {
    /// Of a map whose segments are in frames of numbers below `frames`; nothing if it has more
    /// segments than can be numbered.
    pub(super) fn of(map: &[Segment], frames: usize) -> Option<Self> {
        u32::try_from(map.len()).ok()?;
        let in_frames = || {
            let numbered = (0u32..).zip(map);
            numbered.filter_map(|(at, segment)| Some((at, segment.source().as_frame()? as usize)))
        };
        let mut begins = vec![0; frames + 1];
        in_frames().for_each(|(_, frame)| begins[frame + 1] += 1);
        for frame in 0..frames {
            begins[frame + 1] += begins[frame];
        }
        let mut next = begins.clone();
        let mut segments = vec![0; begins[frames] as usize];
        for (at, frame) in in_frames() {
            segments[next[frame] as usize] = at;
            next[frame] += 1;
        }
        Some(Self { begins, segments })
    }

    /// What is shown of a frame.
    pub(super) fn of_frame(&self, frame: u32) -> &[u32] {
        let begin = |frame: usize| self.begins[frame] as usize;
        &self.segments[begin(frame as usize)..begin(frame as usize + 1)]
    }
}

#[cfg(test)]
mod tests {
    use blocks::Sector;
    use wire::{Content, FrameExtent};

    use super::*;
    use crate::view::Source;

    #[test]
    fn every_segment_is_found_by_its_frame() {
        let segment = |start: u64, frame: Option<u64>| {
            let content = if frame.is_some() { Content::Data } else { Content::Zeroes };
            let extent = FrameExtent { start: Sector(start), sectors: 1, content };
            Segment::new(&extent, Source::frame(frame.unwrap_or(0)).unwrap())
        };
        let frames = [Some(2), Some(0), None, Some(2), Some(0), Some(2)];
        let map: Vec<_> = (0..).zip(frames).map(|(at, frame)| segment(at, frame)).collect();
        let shown = Shown::of(&map, 4).unwrap();
        let of_frames = [0, 1, 2, 3].map(|frame| shown.of_frame(frame));
        assert_eq!(of_frames, [&[1, 4][..], &[], &[0, 3, 5], &[]]);
        assert_eq!(Shown::of(&[], 0).unwrap().segments.len(), 0);
    }
}
