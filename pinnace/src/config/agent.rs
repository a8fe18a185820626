//! `agent.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use blocks::{ByteLen, ChunkSize};
use ebpf::LoadOptions;

use super::policy::{HooksLayer, PolicyLayer};
use super::resync::{ResyncLayer, VerifyLayer};
use super::{Bytes, Hooks, Interval, Policy, Required, ResyncConfig, VerifyConfig, layer, load};

/// Settings of the agent, checked.
#[derive(Clone, Debug)]
pub(crate) struct AgentConfig {
    /// Identity, keys, records and logs of protected disks.
    pub(crate) state_dir: PathBuf,
    /// The admin socket.
    pub(crate) socket: PathBuf,
    /// Where Prometheus scrapes metrics, if it may.
    pub(crate) metrics: Option<SocketAddr>,
    /// Where maps and links are pinned; on a bpffs.
    pub(crate) pin_dir: PathBuf,
    /// From the end of one delta to the beginning of the next.
    pub(crate) interval: Duration,
    /// The unit of tracking for disks protected from now on.
    pub(crate) chunk: ChunkSize,
    /// The memory that reading and sealing may use.
    pub(crate) buffer_pool: ByteLen,
    /// The largest segment of an initial replication or comparison.
    pub(crate) segment: ByteLen,
    /// A limit of bytes a second read from the disks, if any.
    pub(crate) bandwidth: Option<ByteLen>,
    /// A limit of reads a second, if any.
    pub(crate) iops: Option<u64>,
    /// A delta of this percentage of a disk becomes a comparison.
    pub(crate) dirty_threshold_percent: u16,
    /// How often the log of dirty chunks is made durable while running.
    pub(crate) log_interval: Duration,
    /// Whether disks are compared after each start of the machine, whatever is proven.
    pub(crate) compare_after_boot: bool,
    /// The longest wait before what failed is tried again.
    pub(crate) retry_longest: Duration,
    /// Which recovery points are made, and how.
    pub(crate) policy: Policy,
    /// What makes applications ready for a point.
    pub(crate) hooks: Hooks,
    /// Sizes of what the kernel keeps for tracking, from the next time that programs are loaded.
    pub(crate) tracking: LoadOptions,
    /// When comparisons may begin.
    pub(crate) resync: ResyncConfig,
    /// How often blocks are sampled.
    pub(crate) verify: VerifyConfig,
}

layer!(AgentLayer {
    state_dir: PathBuf,
    socket: PathBuf,
    metrics: SocketAddr,
    pin_dir: PathBuf,
    interval: Interval,
    chunk: Bytes,
    buffer_pool: Bytes,
    segment: Bytes,
    bandwidth: Bytes,
    iops: u64,
    dirty_threshold_percent: u16,
    log_interval: Interval,
    compare_after_boot: bool,
    retry_longest: Interval,
} tables {
    policy: PolicyLayer,
    hooks: HooksLayer,
    tracking: TrackingLayer,
    resync: ResyncLayer,
    verify: VerifyLayer,
});

layer!(TrackingLayer { ring: Bytes, in_flight: u32 });

impl AgentConfig {
    /// The file that is read when none is named.
    pub(crate) const PATH: &str = "/etc/pinnace/agent.toml";

    /// Reads and checks the file and its drop-ins.
    pub(crate) fn load(path: &Path, required: Required) -> Result<Self> {
        let layer: AgentLayer = load(path, required)?;
        Self::check(layer).with_context(|| format!("in the configuration {}", path.display()))
    }

    fn check(layer: AgentLayer) -> Result<Self> {
        let bytes = |value: Option<Bytes>, default| value.map_or(ByteLen(default), |b| b.0);
        let interval = |value: Option<Interval>, default| {
            value.map_or(Duration::from_secs(default), |interval| interval.0)
        };
        let chunk = bytes(layer.chunk, ChunkSize::DEFAULT.bytes());
        let config = Self {
            state_dir: layer.state_dir.unwrap_or_else(|| "/var/lib/pinnace/agent".into()),
            socket: layer.socket.unwrap_or_else(|| "/run/pinnace/agent.sock".into()),
            metrics: layer.metrics,
            pin_dir: layer.pin_dir.unwrap_or_else(|| "/sys/fs/bpf/pinnace".into()),
            interval: interval(layer.interval, 5),
            chunk: ChunkSize::from_bytes(chunk.0).context("chunk")?,
            buffer_pool: bytes(layer.buffer_pool, 128 << 20),
            segment: bytes(layer.segment, 256 << 20),
            bandwidth: layer.bandwidth.map(|b| b.0),
            iops: layer.iops,
            dirty_threshold_percent: layer.dirty_threshold_percent.unwrap_or(50),
            log_interval: interval(layer.log_interval, 60),
            compare_after_boot: layer.compare_after_boot.unwrap_or(false),
            retry_longest: interval(layer.retry_longest, control::LONGEST.as_secs()),
            policy: Policy::check(&layer.policy).context("policy")?,
            hooks: Hooks::check(layer.hooks).context("hooks")?,
            tracking: check_tracking(&layer.tracking).context("tracking")?,
            resync: ResyncConfig::check(&layer.resync).context("resync")?,
            verify: VerifyConfig::check(&layer.verify).context("verify")?,
        };
        ensure!(config.interval >= Duration::from_millis(100), "interval: at least 100ms");
        ensure!(config.log_interval >= Duration::from_secs(1), "log_interval: at least 1s");
        ensure!(config.retry_longest >= Duration::from_secs(1), "retry_longest: at least 1s");
        ensure!(config.buffer_pool.0 >= 8 << 20, "buffer_pool: at least 8 MiB");
        ensure!(config.segment.0 >= 1 << 20, "segment: at least 1 MiB");
        ensure!(config.iops != Some(0), "iops: at least 1");
        ensure!(config.bandwidth != Some(ByteLen(0)), "bandwidth: at least 1 byte a second");
        let percent = 1..=100;
        ensure!(
            percent.contains(&config.dirty_threshold_percent),
            "dirty_threshold_percent: between 1 and 100"
        );
        Ok(config)
    }
}

/// The ring holds what is marked until the agent reads it; the rest is room for writes to bio-based
/// disks that are under way at once.
fn check_tracking(layer: &TrackingLayer) -> Result<LoadOptions> {
    /// Entries of a bucket, which are found fast.
    const WAYS: u32 = 4;
    let mut options = LoadOptions::default();
    if let Some(Bytes(ring)) = layer.ring {
        let pages = 4096..=1 << 30;
        let fits = pages.contains(&ring.0) && ring.0.is_power_of_two();
        ensure!(fits, "ring: a power of two from 4 KiB to 1 GiB");
        options.ring = ring;
    }
    if let Some(in_flight) = layer.in_flight {
        ensure!((8..=1 << 20).contains(&in_flight), "in_flight: between 8 and 1048576");
        // Half of a small table, all buckets of a large one.
        options.in_flight_buckets = options.in_flight_buckets.min(in_flight / 2 / WAYS);
        options.spilled = in_flight - options.in_flight_buckets * WAYS;
    }
    Ok(options)
}
