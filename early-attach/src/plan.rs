//! Where to look for the records of last logs: the agent writes it, the initramfs carries it.
//!
//! A line a disk: its identity, as 32 hexadecimal digits, and the first byte of the record on the
//! disk that holds it. Which disk that is, and which is the one to track, is found by what is
//! on them. `#` begins a comment.

use blocks::DiskId;

/// More disks than can be tracked are in no plan.
const PLACES_MAX: usize = 128;

/// Records lie at whole blocks of any disk.
const ALIGN: u64 = 512;

/// Where the record of one disk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The disk that the log is of.
    pub disk: DiskId,
    /// Where its record begins on the disk that holds it, in bytes.
    pub at: u64,
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(pub Vec<Place>);

/// A plan that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A line says something else.
    #[error("line {0} is not an identity and a number of bytes")]
    Line(usize),
    /// It has more lines than disks can be tracked.
    #[error("more than {PLACES_MAX} disks")]
    TooLong,
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let mut places = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if places.len() == PLACES_MAX {
                return Err(PlanError::TooLong);
            }
            places.push(place(line).ok_or(PlanError::Line(number))?);
        }
        Ok(Self(places))
    }
}

fn place(line: &str) -> Option<Place> {
    let (disk, at) = line.split_once(' ')?;
    let at = at.trim().parse().ok().filter(|at: &u64| at.is_multiple_of(ALIGN))?;
    Some(Place { disk: disk.parse().ok()?, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_line_a_disk() {
        let text = "# written by pinnace\n\n000102030405060708090a0b0c0d0e0f 1048576 # vda\n";
        let disk = DiskId(std::array::from_fn(|i| u8::try_from(i).unwrap()));
        assert_eq!(Plan::parse(text), Ok(Plan(vec![Place { disk, at: 1 << 20 }])));
        assert_eq!(Plan::parse(""), Ok(Plan::default()));
    }

    #[test]
    fn anything_else_is_refused_by_its_line() {
        let id = "000102030405060708090a0b0c0d0e0f";
        for bad in ["x 512", &format!("{id} 513"), &format!("{id} -512"), id, &format!("{id} 1 2")]
        {
            assert_eq!(Plan::parse(&format!("\n{bad}")), Err(PlanError::Line(2)), "{bad}");
        }
        let long = format!("{id} 512\n").repeat(PLACES_MAX + 1);
        assert_eq!(Plan::parse(&long), Err(PlanError::TooLong));
    }
}
