//! How fast the pipeline is alone: ships a disk of zeroes, text and noise, and drops the frames.
//!
//! ```text
//! cargo run --release -p shipper --example ship_speed -- [--size MIB] [--grain KIB] [--workers N]
//!     [--depth N] [--level N] [--rounds N] [--path DEVICE]
//! ```
//!
//! Without `--path` it makes a loop device over a file in `/dev/shm`, which needs root.

use std::{
    collections::HashMap,
    fs::File,
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use blocks::{
    Bitmap, ChunkSize, Coverage, DiskId, Epoch, GapReason, Generation, Geometry, SealedEpoch,
};
use crossbeam_channel::bounded;
use nix::sys::resource::{UsageWho, getrusage};
use shipper::{
    Compression, Content, DiskSource, Engine, EngineConfig, Job, LevelRange, ShipOutput,
    ShipReport, Stage,
};
use wire::{DataKey, Sealer};

const MIB: usize = 1 << 20;
const DISK: DiskId = DiskId([1; 16]);

fn main() {
    let options = Options::parse();
    let scratch = options.path.is_none().then(|| Scratch::new(options.size, options.grain));
    let path = options.path.clone().or(scratch.as_ref().map(|scratch| scratch.device.clone()));
    let path = path.expect("one or the other");
    for round in 0..options.rounds {
        let config = EngineConfig {
            workers: options.workers,
            queue_depth: options.depth,
            compression: options.compression,
            ..EngineConfig::default()
        };
        let engine = Engine::start(config).expect("an engine");
        let cpu = cpu_seconds();
        let report = ship(&engine, &path, options.size);
        println!("round {round}:");
        show(&engine, &report, cpu_seconds() - cpu);
    }
}

struct Options {
    size: usize,
    grain: usize,
    workers: NonZeroUsize,
    depth: NonZeroUsize,
    compression: Compression,
    rounds: usize,
    path: Option<PathBuf>,
}

impl Options {
    fn parse() -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let given: HashMap<&str, &str> =
            words.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
        let number = |name, default: usize| {
            given.get(name).map_or(default, |text| text.parse().expect("a number"))
        };
        let level = given.get("--level").map(|text| text.parse::<i32>().expect("a level"));
        Self {
            size: number("--size", 2048) * MIB,
            grain: number("--grain", 256) << 10,
            workers: NonZeroUsize::new(number("--workers", 2)).expect("at least one worker"),
            depth: NonZeroUsize::new(number("--depth", 32)).expect("at least one read"),
            compression: match level {
                Some(0) => Compression::Off,
                Some(n) => Compression::Adaptive(LevelRange::new(n, n).expect("a level")),
                None => Compression::Adaptive(LevelRange::default()),
            },
            rounds: number("--rounds", 3),
            path: given.get("--path").map(PathBuf::from),
        }
    }
}

fn ship(engine: &Engine, path: &Path, size: usize) -> ShipReport {
    let geometry = Geometry::new(size as u64 / 512, 512, ChunkSize::DEFAULT).expect("a disk");
    let source = DiskSource { id: DISK, path: path.to_owned(), geometry };
    let disk = engine.add_disk(source).expect("a disk");
    let gap = Coverage::Gap(GapReason::NeverReplicated);
    let sealed = SealedEpoch::seal(Epoch(1), Bitmap::full(geometry.chunks()), gap, true);
    let key = DataKey::generate().expect("random bytes");
    let sealer = Arc::new(Sealer::new(&key, DISK, Generation([2; 16])).expect("random bytes"));
    let (sink, frames) = bounded(16);
    let job = Job {
        disk,
        sealed,
        content: Content::Disk,
        point: None,
        follows: Epoch(0),
        sealer,
        replica_hashes: None,
        sink,
    };
    engine.ship(job).expect("a shipment");
    for output in frames {
        match output {
            ShipOutput::Frame(frame) => drop(frame),
            ShipOutput::Done(report) => return report,
            ShipOutput::Failed(error) => panic!("{error}"),
        }
    }
    unreachable!("a shipment ends with a report or an error")
}

fn show(engine: &Engine, report: &ShipReport, cpu_seconds: f64) {
    let bytes = report.covered_bytes as f64;
    let seconds = report.elapsed.as_secs_f64();
    println!(
        "  {:.0} MB/s; {:.2} s, {cpu_seconds:.2} s of processor: {:.3} ns/byte; data {:.1} %, \
         packed to {:.1} %; level {:?}, {:?}",
        bytes / seconds / 1e6,
        seconds,
        cpu_seconds * 1e9 / bytes,
        report.data_bytes as f64 / bytes * 100.0,
        report.packed_bytes as f64 / report.data_bytes as f64 * 100.0,
        engine.status().level,
        engine.status().bottleneck,
    );
    for stage in Stage::ALL {
        let latencies = engine.latencies(stage);
        println!(
            "  {:<9} {:>6} times, p50 {:>8.1} us, p99 {:>8.1} us, {:>6.3} ns/byte",
            format!("{stage:?}"),
            latencies.len(),
            latencies.value_at_quantile(0.5) as f64 / 1e3,
            latencies.value_at_quantile(0.99) as f64 / 1e3,
            latencies.mean() * latencies.len() as f64 / bytes,
        );
    }
}

fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("own usage");
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// A loop device over a file in memory: 40 % zeroes, 35 % text, 25 % noise.
struct Scratch {
    file: PathBuf,
    device: PathBuf,
}

impl Scratch {
    fn new(size: usize, grain: usize) -> Self {
        let file = PathBuf::from(format!("/dev/shm/ship-speed-{}", std::process::id()));
        fill(&File::create(&file).expect("a file"), size, grain);
        let made = Command::new("losetup").args(["--find", "--show"]).arg(&file).output();
        let made = made.expect("losetup");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let device = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
        Self { file, device }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
        let _ = std::fs::remove_file(&self.file);
    }
}

fn fill(file: &File, size: usize, grain: usize) {
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut text = text();
    let mut block = vec![0; grain];
    for (i, at) in (0..size).step_by(grain).enumerate() {
        match i * 7919 % 20 {
            0..8 => block.fill(0),
            8..15 => block.iter_mut().zip(&mut text).for_each(|(to, byte)| *to = byte),
            _ => noise.fill(&mut block),
        }
        file.write_all_at(&block, at as u64).expect("room in /dev/shm");
    }
}

/// Lines of a log: few shapes, many numbers.
fn text() -> impl Iterator<Item = u8> {
    const WHAT: [&str; 8] = [
        "GET /api/v1/orders/{} 200",
        "GET /static/app.{}.js 304",
        "POST /api/v1/cart/{} 201",
        "user {} logged in",
        "cache miss for key session:{}",
        "query took {} us: SELECT * FROM items WHERE id = $1",
        "worker {} finished, 0 errors",
        "retrying upstream {} after timeout",
    ];
    let mut state = 1u64;
    (0u64..).flat_map(move |line| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let number = state >> 44;
        let what = WHAT[(state >> 40) as usize % 8].replace("{}", &number.to_string());
        let second = line / 50 % 60;
        format!(
            "2026-03-01T10:42:{second:02}.{:06}Z host-{} app[{}]: {what}\n",
            state >> 45,
            state >> 61,
            1000 + (state >> 56)
        )
        .into_bytes()
    })
}
