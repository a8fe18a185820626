//! Reading a disk at a point: into a file, or by others over NBD.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nbd::{Listen, Listener};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::progress::Bar;
use super::{DiskAtPoint, ImageFormat, Where, ask_with, is_table, unexpected};
use crate::admin::Connection;
use crate::admin::points::{PointRequest, PointResponse};
use crate::cli::Global;
use crate::cli::output::{json, size};
use crate::exit::{Exit, Failure};

/// How soon an interruption is noticed.
const GLANCE: Duration = Duration::from_millis(200);

/// What converts to the formats of QEMU.
const QEMU_IMG: &str = "qemu-img";

/// Where an image goes.
pub(super) struct Image<'a> {
    pub(super) file: &'a Path,
    pub(super) overwrite: bool,
}

pub(super) fn export(
    global: &Global,
    disk: &DiskAtPoint,
    format: ImageFormat,
    image: &Image<'_>,
) -> Result<()> {
    let file = image.file;
    if file.exists() && !image.overwrite {
        let message = format!("{} exists; add --overwrite to replace it", file.display());
        return Err(Failure::new(Exit::Refused, message).into());
    }
    // A name that does not look like the result, until it is one.
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = match format {
        ImageFormat::Raw => export_raw(global, disk, &partial),
        ImageFormat::Qcow2 => export_qcow2(global, disk, &partial),
    };
    if let Err(error) = written {
        // It may not be there yet.
        drop(fs::remove_file(&partial));
        return Err(error);
    }
    fs::rename(&partial, file).with_context(|| format!("naming {}", file.display()))?;
    if is_table(global.format()) {
        println!("{} is in {}", disk.disk_at_point, file.display());
        return Ok(());
    }
    json(global.format(), &serde_json::json!({ "exported": disk.disk_at_point, "file": file }))
}

fn export_raw(global: &Global, disk: &DiskAtPoint, to: &Path) -> Result<()> {
    let (disk, which) = disk.parts()?;
    let file = File::create(to).with_context(|| format!("creating {}", to.display()))?;
    let mut bar = Bar::new(global.format());
    let request = PointRequest::Export { which, disk };
    let answer = ask_with(global, request, Some(file.as_fd()), |progress| bar.show(progress));
    bar.end();
    match answer?.0 {
        PointResponse::Exported { written_bytes, size_bytes } => {
            if is_table(global.format()) {
                println!("{} of {} hold data", size(written_bytes), size(size_bytes));
            }
            Ok(())
        }
        _ => unexpected(),
    }
}

fn export_qcow2(global: &Global, disk: &DiskAtPoint, to: &Path) -> Result<()> {
    ensure_qemu_img()?;
    let directory = tempfile::tempdir().context("a directory for the socket")?;
    let listen = Listen::Unix(directory.path().join("nbd.sock"));
    let served = Served::start(global, disk, false, &listen)?;
    let mut convert = Command::new(QEMU_IMG);
    convert.args(["convert", "-f", "raw", "-O", "qcow2"]);
    if is_table(global.format()) && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        convert.arg("-p");
    }
    let status = convert.arg(served.uri()).arg(to).status();
    let status = status.with_context(|| format!("running {QEMU_IMG}"))?;
    ensure!(status.success(), "{QEMU_IMG} failed ({status}); what it said is above");
    Ok(())
}

fn ensure_qemu_img() -> Result<()> {
    let found = Command::new(QEMU_IMG).arg("--version").output().is_ok();
    let message = format!(
        "{QEMU_IMG} is not installed, and it is what writes qcow2: install qemu-utils (Debian, \
         Ubuntu) or qemu-img (Fedora), or take --format raw"
    );
    ensure!(found, Failure::new(Exit::Failed, message));
    Ok(())
}

pub(super) fn serve(
    global: &Global,
    disk: &DiskAtPoint,
    writable: bool,
    listen: &Where,
) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let listen = match (&listen.socket, listen.listen) {
        (Some(path), _) => Listen::Unix(std::path::absolute(path)?),
        (None, Some(address)) => Listen::Tcp(address),
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let served = Served::start(global, disk, writable, &listen)?;
    let uri = served.uri();
    if is_table(global.format()) {
        println!("{uri}");
        eprintln!("{}; until interrupted", served.words);
    } else {
        json(global.format(), &serde_json::json!({ "uri": uri, "writable": writable }))?;
    }
    while !interrupted.load(Ordering::Relaxed) {
        if served.connection.has_ended_within(GLANCE) {
            let message = "the target has stopped serving";
            return Err(Failure::new(Exit::Unreachable, message).into());
        }
    }
    Ok(())
}

/// A disk at a point that the target serves on a socket of ours, as long as this lives.
struct Served {
    listener: Listener,
    connection: Connection,
    disk: String,
    words: String,
}

impl Served {
    fn start(global: &Global, disk: &DiskAtPoint, writable: bool, listen: &Listen) -> Result<Self> {
        let (disk, which) = disk.parts()?;
        let listener = Listener::bind(listen, None)
            .map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        let request = PointRequest::Serve { which, disk, writable };
        let answer = ask_with(global, request, Some(listener.as_fd()), |_| {})?;
        let (PointResponse::Serving { point, disk, size_bytes }, connection) = answer else {
            return unexpected();
        };
        let words = format!("{disk} ({}) at {}, point {}", size(size_bytes), point.time, point.id);
        Ok(Self { listener, connection, disk, words })
    }

    fn uri(&self) -> String {
        match self.listener.address() {
            Listen::Unix(path) => format!("nbd+unix:///{}?socket={}", self.disk, path.display()),
            Listen::Tcp(address) => format!("nbd://{address}/{}", self.disk),
        }
    }
}
