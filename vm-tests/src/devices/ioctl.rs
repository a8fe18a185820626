//! The kernel's block ioctls, each behind a function without `unsafe`.

use std::{fs::File, os::fd::AsRawFd};

use blocks::{Extent, Sector};
use nix::{errno::Errno, request_code_none, request_code_readwrite};

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
pub(super) struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct blkpg_ioctl_arg` of `linux/blkpg.h`.
#[repr(C)]
struct PartitionCommand {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut PartitionRange,
}

/// `struct blkpg_partition` of `linux/blkpg.h`: start and length in bytes.
#[repr(C)]
struct PartitionRange {
    start: i64,
    length: i64,
    number: i32,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct fstrim_range` of `linux/fs.h`.
#[repr(C)]
struct TrimRange {
    start: u64,
    length: u64,
    minimum: u64,
}

mod raw {
    use super::{LoopConfig, PartitionCommand, TrimRange};

    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4c82);
    nix::ioctl_none_bad!(loop_clr_fd, 0x4c01);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, LoopConfig);
    nix::ioctl_write_ptr_bad!(blk_discard, super::request_code_none!(0x12, 119), [u64; 2]);
    nix::ioctl_write_ptr_bad!(blk_zero_out, super::request_code_none!(0x12, 127), [u64; 2]);
    nix::ioctl_write_ptr_bad!(blkpg, super::request_code_none!(0x12, 105), PartitionCommand);
    nix::ioctl_write_ptr_bad!(
        fi_trim,
        super::request_code_readwrite!(b'X', 121, size_of::<TrimRange>()),
        TrimRange
    );
}

const LOOP_AUTOCLEAR: u32 = 4;
const ADD_PARTITION: i32 = 1;
const DELETE_PARTITION: i32 = 2;

/// The number of a loop device that is not in use now.
pub(super) fn loop_get_free(control: &File) -> Result<u32, Errno> {
    // SAFETY: takes no argument.
    let number = unsafe { raw::loop_ctl_get_free(control.as_raw_fd()) }?;
    u32::try_from(number).map_err(|_| Errno::EINVAL)
}

/// Binds `backing` to a loop device; it unbinds itself when nobody has it open any more.
pub(super) fn loop_configure(
    device: &File,
    backing: &File,
    logical_block: u32,
) -> Result<(), Errno> {
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(backing.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    config.block_size = logical_block;
    config.info.flags = LOOP_AUTOCLEAR;
    // SAFETY: `config` has the kernel's layout and lives across the call.
    unsafe { raw::loop_configure(device.as_raw_fd(), &raw const config) }.map(drop)
}

/// Unbinds a loop device, at once or when its last user closes it.
pub(super) fn loop_clear(device: &File) -> Result<(), Errno> {
    // SAFETY: takes no argument.
    unsafe { raw::loop_clr_fd(device.as_raw_fd()) }.map(drop)
}

/// Discards a range of an open device.
pub(crate) fn discard(device: &File, extent: Extent) -> Result<(), Errno> {
    let range = byte_range(extent);
    // SAFETY: the kernel reads two numbers, which live across the call.
    unsafe { raw::blk_discard(device.as_raw_fd(), &raw const range) }.map(drop)
}

/// Zeroes a range of an open device.
pub(crate) fn zero_out(device: &File, extent: Extent) -> Result<(), Errno> {
    let range = byte_range(extent);
    // SAFETY: the kernel reads two numbers, which live across the call.
    unsafe { raw::blk_zero_out(device.as_raw_fd(), &raw const range) }.map(drop)
}

/// Trims all free space of the file system that holds `file`.
pub(crate) fn trim(file: &File) -> Result<(), Errno> {
    let mut range = TrimRange { start: 0, length: u64::MAX, minimum: 0 };
    // SAFETY: the kernel reads and writes the structure, which has its layout and is ours alone.
    unsafe { raw::fi_trim(file.as_raw_fd(), &raw mut range) }.map(drop)
}

/// Makes partition `number` of a whole disk.
pub(super) fn partition_add(disk: &File, number: i32, extent: Extent) -> Result<(), Errno> {
    partition_command(disk, ADD_PARTITION, number, extent)
}

/// Removes partition `number` of a whole disk. Its content stays.
pub(super) fn partition_delete(disk: &File, number: i32) -> Result<(), Errno> {
    let extent = Extent { start: Sector(0), sectors: 0 };
    partition_command(disk, DELETE_PARTITION, number, extent)
}

fn partition_command(
    disk: &File,
    operation: i32,
    number: i32,
    extent: Extent,
) -> Result<(), Errno> {
    let signed = |bytes: u64| i64::try_from(bytes).map_err(|_| Errno::EOVERFLOW);
    let mut range = PartitionRange {
        start: signed(extent.start.bytes())?,
        length: signed(extent.len().0)?,
        number,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let length = i32::try_from(size_of::<PartitionRange>()).map_err(|_| Errno::EOVERFLOW)?;
    let command = PartitionCommand { operation, flags: 0, length, data: &raw mut range };
    // SAFETY: both structures have the kernel's layout and live across the call.
    unsafe { raw::blkpg(disk.as_raw_fd(), &raw const command) }.map(drop)
}

fn byte_range(extent: Extent) -> [u64; 2] {
    [extent.start.bytes(), extent.len().0]
}

const _: () = assert!(size_of::<LoopConfig>() == 304 && size_of::<PartitionRange>() == 152);
