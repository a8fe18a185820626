//! Discards and zeroing.

use anyhow::Result;

use super::{Method, Plan, Session, WriterReport};
use crate::{
    WriteKind,
    devices::{discard, zero_out},
};

pub(super) fn run(mut session: Session, plan: Plan, method: Method) -> Result<WriterReport> {
    let file = session.open(0)?;
    for step in plan {
        let kind = if method == Method::Discard { WriteKind::Discard } else { WriteKind::Zeroes };
        let pending = session.issue(step.extent, kind)?;
        let erased = match kind {
            WriteKind::Discard => discard(&file, step.extent),
            _ => zero_out(&file, step.extent),
        };
        session.settle(&pending, erased)?;
    }
    Ok(session.report())
}
