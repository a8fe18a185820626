//! Why a disk is not green, and what mends it, in words.

use std::time::Duration;

use blocks::{GapReason, Taint};

use crate::ProtectionState;

/// A wait of which nobody needs to know how long it is.
const SHORTLY: Duration = Duration::from_secs(5);

/// What is known of a disk beside its state.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The disk, as commands name it.
    pub disk: &'a str,
    /// Why the target refuses it, as a sentence, and what mends that.
    pub refusal: Option<&'a str>,
    /// What failed last and is tried again, and after which time.
    pub failing: Option<(&'a str, Duration)>,
    /// Whether there is a connection to the target.
    pub connected: bool,
    /// The gap that is open.
    pub gap: Option<GapReason>,
    /// When it was found, as people write it.
    pub since: Option<&'a str>,
    /// What the comparison waits for, and how not to wait.
    pub waits_for: Option<&'a str>,
    /// What a verification found, and what mends that.
    pub difference: Option<&'a str>,
    /// How old the replica may be.
    pub objective: Duration,
}

/// Why the disk is not green and what mends it, or what is the matter although it is.
pub fn explain(state: ProtectionState, found: &Circumstances<'_>) -> Option<String> {
    let disk = found.disk;
    let own = match state {
        ProtectionState::Protected => None,
        ProtectionState::InitialReplication => {
            Some("the first copy is not whole yet; `pinnace status -w` shows how far it is".into())
        }
        ProtectionState::Lagging if found.connected && found.failing.is_none() => Some(format!(
            "writes arrive faster than they can be sent, and the replica is older than {:?}; \
             `bandwidth` and `iops` in the agent's configuration bound what is sent, `pinnace \
             status -w` shows the rate",
            found.objective
        )),
        ProtectionState::Lagging => Some(format!(
            "the replica is older than {:?}; `pinnace status -w` shows how far it is",
            found.objective
        )),
        ProtectionState::ResyncRequired | ProtectionState::Resynchronising => {
            Some(of_gap(state, found))
        }
        ProtectionState::Paused => {
            Some(format!("paused by an operator; `pinnace resume {disk}` ships again"))
        }
        ProtectionState::Critical if found.refusal.is_none() && found.difference.is_some() => {
            found.difference.map(str::to_owned)
        }
        ProtectionState::Critical => Some(format!(
            "{}. Once that is mended, `pinnace resume {disk}` tries again",
            found.refusal.unwrap_or("the target refuses it").trim_end_matches('.')
        )),
    };
    let waits = state != ProtectionState::Critical;
    let failing = found.failing.filter(|_| waits).map(|(reason, wait)| failing(disk, reason, wait));
    let unreached = (waits && !found.connected && found.failing.is_none())
        .then(|| "waiting for the target; `pinnace resume` tries at once".to_owned());
    let all: Vec<String> = [own, failing, unreached].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn of_gap(state: ProtectionState, found: &Circumstances<'_>) -> String {
    let Some(reason) = found.gap else {
        return "a comparison ends; `pinnace status -w` shows how far it is".into();
    };
    let disk = found.disk;
    let since = found.since.map_or_else(String::new, |since| format!(" since {since}"));
    match reason {
        GapReason::Tainted(taints) if taints.contains(Taint::StatisticsOff) => format!(
            "tracking gap{since}: {reason}; write 1 to the disk's queue/iostats: `echo 1 > \
             /sys/block/{disk}/queue/iostats`"
        ),
        _ if state == ProtectionState::Resynchronising => format!(
            "tracking gap{since}: {reason}; comparing the disk with its replica; `pinnace status -w` shows \
             how far it is"
        ),
        _ => match found.waits_for {
            Some(what) => format!("tracking gap{since}: {reason}; the comparison waits for {what}"),
            None => format!(
                "tracking gap{since}: {reason}; the disk is compared as soon as that is possible; \
                 `pinnace resume {disk}` tries at once"
            ),
        },
    }
}

fn failing(disk: &str, reason: &str, wait: Duration) -> String {
    if wait < SHORTLY {
        return format!("the target failed: {reason}; retrying");
    }
    let seconds = wait.as_secs();
    format!(
        "the target failed: {reason}; trying again in {seconds} s, or at once with `pinnace resume \
         {disk}`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All circumstances that differ in kind.
    fn circumstances() -> Vec<Circumstances<'static>> {
        let gaps = [
            None,
            Some(GapReason::UncleanStop),
            Some(GapReason::Tainted(blocks::TaintSet::default().with(Taint::StatisticsOff))),
        ];
        let failing = [None, Some(("full.", Duration::ZERO)), Some(("full.", SHORTLY * 9))];
        let mut all = Vec::new();
        for (gap, failing) in gaps.into_iter().flat_map(|gap| failing.map(|it| (gap, it))) {
            for (connected, refusal) in [(true, None), (false, None), (false, Some("No."))] {
                let objective = Duration::from_secs(30);
                let found = Circumstances {
                    disk: "vda",
                    refusal,
                    failing,
                    connected,
                    gap,
                    since: None,
                    waits_for: None,
                    difference: None,
                    objective,
                };
                let waits_for = Some("somebody to ask: `pinnace resync vda --now`");
                let difference = Some("bytes differ; `pinnace resync vda --now` sends them");
                all.push(found);
                all.push(Circumstances { since: Some("12:00"), waits_for, difference, ..found });
            }
        }
        all
    }

    #[test]
    fn every_state_that_is_not_green_has_a_reason_and_a_command() {
        for (state, found) in ProtectionState::ALL
            .into_iter()
            .flat_map(|s| circumstances().into_iter().map(move |f| (s, f)))
        {
            let said = explain(state, &found).unwrap_or_default();
            let commands = ["`pinnace ", "`echo ", "`bandwidth`"];
            let helps = commands.iter().any(|command| said.contains(command));
            assert!(state.is_green() || helps, "{state}, {found:?}: {said}");
            let named = found.failing.is_none() || state == ProtectionState::Critical;
            assert!(named || said.contains("full."), "{state}, {found:?}: {said}");
        }
    }

    #[test]
    fn nothing_is_said_of_a_disk_of_which_nothing_is_to_be_said() {
        let quiet = Circumstances { connected: true, ..circumstances()[0] };
        assert_eq!(explain(ProtectionState::Protected, &quiet), None);
        let away = Circumstances { connected: false, ..quiet };
        let said = explain(ProtectionState::Protected, &away).unwrap();
        assert!(said.contains("waiting for the target"), "{said}");
    }
}
