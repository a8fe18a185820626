//! Other people's clients write to an overlay.

use crate::rig::{LEN, Rig, noise, run, shell, text};

#[test]
fn nbdcopy_writes_an_image_over_another() {
    let rig = Rig::new();
    let served = rig.serve_writable();
    let before = rig.content();
    let other = rig.path("other.raw");
    let mut content = noise(77, usize::try_from(LEN).unwrap());
    content[4 << 20..24 << 20].fill(0);
    std::fs::write(&other, &content).unwrap();
    run("nbdcopy", &["--flush", text(&other), &served.uri()]);
    let back = rig.path("back.raw");
    run("nbdcopy", &[&served.uri(), text(&back)]);
    assert!(std::fs::read(&back).unwrap() == content, "what was written is not what is read");
    assert!(rig.content() == before, "the disk below was touched");
}

#[test]
fn nbdinfo_is_told_what_can_be_written() {
    let rig = Rig::new();
    let served = rig.serve_writable();
    let info = run("nbdinfo", &["--json", &served.uri()]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let export = &info["exports"][0];
    for (property, value) in [
        ("is_read_only", false),
        ("can_multi_conn", false),
        ("can_flush", true),
        ("can_fua", true),
        ("can_trim", true),
        ("can_zero", true),
        ("can_fast_zero", true),
    ] {
        assert_eq!(export[property], value, "{property}");
    }
}

#[test]
fn qemu_io_writes_zeroes_discards_and_verifies() {
    let rig = Rig::new();
    let served = rig.serve_writable();
    let uri = served.uri();
    let commands = [
        "write -P 0x11 0 1M",
        "write -P 0x22 1000k 300k",
        "write -f -P 0x33 17408 1536",
        "write -z 512k 64k",
        "write -z -u 2M 1M",
        "discard 21M 2M",
        "aio_write -P 0x44 30M 4M",
        "aio_write -P 0x55 40M 2M",
        "aio_flush",
        "flush",
        "read -P 0x11 0 17k",
        "read -P 0x33 17k 1536",
        "read -P 0x11 19k 493k",
        "read -P 0 512k 64k",
        "read -P 0x22 1000k 300k",
        "read -P 0 2M 1M",
        "read -P 0x44 30M 4M",
        "read -P 0x55 40M 2M",
        "read -P 0 34M 6M",
    ];
    let mut arguments = vec!["-f", "raw", "-d", "unmap"];
    commands.iter().for_each(|command| arguments.extend(["-c", command]));
    arguments.push(&uri);
    let output = run("qemu-io", &arguments);
    assert!(!output.contains("verification failed") && !output.contains("failed:"), "{output}");
    // The pattern check of qemu-io is one that can fail.
    let (_, output) = crate::rig::attempt("qemu-io", &["-f", "raw", "-c", "read -P 1 0 4k", &uri]);
    assert!(output.contains("Pattern verification failed"), "{output}");
}

#[test]
fn small_writes_between_granules_leave_their_neighbours() {
    let rig = Rig::new();
    let served = rig.serve_writable();
    let image = text(&rig.image).to_owned();
    let script = format!(
        r"
import random
random.seed(7)
model = bytearray(open('{image}', 'rb').read())
for i in range(300):
    offset = random.randrange({LEN})
    length = min(random.choice([1, 7, 512, 4096, 5000, 70000]), {LEN} - offset)
    kind = random.randrange(4)
    if kind < 2:
        data = bytes([random.randrange(256)]) * length
        h.pwrite(data, offset, random.choice([0, nbd.CMD_FLAG_FUA]))
        model[offset:offset + length] = data
    elif kind == 2:
        h.zero(length, offset, random.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO]))
        model[offset:offset + length] = bytes(length)
    else:
        h.trim(length, offset)
        model[offset:offset + length] = h.pread(length, offset)
h.flush()
for offset in range(0, {LEN}, 1 << 20):
    length = min(1 << 20, {LEN} - offset)
    assert h.pread(length, offset) == model[offset:offset + length], offset
"
    );
    shell(&served.uri(), &script);
}

#[test]
fn what_was_written_is_gone_with_the_server() {
    let rig = Rig::new();
    let served = rig.serve_writable();
    shell(&served.uri(), "h.pwrite(b'x' * 4096, 0)\nassert h.pread(1, 0) == b'x'");
    let image = rig.content();
    served.server.stop();
    assert!(rig.content() == image);
    let names: Vec<_> = std::fs::read_dir(rig.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["image.raw"], "something is left behind");
}
