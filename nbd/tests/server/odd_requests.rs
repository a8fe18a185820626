//! Requests that a careful client would not send, from a client that can be told not to care.
//! Each gets its error, and the connection goes on.

use crate::rig::{LEN, Rig, shell};

const REFUSED: &str = r"
import errno
def refused(number, call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as e:
        assert e.errnum == number, (call, arguments, e.errnum, e.string)
        assert h.pread(1, 0)
        return
    assert False, ('it was done', call, arguments)
";

#[test]
fn a_read_only_export_stays_as_it_is() {
    let rig = Rig::new();
    let before = rig.content();
    let script = r"
refused(errno.EPERM, h.pwrite, b'x' * 512, 0)
refused(errno.EPERM, h.pwrite, b'x' * (4 << 20), 512)
refused(errno.EPERM, h.zero, 4096, 0)
refused(errno.EPERM, h.trim, 4096, 0)
refused(errno.EINVAL, h.flush)
refused(errno.EINVAL, h.pwrite, b'x' * 512, 0, nbd.CMD_FLAG_FUA)
";
    shell(&rig.serve().uri(), &format!("{REFUSED}{script}"));
    assert!(rig.content() == before);
}

#[test]
fn what_lies_past_the_end_is_refused() {
    let rig = Rig::new();
    let script = format!(
        r"
end = {LEN}
refused(errno.EINVAL, h.pread, 1, end)
refused(errno.EINVAL, h.pread, 513, end - 512)
refused(errno.EINVAL, h.pread, 4096, (1 << 64) - 4096)
refused(errno.ENOSPC, h.pwrite, b'x' * 1024, end - 512)
refused(errno.ENOSPC, h.zero, 1024, end - 512)
refused(errno.EINVAL, h.trim, 1024, end - 512)
refused(errno.EINVAL, h.cache, 1024, end - 512)
refused(errno.EINVAL, h.block_status, 1024, end - 512, lambda *a: 0)
"
    );
    shell(&rig.serve_writable().uri(), &format!("{REFUSED}{script}"));
}

#[test]
fn more_than_the_limit_is_refused_and_the_limit_is_served() {
    let rig = Rig::new();
    let script = r"
most = 32 << 20
assert len(h.pread(most, 0)) == most
assert len(h.pread(most, 0, nbd.CMD_FLAG_DF)) == most
h.pwrite(b'y' * most, 4096)
assert h.pread(most, 4096) == b'y' * most
refused(errno.EINVAL, h.pread, most + 1, 0)
";
    shell(&rig.serve_writable().uri(), &format!("{REFUSED}{script}"));
}

#[test]
fn zeroes_that_have_to_be_fast_are_or_are_refused() {
    let rig = Rig::new();
    let script = r"
h.pwrite(b'z' * (1 << 20), 0)
h.zero(1 << 20, 0, nbd.CMD_FLAG_FAST_ZERO)
assert h.pread(1 << 20, 0) == bytes(1 << 20)
h.pwrite(b'z' * 4096, 0)
refused(errno.ENOTSUP, h.zero, 4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
assert h.pread(4096, 0) == b'z' * 4096
h.zero(4096, 0, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(4096, 0) == bytes(4096)
";
    shell(&rig.serve_writable().uri(), &format!("{REFUSED}{script}"));
}

#[test]
fn status_can_be_asked_for_in_parts() {
    let rig = Rig::new();
    let script = r"
seen = []
def note(context, offset, entries, error):
    assert context == 'base:allocation'
    seen.append((offset, list(entries)))
h.block_status(20 << 20, 1 << 20, note, nbd.CMD_FLAG_REQ_ONE)
assert seen == [(1 << 20, [4 << 20, 0])], seen
seen.clear()
h.block_status(1 << 20, 6 << 20, note)
assert seen == [(6 << 20, [1 << 20, 3])], seen
";
    shell(&rig.serve().uri(), script);
}
