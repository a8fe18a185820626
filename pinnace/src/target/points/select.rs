//! Which point is meant. Pure: the points there are, and what was typed.
//!
//! A point is named by `latest`, `latest-app`, a time (the newest one at or before it), or the first
//! digits of its identity. The first three mean points that can be relied on: whole, and not
//! retracted. An identity means what it says, and the caller hears why it will not do.

use jiff::Timestamp;

use crate::admin::points::{PointDisk, PointKind, PointState, PointStatus, Which};
use crate::exit::{Exit, Failure};

/// Fewer digits than this are too likely to be a mistake.
const PREFIX_MIN: usize = 4;

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
enum Name<'a> {
    Latest,
    LatestApplication,
    At(Timestamp),
    Identity(&'a str),
}

/// The point that is meant, whatever it is worth.
pub(super) fn find<'a>(
    points: &'a [PointStatus],
    which: &Which,
) -> Result<&'a PointStatus, Failure> {
    let points = of_machine(points, which.machine.as_deref())?;
    let name = parse(&which.point)?;
    if let Name::Identity(prefix) = name {
        return by_identity(&points, prefix);
    }
    let usable: Vec<_> = points.into_iter().filter(|point| is_usable(point)).collect();
    one_machine(&usable)?;
    let fits = |point: &&&PointStatus| match name {
        Name::LatestApplication => point.kind == PointKind::Application,
        Name::At(time) => point.time <= time,
        Name::Latest | Name::Identity(_) => true,
    };
    let found = usable.iter().filter(fits).max_by_key(|point| point.time);
    found.copied().ok_or_else(|| none(&which.point))
}

/// The point that is meant, if its content can be relied on.
pub(super) fn find_readable<'a>(
    points: &'a [PointStatus],
    which: &Which,
) -> Result<&'a PointStatus, Failure> {
    let point = find(points, which)?;
    let refused = |message| Err(Failure::new(Exit::WrongState, message));
    match point.state {
        PointState::Incomplete => {
            let (there, of) = (point.disks.len(), point.disk_count);
            refused(format!("point {} is not whole: {there} of {of} disks are here", point.id))
        }
        PointState::Retracted if !which.retracted => {
            let reason = point.reason.as_deref().unwrap_or("no reason is on record");
            refused(format!(
                "point {} was retracted: {reason}. Take an older one, or add --force to read it \
                 for what it is worth",
                point.id
            ))
        }
        _ => Ok(point),
    }
}

/// The disk of `point` that is called `name`, or whose identity begins so.
pub(super) fn disk<'a>(point: &'a PointStatus, name: &str) -> Result<&'a PointDisk, Failure> {
    let by_name = point.disks.iter().find(|disk| disk.name == name);
    let begins = |disk: &&PointDisk| name.len() >= PREFIX_MIN && disk.id.starts_with(name);
    by_name.or_else(|| point.disks.iter().find(begins)).ok_or_else(|| {
        let names: Vec<_> = point.disks.iter().map(|disk| disk.name.as_str()).collect();
        let names = names.join(", ");
        Failure::new(Exit::NotFound, format!("point {} has no disk {name}, but {names}", point.id))
    })
}

/// The points that have a disk `name`, so that a disk's name can stand for its machine's.
pub(super) fn with_disk(points: Vec<PointStatus>, name: &str) -> Vec<PointStatus> {
    points.into_iter().filter(|point| disk(point, name).is_ok()).collect()
}

/// The points of the machine whose identity begins with `prefix`, or all.
pub(super) fn of_machine<'a>(
    points: &'a [PointStatus],
    prefix: Option<&str>,
) -> Result<Vec<&'a PointStatus>, Failure> {
    let Some(prefix) = prefix else { return Ok(points.iter().collect()) };
    let found: Vec<_> = points.iter().filter(|point| point.machine.starts_with(prefix)).collect();
    if found.is_empty() {
        let message = format!("no machine whose identity begins with {prefix} has points");
        return Err(Failure::new(Exit::NotFound, message));
    }
    Ok(found)
}

fn is_usable(point: &PointStatus) -> bool {
    matches!(point.state, PointState::Provisional | PointState::Confirmed)
}

fn parse(text: &str) -> Result<Name<'_>, Failure> {
    match text {
        "latest" => return Ok(Name::Latest),
        "latest-app" => return Ok(Name::LatestApplication),
        _ => {}
    }
    if let Ok(time) = text.parse() {
        return Ok(Name::At(time));
    }
    if text.len() >= PREFIX_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Name::Identity(text));
    }
    let message = format!(
        "{text:?} names no point: write latest, latest-app, a time as 2026-11-24T14:02:11Z, or \
         {PREFIX_MIN} or more digits of its identity"
    );
    Err(Failure::new(Exit::Usage, message))
}

fn by_identity<'a>(points: &[&'a PointStatus], prefix: &str) -> Result<&'a PointStatus, Failure> {
    let prefix = prefix.to_ascii_lowercase();
    let found: Vec<_> = points.iter().filter(|point| point.id.starts_with(&prefix)).collect();
    match found[..] {
        [point] => Ok(point),
        [] => Err(none(&prefix)),
        _ => {
            let ids: Vec<_> = found.iter().map(|point| point.id.as_str()).collect();
            let message = format!("{prefix} is the beginning of several: {}", ids.join(", "));
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// What is newest is a question about one machine.
fn one_machine(points: &[&PointStatus]) -> Result<(), Failure> {
    let mut machines: Vec<_> = points.iter().map(|point| point.machine.as_str()).collect();
    machines.sort_unstable();
    machines.dedup();
    if machines.len() <= 1 {
        return Ok(());
    }
    let message = format!("several machines have points, say which: {}", machines.join(", "));
    Err(Failure::new(Exit::Usage, message))
}

fn none(name: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no point {name}; see `pinnace point list`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(id: &str, machine: &str, time: &str, state: PointState) -> PointStatus {
        PointStatus {
            id: id.into(),
            machine: machine.into(),
            time: time.parse().unwrap(),
            kind: PointKind::Crash,
            method: "verified".into(),
            window_seconds: 0.1,
            freeze_seconds: 0.0,
            attempts: 1,
            state,
            reason: (state == PointState::Retracted).then(|| "a write was missed".into()),
            pinned: false,
            in_use: false,
            disk_count: 1,
            disks: vec![PointDisk {
                id: "d15c0".into(),
                name: format!("vd{}", &machine[..1]),
                size_bytes: 1,
                epoch: 1,
                delta_bytes: 1,
            }],
            delta_bytes: 1,
        }
    }

    fn which(point: &str) -> Which {
        Which { point: point.into(), machine: None, retracted: false }
    }

    /// Of machine a: an old one, one of an application, and a newest that was retracted.
    fn points() -> Vec<PointStatus> {
        let mut application = point("aa22", "a1", "2026-11-24T10:00:00Z", PointState::Confirmed);
        application.kind = PointKind::Application;
        vec![
            point("aa11", "a1", "2026-11-24T09:00:00Z", PointState::Confirmed),
            application,
            point("bb33", "a1", "2026-11-24T11:00:00Z", PointState::Provisional),
            point("bb44", "a1", "2026-11-24T12:00:00Z", PointState::Retracted),
            point("cc55", "a1", "2026-11-24T13:00:00Z", PointState::Incomplete),
        ]
    }

    #[test]
    fn words_and_times_mean_points_that_can_be_relied_on() {
        let points = points();
        let id = |name| find(&points, &which(name)).map(|point| point.id.as_str());
        assert_eq!(id("latest").unwrap(), "bb33");
        assert_eq!(id("latest-app").unwrap(), "aa22");
        assert_eq!(id("2026-11-24T10:59:59Z").unwrap(), "aa22");
        assert_eq!(id("2026-11-24T12:30:00+01:00").unwrap(), "bb33");
        assert_eq!(id("2026-11-24T08:00:00Z").unwrap_err().exit, Exit::NotFound);
        assert_eq!(id("yesterday").unwrap_err().exit, Exit::Usage);
        assert_eq!(id("aa").unwrap_err().exit, Exit::Usage, "too short to be meant");
    }

    #[test]
    fn an_identity_means_one_point_whatever_it_is_worth() {
        let points = points();
        assert_eq!(find(&points, &which("BB44")).unwrap().id, "bb44");
        assert_eq!(find(&points, &which("dddd")).unwrap_err().exit, Exit::NotFound);
        let mut twice = points.clone();
        twice.push(point("bb447", "a1", "2026-11-24T12:00:01Z", PointState::Confirmed));
        let error = find(&twice, &which("bb44")).unwrap_err();
        assert!(error.message.contains("bb44, bb447"), "{}", error.message);
    }

    #[test]
    fn what_can_not_be_relied_on_is_read_only_if_it_is_asked_for() {
        let points = points();
        let retracted = find_readable(&points, &which("bb44")).unwrap_err();
        assert_eq!(retracted.exit, Exit::WrongState);
        assert!(retracted.message.contains("a write was missed"), "{}", retracted.message);
        let forced = Which { retracted: true, ..which("bb44") };
        assert!(find_readable(&points, &forced).is_ok());
        let incomplete = Which { retracted: true, ..which("cc55") };
        assert_eq!(find_readable(&points, &incomplete).unwrap_err().exit, Exit::WrongState);
    }

    #[test]
    fn of_several_machines_one_has_to_be_named() {
        let mut points = points();
        points.push(point("ee66", "b2", "2026-11-24T14:00:00Z", PointState::Confirmed));
        let error = find(&points, &which("latest")).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.message.contains("a1, b2"), "{}", error.message);
        let of_b = Which { machine: Some("b".into()), ..which("latest") };
        assert_eq!(find(&points, &of_b).unwrap().id, "ee66");
        assert_eq!(find(&points, &which("ee66")).unwrap().id, "ee66");
        // The name of a disk will do, if only one machine has it.
        let with_disk = with_disk(points, "vdb");
        assert_eq!(find(&with_disk, &which("latest")).unwrap().id, "ee66");
    }

    #[test]
    fn disks_are_found_by_name_and_by_identity() {
        let points = points();
        assert_eq!(disk(&points[0], "vda").unwrap().epoch, 1);
        assert_eq!(disk(&points[0], "d15c").unwrap().name, "vda");
        let missing = disk(&points[0], "vdz").unwrap_err();
        assert_eq!(missing.exit, Exit::NotFound);
        assert!(missing.message.contains("vda"), "{}", missing.message);
    }
}
