//! Where to look for the records of last logs: the agent writes it, the initramfs carries it, and
//! `early-attach` reads it.
//!
//! A line a disk: its identity, as 32 hexadecimal digits, and the first byte of the record on the
//! disk that holds it. Which disk that is, and which is the one to track, is found by what is
//! on them. `#` begins a comment.

use std::{fmt, str::FromStr};

use blocks::DiskId;

/// More disks than can be tracked are in no plan.
const RECORDS_MAX: usize = 128;

/// Records lie at whole blocks of any disk.
const ALIGN: u64 = 512;

/// Where the record of one disk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRecord {
    /// The disk that the log is of.
    pub disk: DiskId,
    /// Where its record begins on the disk that holds it, in bytes.
    pub at: u64,
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(pub Vec<PlannedRecord>);

/// A plan that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A line says something else.
    #[error("line {0} is not an identity and a number of bytes")]
    Line(usize),
    /// It has more lines than disks can be tracked.
    #[error("more than {RECORDS_MAX} disks")]
    TooLong,
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut records = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if records.len() == RECORDS_MAX {
                return Err(PlanError::TooLong);
            }
            records.push(record(line).ok_or(PlanError::Line(number))?);
        }
        Ok(Self(records))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|PlannedRecord { disk, at }| writeln!(f, "{disk} {at}"))
    }
}

fn record(line: &str) -> Option<PlannedRecord> {
    let (disk, at) = line.split_once(' ')?;
    let at = at.trim().parse().ok().filter(|at: &u64| at.is_multiple_of(ALIGN))?;
    Some(PlannedRecord { disk: disk.parse().ok()?, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_line_a_disk() {
        let text = "# written by pinnace\n\n000102030405060708090a0b0c0d0e0f 1048576 # vda\n";
        let disk = DiskId(std::array::from_fn(|i| u8::try_from(i).unwrap()));
        let plan = Plan(vec![PlannedRecord { disk, at: 1 << 20 }]);
        assert_eq!(text.parse(), Ok(plan.clone()));
        assert_eq!(plan.to_string().parse(), Ok(plan));
        assert_eq!("".parse(), Ok(Plan::default()));
    }

    #[test]
    fn anything_else_is_refused_by_its_line() {
        let id = "000102030405060708090a0b0c0d0e0f";
        for bad in ["x 512", &format!("{id} 513"), &format!("{id} -512"), id, &format!("{id} 1 2")]
        {
            assert_eq!(format!("\n{bad}").parse::<Plan>(), Err(PlanError::Line(2)), "{bad}");
        }
        let long = format!("{id} 512\n").repeat(RECORDS_MAX + 1);
        assert_eq!(long.parse::<Plan>(), Err(PlanError::TooLong));
    }
}
