//! The admin sockets: how the command line talks to a running agent or target.
//!
//! One Unix socket of mode 0600 a role. A connection carries one request and one answer, each a
//! line of JSON. Whoever may open the socket may do everything, so its mode is the access control.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::exit::{Exit, Failure};

pub(crate) mod agent;
pub(crate) mod target;

/// A request may not be longer than this: one to protect a hundred disks has some 10 KiB.
const REQUEST_MAX: u64 = 1 << 20;

type Answer<T> = Result<T, Failure>;

/// Asks the daemon behind `socket`, and waits at most `timeout` for its answer.
pub(crate) fn call<Q: Serialize, A: DeserializeOwned>(
    socket: &Path,
    request: &Q,
    timeout: Duration,
) -> Result<A> {
    let stream = UnixStream::connect(socket).map_err(|error| unreachable(socket, &error))?;
    stream.set_read_timeout(Some(timeout))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    (&stream).write_all(line.as_bytes()).map_err(|error| unreachable(socket, &error))?;
    let mut answer = String::new();
    match BufReader::new(&stream).read_line(&mut answer) {
        Ok(0) => {
            Err(Failure::new(Exit::Unreachable, "the daemon stopped before it answered").into())
        }
        Ok(_) => {
            let answer: Answer<A> =
                serde_json::from_str(&answer).context("an answer that this version can't read")?;
            Ok(answer?)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(Failure::new(Exit::Timeout, format!("no answer within {timeout:?}")).into())
        }
        Err(error) => Err(unreachable(socket, &error).into()),
    }
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => "run this as root",
        _ => "is it running? See `systemctl status 'pinnace-*'`",
    };
    let message = format!("can't reach the daemon at {}: {error}; {hint}", socket.display());
    Failure::new(Exit::Unreachable, message)
}

/// A listening admin socket. The file goes when this is dropped.
pub(crate) struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens at `path`. A socket left behind by a dead daemon is replaced; a live one is an
    /// error.
    pub(crate) fn bind(path: &Path) -> Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        if UnixStream::connect(path).is_ok() {
            let message = format!("another daemon already listens at {}", path.display());
            return Err(Failure::new(Exit::WrongState, message).into());
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("replacing {}", path.display()));
            }
            _ => {}
        }
        // The mode is right from the first instant: a chmod after the bind would leave a moment.
        let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
        let listener = UnixListener::bind(path);
        nix::sys::stat::umask(old);
        let listener = listener.with_context(|| format!("listening at {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves connections for ever, each in a thread of its own, since an answer may take long.
    /// The thread ends with the process.
    pub(crate) fn serve<Q, A, H>(self, handle: H) -> Result<SocketFile>
    where
        Q: DeserializeOwned,
        A: Serialize,
        H: Fn(Q) -> Result<A> + Clone + Send + 'static,
    {
        let file = SocketFile(self.path);
        let listener = self.listener;
        std::thread::Builder::new().name("admin".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let handle = handle.clone();
                let spawned = std::thread::Builder::new()
                    .name("admin-call".into())
                    .spawn(move || answer(&stream, handle));
                if let Err(error) = spawned {
                    tracing::warn!(%error, "an admin connection was dropped");
                }
            }
        })?;
        Ok(file)
    }
}

/// The socket's file, removed when this is dropped.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A file that is gone already is as good.
        drop(fs::remove_file(&self.0));
    }
}

fn answer<Q: DeserializeOwned, A: Serialize>(stream: &UnixStream, handle: impl Fn(Q) -> Result<A>) {
    let mut line = String::new();
    let read = BufReader::new(stream.take(REQUEST_MAX)).read_line(&mut line);
    let answer: Answer<A> = match read.map(|_| serde_json::from_str::<Q>(&line)) {
        Ok(Ok(request)) => handle(request).map_err(|error| Failure::of(&error)),
        Ok(Err(error)) => Err(Failure::new(Exit::Usage, format!("not a request: {error}"))),
        Err(error) => Err(Failure::new(Exit::Failed, error.to_string())),
    };
    let Ok(mut line) = serde_json::to_string(&answer) else { return };
    line.push('\n');
    let mut stream = stream;
    // A client that went away does not want the answer.
    drop(stream.write_all(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_answers_and_failures_cross_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/test.sock");
        let missing = call::<_, u32>(&path, &1, Duration::from_secs(1)).unwrap_err();
        assert_eq!(Failure::of(&missing).exit, Exit::Unreachable);
        let halve = |n: u32| {
            anyhow::ensure!(n.is_multiple_of(2), Failure::new(Exit::WrongState, "an odd number"));
            Ok(n / 2)
        };
        let file = Server::bind(&path).unwrap().serve(halve).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(call::<_, u32>(&path, &42, Duration::from_secs(5)).unwrap(), 21);
        let odd = call::<_, u32>(&path, &43, Duration::from_secs(5)).unwrap_err();
        assert_eq!(Failure::of(&odd).exit, Exit::WrongState);
        let garbage = call::<_, u32>(&path, &"x", Duration::from_secs(5)).unwrap_err();
        assert_eq!(Failure::of(&garbage).exit, Exit::Usage);
        assert!(Server::bind(&path).is_err(), "a live socket is not replaced");
        drop(file);
        assert!(!path.exists());
    }
}
