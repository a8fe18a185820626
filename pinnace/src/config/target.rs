//! `target.toml`.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::ByteLen;
use control::Ladder;
use serde::Deserialize;

use super::{Bytes, Interval, Required, layer, load};

/// Settings of the target, checked.
#[derive(Clone, Debug)]
pub(crate) struct TargetConfig {
    /// The store: replica disks, keys, the certificate authority.
    pub(crate) store: PathBuf,
    /// The admin socket.
    pub(crate) socket: PathBuf,
    /// Where Prometheus scrapes metrics, if it may.
    pub(crate) metrics: Option<SocketAddr>,
    /// The UDP address that agents connect to.
    pub(crate) listen: SocketAddr,
    /// A disk larger than this is refused.
    pub(crate) disk_size_max: ByteLen,
    /// What of decoded frames is kept for each disk of a point that is being read.
    pub(crate) view_cache: ByteLen,
    /// Which points are kept.
    pub(crate) retention: RetentionConfig,
    /// How what is at rest is verified.
    pub(crate) scrub: ScrubConfig,
}

/// The table `[scrub]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScrubConfig {
    /// From the beginning of one pass over a disk to that of the next; none without.
    pub(crate) every: Option<Duration>,
    /// Bytes a second.
    pub(crate) rate: ByteLen,
}

/// The table `[retention]`.
#[derive(Clone, Debug, Default)]
pub(crate) struct RetentionConfig {
    /// How points are thinned out as they age.
    pub(crate) ladder: Ladder,
    /// What the deltas of all disks may take; without one, what the store's file system has.
    pub(crate) quota: Option<ByteLen>,
}

layer!(TargetLayer { store: PathBuf, socket: PathBuf, metrics: SocketAddr, listen: String,
    disk_size_max: Bytes, view_cache: Bytes }
    tables { retention: RetentionLayer, scrub: ScrubLayer });
layer!(RetentionLayer { ladder: LadderText, quota: Bytes });

layer!(ScrubLayer { every: Interval, rate: Bytes });

impl ScrubConfig {
    fn check(layer: &ScrubLayer) -> Result<Self> {
        let every = layer.every.map_or(Duration::from_secs(7 * 86_400), |every| every.0);
        let rate = layer.rate.map_or(ByteLen(32 << 20), |rate| rate.0);
        let often = every.is_zero() || every >= Duration::from_secs(1);
        ensure!(often, "every: at least 1s, or 0 for no scrub");
        ensure!(rate.0 >= 64 << 10, "rate: at least 64 KiB a second");
        Ok(Self { every: (!every.is_zero()).then_some(every), rate })
    }
}

/// A ladder as it is written.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct LadderText(Ladder);

impl TryFrom<String> for LadderText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let ladder = text.parse().map(Self);
        ladder.map_err(|error| {
            format!(
                "{text:?} is no ladder of retention: {error}; write for example \"{}\"",
                Ladder::default()
            )
        })
    }
}

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
            metrics: layer.metrics,
            listen,
            view_cache: layer.view_cache.map_or(replica::VIEW_CACHE_DEFAULT, |bytes| bytes.0),
            disk_size_max: layer.disk_size_max.map_or(ByteLen(64 << 40), |bytes| bytes.0),
            retention: RetentionConfig {
                ladder: layer.retention.ladder.map(|text| text.0).unwrap_or_default(),
                quota: layer.retention.quota.map(|bytes| bytes.0),
            },
            scrub: ScrubConfig::check(&layer.scrub)
                .context("scrub")
                .with_context(|| format!("in the configuration {}", path.display()))?,
        })
    }
}
