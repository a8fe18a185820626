//! Compiles the BPF programs with clang, and tells them the numbers that Rust code owns.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use blocks::{MarkKind, Taint};
use libbpf_cargo::SkeletonBuilder;

// The build script hands out some of these numbers, the crate reads all.
#[allow(dead_code, unreachable_pub)]
#[path = "src/limits.rs"]
mod limits;

/// The newest clang that is looked for under a versioned name, and the oldest that knows the
/// atomic instructions of the programs.
const CLANG_VERSIONS: std::ops::RangeInclusive<u32> = 13..=24;

fn main() {
    println!("cargo::rerun-if-changed=../bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let clang = find_clang();
    for name in ["pinnace", "empty"] {
        compile(&clang, Path::new(&format!("../bpf/{name}.bpf.c")), &out.join(format!("{name}.o")));
    }
}

fn compile(clang: &Path, source: &Path, object: &Path) {
    let mut arguments: Vec<String> =
        // The third version of the instruction set has the fetching atomics.
        ["-mcpu=v3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror", "-I../bpf"].map(String::from).to_vec();
    arguments.extend(numbers().iter().map(|(name, value)| format!("-D{name}={value}")));
    if env::var_os("CARGO_FEATURE_MUTANTS").is_some() {
        arguments.push("-DMUTANTS".into());
    }
    let built = SkeletonBuilder::new()
        .source(source)
        .obj(object)
        .clang(clang)
        .clang_args(arguments)
        .build();
    if let Err(error) = built {
        fail(&format!("{} does not compile: {error:?}", source.display()));
    }
}

fn numbers() -> Vec<(&'static str, u32)> {
    vec![
        ("DISKS", limits::DISKS),
        ("BUCKETS_LOG2", limits::BUCKETS_LOG2),
        ("WAYS", limits::WAYS),
        ("COPIES", limits::COPIES),
        ("CONFLICT_WORDS_LOG2", limits::CONFLICT_WORDS_LOG2),
        ("IN_FLIGHT_BUCKETS_LOG2", limits::IN_FLIGHT_BUCKETS_LOG2),
        ("IN_FLIGHT_WAYS", limits::IN_FLIGHT_WAYS),
        ("SHEET_WORDS_LOG2", limits::SHEET_WORDS_LOG2),
        ("SHEETS_LOG2", limits::SHEETS_LOG2),
        ("INLINE_WORDS", limits::INLINE_WORDS),
        ("COARSE_CHUNKS", limits::COARSE_CHUNKS),
        ("COARSE_WORDS_OF_A_RANGE", limits::COARSE_WORDS_OF_A_RANGE),
        ("DISCARD_RANGES", limits::DISCARD_RANGES),
        ("BARE_COMMANDS_WRITE", limits::BARE_COMMANDS_WRITE),
        ("TURNS_AWAY_UNCOUNTED", limits::TURNS_AWAY_UNCOUNTED),
        ("TAINT_PASSTHROUGH", Taint::Passthrough as u32),
        ("TAINT_UNKNOWN_OPERATION", Taint::UnknownOperation as u32),
        ("TAINT_IN_FLIGHT_TABLE_FULL", Taint::InFlightTableFull as u32),
        ("TAINT_OUT_OF_RANGE", Taint::OutOfRange as u32),
        ("TAINT_UNMATCHED_COMPLETION", Taint::UnmatchedCompletion as u32),
        ("TAINT_TOO_MANY_RANGES", Taint::TooManyRanges as u32),
        ("TAINT_LOOKUP_FAILED", Taint::LookupFailed as u32),
        ("TAINT_UNKNOWN_PATH", Taint::UnknownPath as u32),
        ("KIND_WRITE", MarkKind::Write as u32),
        ("KIND_DISCARD", MarkKind::Discard as u32),
        ("KIND_ZEROES", MarkKind::Zeroes as u32),
    ]
}

fn find_clang() -> PathBuf {
    let chosen = env::var_os("CLANG").map(PathBuf::from);
    let versioned = CLANG_VERSIONS.rev().map(|version| PathBuf::from(format!("clang-{version}")));
    let mut candidates = chosen.into_iter().chain([PathBuf::from("clang")]).chain(versioned);
    candidates.find(|clang| runs(clang)).unwrap_or_else(|| {
        fail(
            "clang is needed to compile the BPF programs and was not found (looked for $CLANG, \
             clang and clang-13 to clang-24).\nInstall it with `apt install clang` (Debian, \
             Ubuntu) or `dnf install clang` (Fedora), or let `cargo xtask test` do it.",
        )
    })
}

fn runs(clang: &Path) -> bool {
    Command::new(clang).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn fail(message: &str) -> ! {
    for line in message.lines() {
        println!("cargo::error={line}");
    }
    std::process::exit(1);
}
