//! The few calls on BPF objects that are made by file descriptor, as safe functions.
//!
//! Everything is opened from its pin, whether this process loaded it or one before it did, so that
//! there is one way to hold an object and not two.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
};

use libbpf_rs::libbpf_sys;

/// Pins an object. Fails if the path exists.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    let result = unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) };
    check(result).map(|_| ())
}

/// Opens a pinned object of any type.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    let result = unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) };
    owned(result)
}

/// Attaches a program to the tracepoint it was loaded for. It stays attached for as long as the
/// link that is returned, or a pin of it, exists.
pub(crate) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: a null name selects the program's own tracepoint; nothing is dereferenced.
    let result = unsafe { libbpf_sys::bpf_raw_tracepoint_open(ptr::null(), program.as_raw_fd()) };
    owned(result)
}

/// What the kernel tells of a program.
pub(crate) fn program_info(program: BorrowedFd<'_>) -> io::Result<libbpf_sys::bpf_prog_info> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut len = len_of(&info);
    // SAFETY: both pointers are to live locals, and `len` is the size of what `info` points to.
    let result = unsafe {
        libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut len)
    };
    check(result).map(|_| info)
}

/// The kernel's number of a map.
pub(crate) fn map_id(map: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = libbpf_sys::bpf_map_info::default();
    let mut len = len_of(&info);
    // SAFETY: both pointers are to live locals, and `len` is the size of what `info` points to.
    let result =
        unsafe { libbpf_sys::bpf_map_get_info_by_fd(map.as_raw_fd(), &raw mut info, &raw mut len) };
    check(result).map(|_| info.id)
}

/// Makes the kernel measure the run time of programs until the descriptor is closed.
pub(crate) fn enable_statistics() -> io::Result<OwnedFd> {
    // SAFETY: takes a number only.
    owned(unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) })
}

/// A descriptor of its own for the same object.
pub(crate) fn duplicate(object: &impl AsFd) -> io::Result<OwnedFd> {
    object.as_fd().try_clone_to_owned()
}

fn len_of<T>(_: &T) -> u32 {
    u32::try_from(size_of::<T>()).expect("these records are some hundred bytes")
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// libbpf returns a negative error number.
fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn owned(result: i32) -> io::Result<OwnedFd> {
    // SAFETY: a non-negative result is a descriptor that was just opened for us and that nothing
    // else owns.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}
