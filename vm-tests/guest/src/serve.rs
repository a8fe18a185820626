//! A guest's first process: makes the usual file systems, loads modules, and runs what it is asked.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::utsname::uname,
};
use vm_tests::vm::protocol::{Ended, Reply, Request};

/// Where the host is heard; see [`vm_tests::vm::protocol`].
const PORT: &str = "/dev/ttyS1";

/// The modules to load, one a line, in the image.
pub const MODULES: &str = "/modules";

const MOUNTS: [(&str, &str, &str); 6] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("tmpfs", "/run", "mode=0755"),
    ("tmpfs", "/dev/shm", "size=75%"),
    ("securityfs", "/sys/kernel/security", ""),
];

/// Never returns while the guest lives: the kernel panics when its first process ends.
pub fn first_process() -> Result<()> {
    for (kind, point, options) in MOUNTS {
        fs::create_dir_all(point).with_context(|| format!("making {point}"))?;
        mount(Some(kind), point, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("mounting {point}"))?;
    }
    load_modules()?;
    serve()
}

/// Answers requests until the host is gone.
pub fn serve() -> Result<()> {
    let raw = ["stty", "-F", PORT, "raw", "-echo", "115200"];
    let set = Command::new("/bin/busybox").args(raw).status().context("setting the port up")?;
    anyhow::ensure!(set.success(), "stty: {set}");
    let mut out = File::options().write(true).open(PORT).context("opening the port")?;
    let requests = BufReader::new(File::open(PORT).context("opening the port")?);
    let release = uname()?.release().to_string_lossy().into_owned();
    say(&mut out, &Reply::Ready { release })?;
    for line in requests.lines() {
        let request: Request = serde_json::from_str(&line?).context("reading a request")?;
        let ended = run(&request).unwrap_or_else(|error| Ended {
            code: None,
            out: String::new(),
            err: format!("{error:#}"),
        });
        say(&mut out, &Reply::Ended(ended))?;
    }
    Ok(())
}

fn say(out: &mut File, reply: &Reply) -> Result<()> {
    let mut line = serde_json::to_string(reply)?;
    line.push('\n');
    out.write_all(line.as_bytes()).context("answering the host")
}

/// Runs a command with its output in files, which unlike pipes don't fill up.
fn run(request: &Request) -> Result<Ended> {
    let (program, arguments) = request.command.split_first().context("an empty command")?;
    let (out, err) = (Path::new("/run/out"), Path::new("/run/err"));
    let mut child = Command::new(program)
        .args(arguments)
        .env("PATH", "/bin:/sbin")
        .stdin(Stdio::null())
        .stdout(File::create(out)?)
        .stderr(File::create(err)?)
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    let (began, limit) = (Instant::now(), Duration::from_secs(request.limit_s));
    let code = loop {
        if let Some(status) = child.try_wait()? {
            break status.code();
        }
        if began.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let text =
        |path| Ok::<_, std::io::Error>(String::from_utf8_lossy(&fs::read(path)?).into_owned());
    Ok(Ended { code, out: text(out)?, err: text(err)? })
}

/// A module that this kernel lacks is missed by whoever needs it, with its own words.
fn load_modules() -> Result<()> {
    let list = fs::read_to_string(MODULES).unwrap_or_default();
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let command = Command::new("/bin/modprobe").arg("-q").args(&mut words).status();
        command.context("running modprobe")?;
    }
    Ok(())
}
