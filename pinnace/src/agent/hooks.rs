//! Commands of the administrator's that make applications ready for a point, and let them go.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What is kept of a hook's output.
const OUTPUT_MAX: usize = 16 << 10;
/// How long output is waited for once a hook has ended: what it left running may hold the pipe.
const OUTPUT_WAIT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Before the cut.
    Pre,
    /// After it.
    Post,
}

impl When {
    fn word(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Post => "post",
        }
    }
}

/// Runs a hook by the shell, with everything it starts killed when its time is up. Answers with
/// what it printed; an error says what went wrong, with what it printed.
pub(super) fn run(command: &str, when: When, limit: Duration) -> Result<String, String> {
    let hook = format!("the {} hook", when.word());
    let (read, write) = std::io::pipe().map_err(|error| format!("{hook}: {error}"))?;
    let spawned = write.try_clone().and_then(|errors| {
        Command::new("/bin/sh")
            .args(["-c", command])
            .env("PINNACE_HOOK", when.word())
            .stdin(Stdio::null())
            .stdout(write)
            .stderr(errors)
            .process_group(0)
            .spawn()
    });
    let mut child = spawned.map_err(|error| format!("{hook} can't be started: {error}"))?;
    let output = collect(read);
    let deadline = Instant::now() + limit;
    let ended: Result<ExitStatus, String> = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
            Ok(None) => {
                if let Ok(group) = i32::try_from(child.id()) {
                    // It fails only if the group has ended by itself.
                    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                }
                drop(child.wait());
                break Err(format!("took longer than {limit:?}"));
            }
            Err(error) => break Err(error.to_string()),
        }
    };
    let printed = output.recv_timeout(OUTPUT_WAIT).unwrap_or_default();
    let said = if printed.is_empty() { String::new() } else { format!(": {printed}") };
    match ended {
        Ok(status) if status.success() => Ok(printed),
        Ok(status) => Err(format!("{hook} failed ({status}){said}")),
        Err(why) => Err(format!("{hook} {why}{said}")),
    }
}

/// The first of what comes through a pipe, once it has closed. The rest is thrown away.
fn collect(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = bounded(1);
    let work = move || {
        let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(len @ 1..) = pipe.read(&mut buffer) {
            let room = (OUTPUT_MAX - kept.len()).min(len);
            kept.extend_from_slice(&buffer[..room]);
        }
        // Nobody listens any more if it took too long.
        drop(sender.send(String::from_utf8_lossy(&kept).trim_end().to_owned()));
    };
    // Without the thread there is no output to show, and the hook is none the worse.
    drop(std::thread::Builder::new().name("hook".into()).spawn(work));
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_failure_are_told() {
        let second = Duration::from_secs(5);
        assert_eq!(run("echo $PINNACE_HOOK; echo b >&2", When::Pre, second), Ok("pre\nb".into()));
        let failed = run("echo no; exit 3", When::Post, second).unwrap_err();
        assert!(failed.contains("post hook") && failed.contains("3") && failed.ends_with(": no"));
    }

    #[test]
    fn a_hook_that_hangs_is_killed_with_what_it_started() {
        let begun = Instant::now();
        let failed = run("echo a; sleep 60 & sleep 60", When::Pre, Duration::from_millis(200));
        assert!(failed.unwrap_err().contains("took longer than 200ms: a"));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
