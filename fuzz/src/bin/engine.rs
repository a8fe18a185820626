//! The coverage-guided engine: libFuzzer around one target, named by `PINNACE_FUZZ_TARGET`.
//!
//! Started by `cargo xtask fuzz`; the arguments are libFuzzer's. Given `PINNACE_FUZZ_SEEDS`, writes
//! the target's seeds there before it begins.

#![no_main]

use std::sync::OnceLock;
use std::{env, fs, path::Path};

use fuzz::Target;

static TARGET: OnceLock<&Target> = OnceLock::new();

fn begin() {
    let name = env::var("PINNACE_FUZZ_TARGET").unwrap_or_default();
    let target = Target::named(&name);
    let target = target.unwrap_or_else(|| panic!("PINNACE_FUZZ_TARGET={name:?} is no target"));
    if let Some(directory) = env::var_os("PINNACE_FUZZ_SEEDS") {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            let path = Path::new(&directory).join(format!("seed-{number}"));
            fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
    TARGET.get_or_init(|| target);
}

libfuzzer_sys::fuzz_target!(
    init: begin(),
    |bytes: &[u8]| TARGET.get().expect("it has begun").run(bytes)
);
