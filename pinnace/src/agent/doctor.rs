//! `pinnace agent doctor`: what this machine needs, checked one by one, with a fix for each lack.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::state::{self, AgentState};
use crate::config::AgentConfig;
use crate::pki::{self, Identity};

mod boot;

/// How one check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Grade {
    Ok,
    Warn,
    Fail,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// One line of the doctor's report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) grade: Grade,
    pub(crate) check: String,
    pub(crate) found: String,
    pub(crate) fix: Option<String>,
}

impl Finding {
    fn ok(check: &str, found: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, check: check.into(), found: found.into(), fix: None }
    }

    fn bad(grade: Grade, check: &str, found: impl Into<String>, fix: &str) -> Self {
        Self { grade, check: check.into(), found: found.into(), fix: Some(fix.into()) }
    }
}

/// Examines the machine. Changes nothing.
pub(crate) fn examine(config: &AgentConfig) -> Vec<Finding> {
    let mut findings = vec![root(), kernel(), btf(), bpffs(), io_uring(), lockdown()];
    findings.extend(disks());
    findings.extend(enrolment(config));
    let plan = state::plan_in(&config.state_dir);
    findings.push(boot::examine(Path::new("/"), &plan, &release()));
    findings
}

fn root() -> Finding {
    if nix::unistd::geteuid().is_root() {
        Finding::ok("privileges", "root")
    } else {
        Finding::bad(Grade::Fail, "privileges", "not root", "run this as root")
    }
}

fn kernel() -> Finding {
    const CHECK: &str = "kernel";
    let release = release();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (5, 15) => Finding::ok(CHECK, release),
        _ => Finding::bad(Grade::Fail, CHECK, release, "a kernel of 5.15 or later is needed"),
    }
}

fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

fn btf() -> Finding {
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    if Path::new(PATH).exists() {
        Finding::ok("kernel types (BTF)", PATH)
    } else {
        let fix = "use a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions' kernels are";
        Finding::bad(Grade::Fail, "kernel types (BTF)", "missing", fix)
    }
}

fn bpffs() -> Finding {
    const CHECK: &str = "bpffs";
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|line| line.split(' ').nth(2) == Some("bpf"));
    if mounted {
        Finding::ok(CHECK, "mounted")
    } else {
        Finding::bad(
            Grade::Warn,
            CHECK,
            "not mounted",
            "the agent mounts /sys/fs/bpf when it starts",
        )
    }
}

fn io_uring() -> Finding {
    const CHECK: &str = "io_uring";
    match fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
        Ok(text) if text.trim() == "2" => {
            Finding::bad(Grade::Fail, CHECK, "disabled", "sysctl kernel.io_uring_disabled=0")
        }
        // Kernels before 6.6 have no such switch; 1 leaves it to root.
        _ => Finding::ok(CHECK, "allowed"),
    }
}

fn lockdown() -> Finding {
    let state = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let active = state.split_whitespace().find(|word| word.starts_with('['));
    // The programs need nothing that lockdown takes away.
    Finding::ok("lockdown", active.unwrap_or("none").trim_matches(['[', ']']))
}

fn disks() -> Vec<Finding> {
    let names = match ebpf::device::whole_disks() {
        Ok(names) => names,
        Err(error) => {
            let fix = "is /sys mounted?";
            return vec![Finding::bad(Grade::Fail, "disks", error.to_string(), fix)];
        }
    };
    let examined = names.iter().map(|name| {
        let check = format!("disk {name}");
        match ebpf::device::probe(&Path::new("/dev").join(name)) {
            Ok(found) => Finding::ok(&check, format!("{}, can be protected", found.class)),
            Err(refusal) => {
                Finding::bad(Grade::Warn, &check, refusal.to_string(), "can't be protected")
            }
        }
    });
    examined.collect()
}

fn enrolment(config: &AgentConfig) -> Vec<Finding> {
    const CHECK: &str = "enrolment";
    let fix = "`pinnace token create` on the target, then `pinnace agent enroll` here";
    if !config.state_dir.join("identity.json").exists() {
        return vec![Finding::bad(Grade::Warn, CHECK, "not enrolled", fix)];
    }
    match certificate_days(config) {
        Ok(days) if days > 30 => vec![Finding::ok("certificate", format!("good for {days} days"))],
        Ok(days) if days > 0 => {
            vec![Finding::bad(Grade::Warn, "certificate", format!("good for {days} days"), fix)]
        }
        Ok(_) => vec![Finding::bad(Grade::Fail, "certificate", "expired", fix)],
        Err(error) => vec![Finding::bad(Grade::Fail, "certificate", format!("{error:#}"), fix)],
    }
}

fn certificate_days(config: &AgentConfig) -> Result<i64> {
    let identity = Identity::read(&AgentState::open(&config.state_dir)?.pki(), "machine")?;
    let expiry = pki::expiry(&identity.chain[0])?;
    Ok((expiry - jiff::Timestamp::now().as_second()) / 86_400)
}
