//! How hard to compress: an adaptive controller.
//!
//! Pure. It is shown, at a steady pace, where work piles up and how idle the processors are, says
//! what the bottleneck is, and moves the zstd level one step towards what relieves it:
//!
//! | bottleneck | level |
//! |---|---|
//! | processor  | down, to the floor: fewer cycles a byte |
//! | link       | up, to the ceiling: fewer bytes to send |
//! | disk       | towards [`LevelRange::RESTING`]: cycles are free, but somebody else's too |
//!
//! A step needs the same verdict twice in a row, so that one odd observation moves nothing.

#[cfg(test)]
mod tests;

/// The levels the controller may choose, both included: `-7 <= floor <= ceiling <= 9`, without 0,
/// which zstd takes for "the default".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelRange {
    floor: i32,
    ceiling: i32,
}

/// A range of levels that is empty, leaves -7 to 9, or ends at 0.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("zstd levels from {floor} to {ceiling}: the range is -7 to 9 without 0, the lower first")]
pub struct LevelRangeError {
    /// The lowest level asked for.
    pub floor: i32,
    /// The highest level asked for.
    pub ceiling: i32,
}

impl LevelRange {
    /// Where the level rests when the disk is the bottleneck, if the range holds it.
    pub const RESTING: i32 = 1;

    /// Where the level starts, if the range holds it.
    pub const FIRST: i32 = -1;

    /// A range from `floor` to `ceiling`.
    pub fn new(floor: i32, ceiling: i32) -> Result<Self, LevelRangeError> {
        if floor < -7 || ceiling > 9 || floor > ceiling || floor == 0 || ceiling == 0 {
            return Err(LevelRangeError { floor, ceiling });
        }
        Ok(Self { floor, ceiling })
    }
}

impl Default for LevelRange {
    fn default() -> Self {
        Self { floor: -7, ceiling: 9 }
    }
}

/// What holds the pipeline back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bottleneck {
    /// Nothing runs, or nothing stands out.
    None,
    /// Reading.
    Disk,
    /// Compressing and sealing, or whatever else keeps the processors busy.
    Processor,
    /// Whoever takes the frames.
    Link,
}

impl Bottleneck {
    pub(crate) const ALL: [Self; 4] = [Self::None, Self::Disk, Self::Processor, Self::Link];
}

/// Where work piles up, each a share from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Batches read and waiting for a worker, of those that may wait.
    pub backlog: f32,
    /// Frames sealed and not yet taken, of those that may be outstanding.
    pub outbox: f32,
    /// Processor time that nobody used, over the whole machine; none where it can't be known.
    pub idle: Option<f32>,
}

impl Load {
    const FULL: f32 = 0.5;
    const BUSY: f32 = 0.1;

    /// What holds the pipeline back under this load.
    ///
    /// Busy processors come before a full outbox: on a busy machine the outbox is full because
    /// the one who empties it waits for a processor, and compressing more would starve him more.
    pub fn bottleneck(&self) -> Bottleneck {
        let busy = self.idle.is_some_and(|idle| idle < Self::BUSY);
        if busy || self.backlog >= Self::FULL {
            Bottleneck::Processor
        } else if self.outbox >= Self::FULL {
            Bottleneck::Link
        } else {
            Bottleneck::Disk
        }
    }
}

/// The controller; see the module.
#[derive(Clone, Debug)]
pub struct LevelController {
    range: LevelRange,
    level: i32,
    verdict: Bottleneck,
}

impl LevelController {
    /// A controller that stays within `range`.
    pub fn new(range: LevelRange) -> Self {
        let level = LevelRange::FIRST.clamp(range.floor, range.ceiling);
        Self { range, level, verdict: Bottleneck::None }
    }

    /// The zstd level to use now.
    pub fn level(&self) -> i32 {
        self.level
    }

    /// What the last observation showed.
    pub fn bottleneck(&self) -> Bottleneck {
        self.verdict
    }

    /// Nothing runs: forgets the last verdict, keeps the level.
    pub fn handle_idle(&mut self) {
        self.verdict = Bottleneck::None;
    }

    /// Takes an observation in.
    pub fn handle_load(&mut self, load: Load) {
        let verdict = load.bottleneck();
        if verdict == self.verdict {
            self.step_towards(verdict);
        }
        self.verdict = verdict;
    }

    fn step_towards(&mut self, verdict: Bottleneck) {
        let goal = match verdict {
            Bottleneck::None => self.level,
            Bottleneck::Processor => self.range.floor,
            Bottleneck::Link => self.range.ceiling,
            Bottleneck::Disk => LevelRange::RESTING.clamp(self.range.floor, self.range.ceiling),
        };
        let step = (goal - self.level).signum();
        // No bound is 0, so a step on to 0 can be a step across it.
        self.level += if self.level + step == 0 { 2 * step } else { step };
    }
}
