//! Fuzzing: the engine of `fuzz/` built once, a process of it a target, as many at once as there
//! are processors.
//!
//! Coverage comes from LLVM's own pass, which stable Rust has too; no nightly toolchain and no
//! sanitizer takes part. What must never happen is checked by the targets themselves.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    thread,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;

use crate::{
    command::{self, built, cargo, command, repository},
    packages::Purpose,
    setup,
};

/// What is asked of the fuzzers.
#[derive(Args)]
pub(crate) struct Wanted {
    #[command(flatten)]
    consent: crate::Consent,
    /// How long each target is fuzzed.
    #[arg(long, default_value_t = SECONDS)]
    seconds: u64,
    /// Keep what reaches the most, in as few and as small inputs as do it, in `fuzz/corpus`.
    #[arg(long)]
    keep: bool,
    /// Only these targets.
    targets: Vec<String>,
}

/// How long continuous integration fuzzes each target.
const SECONDS: u64 = 60;
/// One input may not take longer, in seconds.
const INPUT_SECONDS_MAX: u64 = 20;
/// Inputs longer than this are not tried.
const INPUT_LEN_MAX: usize = 8 << 10;
/// How LLVM counts what an input reaches, for libFuzzer to read.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// The task `fuzz`.
pub(crate) fn run(wanted: &Wanted) -> Result<()> {
    setup::ensure_installed(Purpose::Test, wanted.consent)?;
    let all = targets()?;
    for name in &wanted.targets {
        ensure!(all.contains(name), "{name} is no target; there are {}", all.join(", "));
    }
    let chosen = if wanted.targets.is_empty() { all } else { wanted.targets.clone() };
    let engine = build()?;
    fuzz_all(&engine, &chosen, wanted.seconds)?;
    if wanted.keep {
        chosen.iter().try_for_each(|name| keep(&engine, name))?;
    }
    Ok(())
}

/// All targets, as continuous integration fuzzes them.
pub(crate) fn run_briefly() -> Result<()> {
    run_for(SECONDS)
}

/// All targets, each for so many seconds.
pub(crate) fn run_for(seconds: u64) -> Result<()> {
    fuzz_all(&build()?, &targets()?, seconds)
}

/// Every target has a corpus of its name.
fn targets() -> Result<Vec<String>> {
    let corpus = repository().join("fuzz/corpus");
    let entries = fs::read_dir(&corpus).with_context(|| corpus.display().to_string())?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn build() -> Result<PathBuf> {
    let host = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    // With a target of its own, what builds and runs during the build is not instrumented.
    let mut build = cargo(&["build", "--profile", "fuzz", "--package", "fuzz"]);
    build.args(["--features", "engine", "--bin", "fuzz-engine", "--target", &host]);
    command::run(build.env("RUSTFLAGS", COVERAGE.join(" ")))
        .context("building the fuzzers' engine, which needs a C++ compiler")?;
    Ok(built(&format!("{host}/fuzz")).join("fuzz-engine"))
}

/// Fuzzes the targets, and fails once all have ended if an input broke one.
fn fuzz_all(engine: &Path, names: &[String], seconds: u64) -> Result<()> {
    let next = Mutex::new(names.iter());
    let broken = Mutex::new(Vec::new());
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    eprintln!("fuzzing {} for {seconds} s each, {at_once} at once", names.join(", "));
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let Some(name) = next.lock().expect("no panics here").next() else { return };
                    if let Err(error) = fuzz(engine, name, seconds) {
                        eprintln!("{name}: {error:#}");
                        broken.lock().expect("no panics here").push(name.as_str());
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().expect("no panics here");
    ensure!(broken.is_empty(), "fuzzing broke {}", broken.join(", "));
    Ok(())
}

/// Fuzzes one target, beginning with what is kept and what earlier runs have found.
fn fuzz(engine: &Path, name: &str, seconds: u64) -> Result<()> {
    let (found, broken) = (work("found", name)?, work("broken", name)?);
    let log = broken.join("log");
    let output = fs::File::create(&log).with_context(|| log.display().to_string())?;
    let mut run = command(engine);
    run.env("PINNACE_FUZZ_TARGET", name).env("PINNACE_FUZZ_SEEDS", &found);
    run.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-max_len={INPUT_LEN_MAX}"))
        .arg(format!("-artifact_prefix={}/", broken.display()))
        .args([&found, &kept(name)]);
    run.stdout(Stdio::null()).stderr(output);
    let status = run.status().context("starting the engine")?;
    let log = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let why = log.lines().skip_while(|line| !line.contains("panicked at")).take(4);
        let why: Vec<_> = why.collect();
        bail!(
            "an input breaks it: {}\nit is in {}; mend what it shows, and put it into \
             fuzz/regressions/{name} under a name that says what was wrong",
            why.join(" "),
            broken.display()
        );
    }
    let done = log.lines().rfind(|line| line.contains("DONE"));
    let done = done.ok_or_else(|| anyhow!("the engine did not finish: {log}"))?;
    println!("{name}: {}", done.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(())
}

/// Replaces what is kept of a target by the least that reaches as much.
fn keep(engine: &Path, name: &str) -> Result<()> {
    let (found, kept) = (work("found", name)?, kept(name));
    let least = work("least", name)?;
    fs::remove_dir_all(&least)
        .and_then(|()| fs::create_dir(&least))
        .context("a fresh directory")?;
    let mut merge = command(engine);
    merge.env("PINNACE_FUZZ_TARGET", name).args(["-set_cover_merge=1", "-use_counters=0"]);
    merge.arg(format!("-max_len={INPUT_LEN_MAX}")).args([&least, &found, &kept]);
    command::run(merge.stdout(Stdio::null()).stderr(Stdio::null()))?;
    fs::remove_dir_all(&kept).and_then(|()| fs::create_dir(&kept)).context("a fresh corpus")?;
    for entry in fs::read_dir(&least)? {
        let entry = entry?;
        fs::copy(entry.path(), kept.join(entry.file_name()))?;
    }
    Ok(())
}

fn kept(name: &str) -> PathBuf {
    repository().join("fuzz/corpus").join(name)
}

/// A directory of a target among what is built.
fn work(kind: &str, name: &str) -> Result<PathBuf> {
    let directory = built("fuzzing").join(kind).join(name);
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    Ok(directory)
}
