//! Where the server listens, and whom that admits.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike as _, SockaddrStorage, UnixAddr,
};
use nix::sys::{socket, stat};

use super::socket::Socket;
use super::tls::Tls;

/// An address for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket at this path, of mode 0600.
    Unix(PathBuf),
    /// A TCP address. Without TLS only a loopback one.
    Tcp(SocketAddr),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
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
    /// What was handed over is no socket to listen on.
    #[error("what was handed over is no listening socket: {0}")]
    Received(io::Error),
}

/// A listening socket, and what its clients have to show.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    address: Listen,
    tls: Option<Tls>,
    /// The name to remove in the end, where it is ours.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Listening {
    Unix(UnixListener),
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
    /// Listens. A Unix socket that a dead server left behind is replaced.
    pub fn bind(listen: &Listen, tls: Option<Tls>) -> Result<Self, BindError> {
        let failed = |source| system(listen, source);
        let (socket, file) = match listen {
            Listen::Unix(path) => {
                make_way(path)?;
                let (listener, file) = bind_unix(path).map_err(failed)?;
                (Listening::Unix(listener), Some(file))
            }
            Listen::Tcp(address) => {
                check_reach(*address, tls.as_ref())?;
                (Listening::Tcp(TcpListener::bind(address).map_err(failed)?), None)
            }
        };
        Self::new(socket, tls, file).map_err(failed)
    }

    /// A socket that another process has bound and listens on, and that it has handed over. Its
    /// name is that process's to remove. Without TLS.
    pub fn received(socket: OwnedFd) -> Result<Self, BindError> {
        let family = received_family(&socket).map_err(BindError::Received)?;
        let socket = match family {
            AddressFamily::Unix => Listening::Unix(UnixListener::from(socket)),
            AddressFamily::Inet | AddressFamily::Inet6 => Listening::Tcp(TcpListener::from(socket)),
            _ => return Err(BindError::Received(Errno::EAFNOSUPPORT.into())),
        };
        let listener = Self::new(socket, None, None).map_err(BindError::Received)?;
        if let Listen::Tcp(address) = listener.address {
            check_reach(address, None)?;
        }
        Ok(listener)
    }

    fn new(socket: Listening, tls: Option<Tls>, file: Option<SocketFile>) -> io::Result<Self> {
        let address = match &socket {
            Listening::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                Listen::Unix(address.as_pathname().unwrap_or(Path::new("")).to_owned())
            }
            Listening::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Listen::Tcp(listener.local_addr()?)
            }
        };
        Ok(Self { socket, address, tls, _file: file })
    }

    /// What clients connect to, with the port that was given where none was asked for.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// A client that waits, if one does.
    pub(super) fn accept(&self) -> io::Result<Socket> {
        match &self.socket {
            Listening::Unix(listener) => Socket::unix(listener.accept()?.0),
            Listening::Tcp(listener) => Socket::tcp(listener.accept()?.0),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Listening::Unix(listener) => listener.as_fd(),
            Listening::Tcp(listener) => listener.as_fd(),
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

fn system(listen: &Listen, source: io::Error) -> BindError {
    BindError::System { address: listen.to_string(), source }
}

fn check_reach(address: SocketAddr, tls: Option<&Tls>) -> Result<(), BindError> {
    if tls.is_none() && !address.ip().is_loopback() {
        return Err(BindError::Exposed(address));
    }
    Ok(())
}

/// The family of a stream socket that listens; an error for any other file.
fn received_family(socket: &OwnedFd) -> io::Result<AddressFamily> {
    let listens = socket::getsockopt(socket, socket::sockopt::AcceptConn)?;
    let kind = socket::getsockopt(socket, socket::sockopt::SockType)?;
    if !listens || kind != SockType::Stream {
        return Err(Errno::EINVAL.into());
    }
    let address = socket::getsockname::<SockaddrStorage>(socket.as_raw_fd())?;
    address.family().ok_or_else(|| Errno::EAFNOSUPPORT.into())
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
    fs::remove_file(path).map_err(|source| system(&Listen::Unix(path.to_owned()), source))
}

fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The file gets the mode of the socket, so that there is no moment in which it is wider.
    stat::fchmod(&socket, stat::Mode::S_IRUSR | stat::Mode::S_IWUSR)?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), inode: (metadata.dev(), metadata.ino()) };
    socket::listen(&socket, Backlog::new(16)?)?;
    Ok((UnixListener::from(socket), file))
}
