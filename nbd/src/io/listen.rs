//! Where the server listens, and whom that admits.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::{socket, stat};

use super::socket::Socket;
use super::tls::{Tls, TlsError};

/// An address for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket at this path, of mode 0600.
    Unix(PathBuf),
    /// A TCP address. Without TLS only a loopback one.
    Tcp(SocketAddr),
}

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Everybody on the network could read the disk.
    #[error(
        "{0} can be reached from other machines, and without TLS everybody there could read the \
         disk: give a certificate, a key and an authority for clients, or listen on 127.0.0.1"
    )]
    Exposed(SocketAddr),
    /// Another process serves at this path.
    #[error("another process listens at {0}")]
    InUse(PathBuf),
    /// There is something at this path that is no socket, and is left alone.
    #[error("{0} exists and is no socket")]
    NoSocket(PathBuf),
    /// The system does not let it.
    #[error("listening at {address}: {source}")]
    System {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// TLS can't be started.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener),
}

/// A socket's name in the file system. It goes when this is dropped, unless it is another's by
/// then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Listener {
    pub(super) fn bind(listen: &Listen, tls: Option<&Tls>) -> Result<Self, BindError> {
        let failed = |address: String| move |source| BindError::System { address, source };
        match listen {
            Listen::Unix(path) => {
                make_way(path)?;
                let name = path.display().to_string();
                let (listener, file) = bind_unix(path).map_err(failed(name))?;
                Ok(Self::Unix(listener, file))
            }
            Listen::Tcp(address) => {
                if tls.is_none() && !address.ip().is_loopback() {
                    return Err(BindError::Exposed(*address));
                }
                let bound = TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    Ok(listener)
                });
                bound.map(Self::Tcp).map_err(failed(address.to_string()))
            }
        }
    }

    /// A client that waits, if one does.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(listener, _) => Socket::unix(listener.accept()?.0),
            Self::Tcp(listener) => Socket::tcp(listener.accept()?.0),
        }
    }

    /// What clients connect to, with the port that was given where none was asked for.
    pub(super) fn address(&self) -> io::Result<Listen> {
        match self {
            Self::Unix(_, file) => Ok(Listen::Unix(file.path.clone())),
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener, _) => listener.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let still_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode);
        if still_ours {
            // One that can't be removed is replaced by the next server that wants its name.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Removes a socket that a dead server has left behind.
fn make_way(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        _ => return Err(BindError::InUse(path.to_owned())),
    }
    fs::remove_file(path)
        .map_err(|source| BindError::System { address: path.display().to_string(), source })
}

fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The file gets the mode of the socket, so that there is no moment in which it is wider.
    stat::fchmod(&socket, stat::Mode::S_IRUSR | stat::Mode::S_IWUSR)?;
    socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(path)?)?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), inode: (metadata.dev(), metadata.ino()) };
    socket::listen(&socket, Backlog::new(16)?)?;
    Ok((UnixListener::from(socket), file))
}
