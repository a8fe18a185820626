//! A store whose files were changed behind its back, checksums made right again or not.

use std::sync::LazyLock;

use blocks::{ByteLen, Epoch, EpochKind, PointRecord, Sector};
use bytes::Bytes;
use storage::{FaultyStorage, OpenMode, Storage, StorePath, faulty::Fate};
use wire::{
    CheckedFrame, Codec, Content, EpochEnd, EpochLink, EpochSummary, FrameExtent, FrameSpec,
    Sealer, Sequence,
};

use super::epochs::{look, open, spec};
use super::sealed::{self, DISK};
use crate::{input::Input, mend};

/// A store with a disk of which three deltas wait, two of them points.
static WHOLE: LazyLock<FaultyStorage> = LazyLock::new(|| {
    let storage = FaultyStorage::new();
    replica::Store::init_on(&storage).expect("storage without faults");
    let disk = open(&storage).open_disk(&spec()).expect("a new disk");
    let sealer = sealed::sealer(DISK);
    for number in 1..=4 {
        let kind = if number == 1 { EpochKind::Seed } else { EpochKind::Delta };
        let link = EpochLink { kind, epoch: Epoch(number), follows: Epoch(number - 1) };
        let point = (number > 2).then(|| sealed::point(&mut Input::new(&[7; 8])));
        let mut incoming = disk.begin(link).expect("the next epoch");
        for frame in frames(&sealer, link, point) {
            let frame = CheckedFrame::parse(frame).expect("what was sealed is a frame");
            incoming.append(frame).expect("a frame of this epoch");
        }
        incoming.commit().expect("a whole epoch");
    }
    storage
});

/// Two frames, one compressed, with zeroes in the other, at places that differ from epoch to epoch.
pub(crate) fn frames(sealer: &Sealer, link: EpochLink, point: Option<PointRecord>) -> [Bytes; 3] {
    let extent = |start, content| FrameExtent { start: Sector(start), sectors: 3, content };
    let first = [extent(link.epoch.0, Content::Data), extent(20, Content::Zeroes)];
    let second = [extent(24 + link.epoch.0, Content::Data)];
    let coded = zstd::bulk::compress(&[9; 3 * 512], 1).expect("memory to compress");
    let frame = |sequence, codec, extents: &[FrameExtent], payload: &[u8]| {
        let spec = FrameSpec { link, sequence: Sequence(sequence), codec, extents };
        sealer.seal(&spec, payload).expect("a frame as it should be")
    };
    let (data_bytes, zero_bytes) = (6 * 512, 3 * 512);
    let summary = EpochSummary { frames: 2, data_bytes, zero_bytes, completes: true };
    let end = sealer.seal_end(link, Sequence(9), EpochEnd { summary, point });
    [
        frame(0, Codec::Raw, &first, &[8; 3 * 512]),
        frame(1, Codec::Zstd, &second, &coded),
        end.expect("an end as it should be"),
    ]
}

fn root(names: &[&str]) -> StorePath {
    names.iter().fold(StorePath::root(), |path, name| path.join(name))
}

/// Makes the checksums of a file right.
type Mend = fn(&mut [u8]);

/// The files of the disk that are changed, and what mends their checksums.
fn files() -> [(StorePath, Mend); 6] {
    let disk = DISK.to_string();
    let delta = |name| root(&["disks", &disk, "deltas", name]);
    [
        (root(&["disks", &disk, "catalog"]), mend::slots),
        (delta("2.delta"), mend::delta),
        (delta("3.delta"), mend::delta),
        (delta("4.delta"), mend::delta),
        (root(&["keys", &format!("{disk}.key")]), mend::tail),
        (root(&["disks", &disk, "base"]), |_| {}),
    ]
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let storage = WHOLE.after_crash(|_| Fate::Kept);
    for _ in 0..1 + input.below(3) {
        change(&mut input, &storage);
    }
    let store = open(&storage);
    drop(store.disks());
    drop(store.usage());
    drop(store.verify_at_rest());
    let Ok(disk) = store.open_disk(&spec()) else { return };
    for _ in 0..1 + input.below(4) {
        look(&mut input, &disk);
        if input.once_in(3) {
            drop(disk.fold_one());
        }
    }
    // What it holds is somebody else's; that it can be continued is not promised, only tried.
    let link = sealed::link(&mut input, disk.state().last_durable);
    drop(disk.begin(link));
}

/// Changes some bytes of a file, or its length, or where it is.
fn change(input: &mut Input, storage: &FaultyStorage) {
    let files = files();
    let (path, mend) = &files[input.index(files.len())];
    let Some(mut bytes) = storage.content(path) else { return };
    match input.below(8) {
        0 => {
            bytes.truncate(input.index(bytes.len() + 1));
        }
        1 => bytes.extend(input.bytes(256)),
        2 => {
            let to = &files[input.index(4)].0;
            drop(storage.rename(path, to));
            return;
        }
        _ => {
            // Counted from the end now and then: trailers are there.
            let len = bytes.len() as u64;
            let at = input.below(len.clamp(1, 1 << 13));
            let at = if input.once_in(2) { at } else { len.saturating_sub(1 + at) };
            let at = usize::try_from(at).expect("an index");
            for (byte, new) in bytes[at..].iter_mut().zip(input.bytes(24)) {
                *byte = *new;
            }
        }
    }
    if !input.once_in(4) {
        mend(&mut bytes);
    }
    if bytes.len() > 1 << 20 {
        return;
    }
    let file = storage.open(path, OpenMode::Write).expect("it is there");
    file.set_len(ByteLen(bytes.len() as u64)).expect("storage without faults");
    file.write_at(0, &bytes).expect("storage without faults");
}
