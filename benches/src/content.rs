//! What the measured disks hold, and what is changed on them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use blocks::ByteLen;
use nix::fcntl::OFlag;
use vm_tests::Random;

/// The piece that is of one sort throughout.
pub(crate) const PIECE: usize = 256 << 10;
/// Of every twenty pieces: 40 % zeroes, 35 % text, 25 % noise.
const SORTS: [Sort; 20] = {
    let mut sorts = [Sort::Zeroes; 20];
    let mut at = 8;
    while at < 20 {
        sorts[at] = if at < 15 { Sort::Text } else { Sort::Noise };
        at += 1;
    }
    sorts
};
/// The unit of a change, and the alignment of direct writes.
pub(crate) const BLOCK: usize = 4096;

#[derive(Clone, Copy)]
enum Sort {
    Zeroes,
    Text,
    Noise,
}

/// Mixed content, a piece at a time.
pub(crate) struct Mix {
    random: Random,
    sorts: [Sort; 20],
    number: usize,
}

impl Mix {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), sorts: SORTS, number: 0 }
    }

    /// Fills the next piece. Whether it is anything but zeroes.
    pub(crate) fn fill(&mut self, piece: &mut [u8; PIECE]) -> bool {
        let at = self.number % self.sorts.len();
        if at == 0 {
            shuffle(&mut self.sorts, &mut self.random);
        }
        self.number += 1;
        match self.sorts[at] {
            Sort::Zeroes => piece.fill(0),
            Sort::Text => text(piece, &mut self.random),
            Sort::Noise => self.random.fill(piece),
        }
        !matches!(self.sorts[at], Sort::Zeroes)
    }
}

/// Writes `len` bytes of mixed content to a file; the zeroes too.
pub(crate) fn fill(path: &Path, len: ByteLen, seed: u64) -> io::Result<()> {
    fill_thinly(path, len, 1, seed)
}

/// The same of one piece in so many; what lies between is left as it is.
pub(crate) fn fill_thinly(path: &Path, len: ByteLen, one_in: u64, seed: u64) -> io::Result<()> {
    let mut mix = Mix::new(seed);
    let file = File::options().write(true).open(path)?;
    let mut file = BufWriter::with_capacity(PIECE, file);
    let mut piece = [0; PIECE];
    for _ in 0..usize::try_from(len.0 / one_in).map_err(io::Error::other)? / PIECE {
        mix.fill(&mut piece);
        file.write_all(&piece)?;
        if one_in > 1 {
            file.seek(io::SeekFrom::Current(
                i64::try_from((one_in - 1) * PIECE as u64).map_err(io::Error::other)?,
            ))?;
        }
    }
    file.flush()
}

/// The content of the changed block of a number: three of five as text, the others noise, which is a
/// disk's own mix without the zeroes.
pub(crate) fn fill_block(number: usize, block: &mut [u8], random: &mut Random) {
    if number % 5 < 3 {
        text(block, random);
    } else {
        random.fill(block);
    }
}

/// Overwrites `blocks` different blocks of a disk, anywhere on it, past the page cache.
pub(crate) fn change(disk: &Path, len: ByteLen, blocks: usize, seed: u64) -> io::Result<()> {
    let mut random = Random::new(seed);
    let disk = File::options().write(true).custom_flags(OFlag::O_DIRECT.bits()).open(disk)?;
    let mut memory = vec![0; 2 * BLOCK];
    let start = memory.as_ptr().align_offset(BLOCK);
    let block = &mut memory[start..start + BLOCK];
    let mut places = BTreeSet::new();
    while places.len() < blocks {
        places.insert(random.below(len.0 / BLOCK as u64));
    }
    for (number, place) in places.into_iter().enumerate() {
        fill_block(number, block, &mut random);
        disk.write_all_at(block, place * BLOCK as u64)?;
    }
    Ok(())
}

/// Lines as a web server logs them: some variety, many numbers.
fn text(buffer: &mut [u8], random: &mut Random) {
    const VERBS: [&str; 4] = ["GET", "GET", "POST", "PUT"];
    const PATHS: [&str; 8] = [
        "/api/orders",
        "/api/orders/items",
        "/api/customers",
        "/login",
        "/static/app.js",
        "/static/style.css",
        "/images/product",
        "/search",
    ];
    const AGENTS: [&str; 4] = [
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36",
        "curl/8.9.1",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15",
    ];
    let mut second = random.below(86_400);
    let mut filled = 0;
    while filled < buffer.len() {
        let mut pick = |of: usize| usize::try_from(random.below(of as u64)).expect("below a usize");
        second += pick(2) as u64;
        let line = format!(
            "10.{}.{}.{} - - [23/Nov/2026:{:02}:{:02}:{:02} +0000] \"{} {}/{} HTTP/1.1\" 200 {} \"-\" \"{}\"\n",
            pick(4),
            pick(64),
            pick(256),
            second / 3600 % 24,
            second / 60 % 60,
            second % 60,
            VERBS[pick(4)],
            PATHS[pick(8)],
            pick(100_000),
            pick(50_000),
            AGENTS[pick(4)],
        );
        let len = line.len().min(buffer.len() - filled);
        buffer[filled..filled + len].copy_from_slice(&line.as_bytes()[..len]);
        filled += len;
    }
}

fn shuffle(sorts: &mut [Sort], random: &mut Random) {
    for last in (1..sorts.len()).rev() {
        let other = usize::try_from(random.below(last as u64 + 1)).expect("at most a usize");
        sorts.swap(last, other);
    }
}
