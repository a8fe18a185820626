//! `target.toml`.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use blocks::ByteLen;

use super::{Bytes, Required, layer, load};

/// Settings of the target, checked.
#[derive(Clone, Debug)]
pub(crate) struct TargetConfig {
    /// The store: replica disks, keys, the certificate authority.
    pub(crate) store: PathBuf,
    /// The admin socket.
    pub(crate) socket: PathBuf,
    /// The UDP address that agents connect to.
    pub(crate) listen: SocketAddr,
    /// A disk larger than this is refused.
    pub(crate) disk_size_max: ByteLen,
}

layer!(TargetLayer { store: PathBuf, socket: PathBuf, listen: String, disk_size_max: Bytes });

impl TargetConfig {
    /// The file that is read when none is named.
    pub(crate) const PATH: &str = "/etc/pinnace/target.toml";
    /// The UDP port that a target listens on unless told otherwise.
    pub(crate) const PORT: u16 = 7414;

    /// Reads and checks the file and its drop-ins.
    pub(crate) fn load(path: &Path, required: Required) -> Result<Self> {
        let layer: TargetLayer = load(path, required)?;
        let listen = match layer.listen {
            Some(text) => text
                .parse()
                .with_context(|| format!("listen: {text:?} is not ADDRESS:PORT"))
                .with_context(|| format!("in the configuration {}", path.display()))?,
            None => SocketAddr::from((Ipv6Addr::UNSPECIFIED, Self::PORT)),
        };
        Ok(Self {
            store: layer.store.unwrap_or_else(|| "/var/lib/pinnace/target".into()),
            socket: layer.socket.unwrap_or_else(|| "/run/pinnace/target.sock".into()),
            listen,
            disk_size_max: layer.disk_size_max.map_or(ByteLen(64 << 40), |bytes| bytes.0),
        })
    }
}
