//! An image, servers for it, and programs that are run against them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nbd::{Export, Limits, Listen, Listener, NamedExport, Overlay, RawFile, Server};
use tempfile::TempDir;

/// Length of the image: not a multiple of any block but a sector.
pub(crate) const LEN: u64 = (48 << 20) + 512 * 3;

/// A directory with an image in it that has data, holes, and data at its very end.
pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) image: PathBuf,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image.raw");
        let file = File::create_new(&image).unwrap();
        file.set_len(LEN).unwrap();
        for (start, len) in [(0, 5 << 20), (16 << 20, 64 << 10), (20 << 20, 9 << 20)] {
            file.write_all_at(&noise(start, len), start).unwrap();
        }
        file.write_all_at(&noise(LEN - 512, 512), LEN - 512).unwrap();
        Self { dir, image }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn raw(&self) -> Arc<dyn Export> {
        Arc::new(RawFile::open(&self.image).unwrap())
    }

    /// Serves the image read-only.
    pub(crate) fn serve(&self) -> Served {
        self.serve_export(self.raw(), Limits::default())
    }

    /// Serves the image under an overlay.
    pub(crate) fn serve_writable(&self) -> Served {
        let overlay = Overlay::new(self.raw(), self.dir.path()).unwrap();
        self.serve_export(Arc::new(overlay), Limits::default())
    }

    pub(crate) fn serve_export(&self, export: Arc<dyn Export>, limits: Limits) -> Served {
        let socket = self.path("nbd.sock");
        let exports = vec![named(export)];
        let listener = Listener::bind(&Listen::Unix(socket.clone()), None).unwrap();
        let server = Server::start(listener, exports, limits).unwrap();
        Served { server, socket }
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        std::fs::read(&self.image).unwrap()
    }
}

pub(crate) fn named(export: Arc<dyn Export>) -> NamedExport {
    NamedExport { name: "vda".into(), description: "a disk".into(), export }
}

/// A server at a Unix socket.
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) socket: PathBuf,
}

impl Served {
    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///vda?socket={}", self.socket.display())
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// That the server lives: a client that nobody here wrote is told the size.
    pub(crate) fn check_alive(&self) {
        let size = run("nbdinfo", &["--size", &self.uri()]);
        assert_eq!(size.trim().parse(), Ok(LEN));
    }
}

/// Bytes that differ everywhere, the same for the same place.
pub(crate) fn noise(start: u64, len: usize) -> Vec<u8> {
    let mut state = start.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(len).collect()
}

/// Runs a program that has to succeed, and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let (success, output) = attempt(program, arguments);
    assert!(success, "{program} {arguments:?} failed: {output}");
    output
}

/// Runs a program; whether it succeeded, and all that it printed.
pub(crate) fn attempt(program: &str, arguments: &[&str]) -> (bool, String) {
    let mut limited = Command::new("timeout");
    // nbdsh is a script for the distribution's Python, which need not be the first one.
    let path = format!("/usr/bin:{}", std::env::var("PATH").unwrap_or_default());
    let command = limited.arg("60").arg(program).args(arguments).env("PATH", path);
    let output = command.output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
}

/// Runs a script of libnbd's shell, whose handle `h` is connected to `uri`. It checks nothing that
/// it could check itself, so that the server has to.
pub(crate) fn shell(uri: &str, script: &str) {
    let connect = format!("h.set_strict_mode(0)\nh.connect_uri('{uri}')\n");
    let meta = "h.add_meta_context('base:allocation')\n";
    run("nbdsh", &["-c", &format!("{meta}{connect}{script}")]);
}

/// Waits for something that comes about by itself.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} has not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
