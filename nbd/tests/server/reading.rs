//! Other people's clients read.

use std::sync::Arc;

use nbd::{Limits, Listen, Listener, Server};

use crate::rig::{LEN, Rig, named, run, shell, text};

#[test]
fn nbdinfo_is_told_what_is_there() {
    let rig = Rig::new();
    let served = rig.serve();
    let info = run("nbdinfo", &["--json", &served.uri()]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["protocol"], "newstyle-fixed");
    assert_eq!(info["structured"], true);
    let export = &info["exports"][0];
    assert_eq!(export["export-name"], "vda");
    assert_eq!(export["description"], "a disk");
    assert_eq!(export["export-size"], LEN);
    assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
    for (property, value) in [
        ("is_read_only", true),
        ("can_multi_conn", true),
        ("can_df", true),
        ("can_cache", true),
        ("can_flush", false),
        ("can_fua", false),
        ("can_trim", false),
        ("can_zero", false),
    ] {
        assert_eq!(export[property], value, "{property}");
    }
    let sizes =
        ["minimum", "preferred", "maximum"].map(|size| &export[format!("block_size_{size}")]);
    assert_eq!(sizes, [1, 4096, 32 << 20]);
    let list = run("nbdinfo", &["--list", "--json", &served.uri()]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["exports"][0]["export-name"], "vda");
}

#[test]
fn holes_are_on_the_map() {
    let rig = Rig::new();
    let served = rig.serve();
    let map = run("nbdinfo", &["--map", "--json", &served.uri()]);
    let map: Vec<serde_json::Value> = serde_json::from_str(&map).unwrap();
    let runs: Vec<_> = map
        .iter()
        .map(|run| (run["offset"].as_u64().unwrap(), run["type"].as_u64().unwrap()))
        .collect();
    let mib = |count: u64| count << 20;
    // The last block of the file system holds the last sector of data.
    let last = LEN / 4096 * 4096;
    let hole_and_zero = 3;
    assert_eq!(
        runs,
        [
            (0, 0),
            (mib(5), hole_and_zero),
            (mib(16), 0),
            (mib(16) + (64 << 10), hole_and_zero),
            (mib(20), 0),
            (mib(29), hole_and_zero),
            (last, 0)
        ]
    );
}

#[test]
fn nbdcopy_gets_the_image_in_every_way() {
    let rig = Rig::new();
    let served = rig.serve();
    let copy = rig.path("copy.raw");
    // One connection, several, and one request at a time.
    for arguments in [&["--connections=1"][..], &["--connections=4"], &["--synchronous"]] {
        let uri = served.uri();
        let mut all = arguments.to_vec();
        all.extend([uri.as_str(), text(&copy)]);
        run("nbdcopy", &all);
        assert!(std::fs::read(&copy).unwrap() == rig.content(), "{arguments:?}");
        std::fs::remove_file(&copy).unwrap();
    }
}

#[test]
fn qemu_img_compares_and_converts() {
    let rig = Rig::new();
    let served = rig.serve();
    let uri = served.uri();
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, text(&rig.image)]);
    let qcow2 = rig.path("copy.qcow2");
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &uri, text(&qcow2)]);
    run("qemu-img", &["compare", "-f", "qcow2", "-F", "raw", text(&qcow2), text(&rig.image)]);
    // A comparison that could not fail would be none.
    let other = rig.path("other.raw");
    std::fs::write(&other, vec![0; usize::try_from(LEN).unwrap()]).unwrap();
    let (same, _) =
        crate::rig::attempt("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, text(&other)]);
    assert!(!same);
}

#[test]
fn simple_replies_and_single_pieces_hold_the_same_bytes() {
    let rig = Rig::new();
    let served = rig.serve();
    let image = text(&rig.image).to_owned();
    let script = format!(
        r#"
f = open('{image}', 'rb')
def same(offset, length, got):
    f.seek(offset)
    assert f.read(length) == bytes(got), (offset, length)
places = [(0, 1), (1, 511), (5242879, 3), (4 << 20, 8 << 20), (16 << 20, 32 << 20),
          ({LEN} - 5, 5), (12345, 1 << 20)]
for offset, length in places:
    same(offset, length, h.pread(length, offset))
    if h.get_structured_replies_negotiated():
        same(offset, length, h.pread(length, offset, nbd.CMD_FLAG_DF))
        pieces = bytearray(length)
        def piece(part, at, status, error):
            pieces[at - offset:at - offset + len(part)] = part
        same(offset, length, h.pread_structured(length, offset, piece))
    h.cache(length, offset)
"#
    );
    shell(&served.uri(), &script);
    let uri = served.uri();
    let simple = format!("h.set_request_structured_replies(False)\nh.connect_uri('{uri}')\n");
    let check = "assert not h.get_structured_replies_negotiated()\n";
    run("nbdsh", &["-c", &format!("{simple}{check}{script}")]);
}

#[test]
fn loopback_serves_as_well_and_several_exports_have_their_names() {
    let rig = Rig::new();
    let mut second = named(rig.raw());
    second.name = "vdb@latest".into();
    let listen = Listen::Tcp("127.0.0.1:0".parse().unwrap());
    let exports = vec![named(rig.raw()), second];
    let listener = Listener::bind(&listen, None).unwrap();
    let server = Server::start(listener, exports, Limits::default()).unwrap();
    let Listen::Tcp(address) = server.address() else { panic!("{server:?}") };
    let uri = format!("nbd://{address}/vdb%40latest");
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &uri, text(&rig.image)]);
    let (found, words) = crate::rig::attempt("nbdinfo", &[&format!("nbd://{address}/vdc")]);
    assert!(!found && words.contains("No such file or directory"), "{words}");
}

#[test]
fn an_error_of_the_disk_reaches_the_client_in_words() {
    #[derive(Debug)]
    struct Damaged(Arc<dyn nbd::Export>);
    impl nbd::Export for Damaged {
        fn len(&self) -> u64 {
            self.0.len()
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            if offset + buffer.len() as u64 > 21 << 20 {
                return Err(std::io::Error::other("frame 7 is damaged"));
            }
            self.0.read_at(offset, buffer)
        }
        fn status(
            &self,
            range: std::ops::Range<u64>,
            max: usize,
        ) -> std::io::Result<Vec<nbd::Run>> {
            self.0.status(range, max)
        }
    }
    let rig = Rig::new();
    let served = rig.serve_export(Arc::new(Damaged(rig.raw())), Limits::default());
    let script = r"
try:
    h.pread(4 << 20, 19 << 20)
    assert False, 'it was read'
except nbd.Error as e:
    assert e.errnum == errno.EIO, e
assert len(h.pread(4096, 0)) == 4096
";
    shell(&served.uri(), &format!("import errno\n{script}"));
    let simple = format!(
        "import errno\nh.set_request_structured_replies(False)\nh.connect_uri('{}')\n{script}",
        served.uri()
    );
    run("nbdsh", &["-c", &simple]);
}
