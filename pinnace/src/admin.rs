//! The admin sockets: how the command line talks to a running agent or target.
//!
//! One Unix socket of mode 0600 a role. A connection carries one request and one answer, each a
//! line of JSON; before the answer there may be lines that tell how far it is, and with the request
//! a file may be handed over. What an answer stands for may live as long as the connection does.
//! Whoever may open the socket may do everything, so its mode is the access control.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::exit::{Exit, Failure};

pub(crate) mod agent;
mod conversation;
pub(crate) mod points;
pub(crate) mod target;

pub(crate) use conversation::{Answered, Caller, Connection, Progress, converse};

type Answer<T> = Result<T, Failure>;

/// Where a daemon is asked, and how long it may be silent.
#[derive(Clone, Copy)]
pub(crate) struct Daemon<'a> {
    pub(crate) socket: &'a Path,
    pub(crate) timeout: Duration,
}

/// Asks the daemon behind `socket`, and waits at most `timeout` for its answer.
pub(crate) fn call<Q: Serialize, A: DeserializeOwned>(
    socket: &Path,
    request: &Q,
    timeout: Duration,
) -> Result<A> {
    let daemon = Daemon { socket, timeout };
    conversation::converse(daemon, request, None, |_| {}).map(|(answer, _)| answer)
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::PermissionDenied => "run this as root",
        _ => "is it running? See `systemctl status 'pinnace-*'`",
    };
    let message = format!("can't reach the daemon at {}: {error}; {hint}", socket.display());
    Failure::new(Exit::Unreachable, message)
}

/// How long a socket may seem to be in use after its daemon has died.
const LET_GO: Duration = Duration::from_secs(1);

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
        // A daemon that was killed just as it started a program of another kind leaves its socket to
        // that for a moment.
        let deadline = Instant::now() + LET_GO;
        while UnixStream::connect(path).is_ok() {
            if Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
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
        self.serve_callers(move |request, _: &mut Caller<'_>| handle(request).map(Answered::from))
    }

    /// The same for a handler that has more to do with its caller than to answer it.
    pub(crate) fn serve_callers<Q, A, H>(self, handle: H) -> Result<SocketFile>
    where
        Q: DeserializeOwned,
        A: Serialize,
        H: Fn(Q, &mut Caller<'_>) -> Result<Answered<A>> + Clone + Send + 'static,
    {
        let file = SocketFile(self.path);
        let listener = self.listener;
        std::thread::Builder::new().name("admin".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let handle = handle.clone();
                let spawned = std::thread::Builder::new()
                    .name("admin-call".into())
                    .spawn(move || conversation::answer(&stream, handle));
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_file_goes_along_progress_comes_back_and_what_is_held_goes_with_the_caller() {
        struct Held(std::sync::mpsc::Sender<()>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.send(()).unwrap();
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.sock");
        let (sender, released) = std::sync::mpsc::channel();
        let handle = move |words: String, caller: &mut Caller<'_>| {
            fs::File::from(caller.take_file()?).write_all(words.as_bytes())?;
            caller.progress(Progress { done: 1, total: 2 })?;
            Ok(Answered { answer: words.len(), held: Some(Box::new(Held(sender.clone()))) })
        };
        let _file = Server::bind(&path).unwrap().serve_callers(handle).unwrap();
        let daemon = Daemon { socket: &path, timeout: Duration::from_secs(5) };
        let written = dir.path().join("written");
        let file = fs::File::create(&written).unwrap();
        let mut seen = Vec::new();
        let words = "x".repeat(100_000);
        let (len, connection): (usize, _) =
            converse(daemon, &words, Some(file.as_fd()), |progress| seen.push(progress.done))
                .unwrap();
        assert_eq!((len, &seen[..]), (words.len(), &[1][..]));
        assert_eq!(fs::read_to_string(&written).unwrap(), words);
        let waiting = Duration::from_millis(100);
        assert!(released.recv_timeout(waiting).is_err(), "it was let go of too early");
        drop(connection);
        released.recv_timeout(Duration::from_secs(5)).unwrap();
        let without = converse::<_, usize>(daemon, &words, None, |_| {}).map(|_| ());
        assert_eq!(Failure::of(&without.unwrap_err()).exit, Exit::Usage);
    }

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
