//! Commands that are given to a disk past the block layer: SCSI's generic interface, NVMe's own.
//!
//! Their sector means nothing to the kernel, so a tracker can only say that it could not follow.

use std::{
    fs::File,
    os::fd::AsRawFd,
    ptr::{null, null_mut},
};

use anyhow::{Context, Result, ensure};
use nix::{errno::Errno, request_code_none, request_code_readwrite};
use serde::{Deserialize, Serialize};
use vm_tests::BlockDevice;

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Writes data: SCSI WRITE(10), NVMe Write.
    Write,
    /// Writes zeroes without being given any: NVMe Write Zeroes, which the kernel takes for a
    /// command that reads.
    WriteZeroes,
    /// Reads data, and leaves the medium alone: SCSI READ(10), NVMe Read.
    Read,
}

/// `struct sg_io_hdr` of `scsi/sg.h`.
#[repr(C)]
struct ScsiRequest {
    interface: i32,
    direction: i32,
    command_len: u8,
    sense_len: u8,
    vectors: u16,
    data_len: u32,
    data: *mut u8,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    pack: i32,
    user: *mut u8,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_written: u8,
    host_status: u16,
    driver_status: u16,
    residue: i32,
    duration_ms: u32,
    info: u32,
}

/// `struct nvme_passthru_cmd` of `linux/nvme_ioctl.h`.
#[repr(C)]
#[derive(Default)]
struct NvmeCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    words_2_and_3: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_len: u32,
    data_len: u32,
    words_10_to_15: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

const SG_IO: u32 = 0x2285;
const SG_WRITES: i32 = -2;
const SG_READS: i32 = -3;
const TIMEOUT_MS: u32 = 30_000;

/// Gives a disk a command for its logical block `block`.
pub fn command(disk: &BlockDevice, command: Command, block: u32) -> Result<()> {
    let file = File::options().read(true).write(true).open(disk.path());
    let file = file.with_context(|| format!("opening {}", disk.name()))?;
    let mut data = vec![0xc3; disk.logical_block() as usize];
    if disk.name().starts_with("nvme") {
        return nvme(&file, command, block, &mut data);
    }
    scsi(&file, command, block, &mut data)
}

fn scsi(file: &File, command: Command, block: u32, data: &mut [u8]) -> Result<()> {
    let (opcode, direction) = match command {
        Command::Write => (0x2a, SG_WRITES),
        Command::Read => (0x28, SG_READS),
        Command::WriteZeroes => anyhow::bail!("SCSI is given zeroes to write"),
    };
    let [b0, b1, b2, b3] = block.to_be_bytes();
    let one_block = 1;
    let bytes: [u8; 10] = [opcode, 0, b0, b1, b2, b3, 0, 0, one_block, 0];
    let mut sense = [0u8; 32];
    let mut request = ScsiRequest {
        interface: i32::from(b'S'),
        direction,
        command_len: 10,
        sense_len: 32,
        vectors: 0,
        data_len: u32::try_from(data.len())?,
        data: data.as_mut_ptr(),
        command: bytes.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms: TIMEOUT_MS,
        flags: 0,
        pack: 0,
        user: null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_written: 0,
        host_status: 0,
        driver_status: 0,
        residue: 0,
        duration_ms: 0,
        info: 0,
    };
    // SAFETY: `request` is what this call expects, and its buffers, of the lengths that it says,
    // live until the call returns, when the command is done.
    let done = unsafe { nix::libc::ioctl(file.as_raw_fd(), SG_IO.into(), &raw mut request) };
    Errno::result(done).context("SG_IO")?;
    let sense = request.sense_written;
    ensure!(request.status == 0 && request.host_status == 0, "status {}, {sense}", request.status);
    Ok(())
}

fn nvme(file: &File, command: Command, block: u32, data: &mut [u8]) -> Result<()> {
    // SAFETY: this call has no argument; it returns the number of the namespace.
    let namespace =
        unsafe { nix::libc::ioctl(file.as_raw_fd(), request_code_none!(b'N', 0x40), null::<u8>()) };
    let (opcode, data) = match command {
        Command::Write => (0x01, Some(data)),
        Command::Read => (0x02, Some(data)),
        Command::WriteZeroes => (0x08, None),
    };
    let (address, data_len) = data.map_or((0, 0), |data| (data.as_mut_ptr() as u64, data.len()));
    // The block, and one less than how many: one.
    let words_10_to_15 = [block, 0, 0, 0, 0, 0];
    let mut request = NvmeCommand {
        opcode,
        namespace: u32::try_from(Errno::result(namespace).context("the number of a namespace")?)?,
        address,
        data_len: u32::try_from(data_len)?,
        words_10_to_15,
        timeout_ms: TIMEOUT_MS,
        ..NvmeCommand::default()
    };
    let code = request_code_readwrite!(b'N', 0x43, size_of::<NvmeCommand>());
    // SAFETY: `request` is what this call expects, and its buffer, of the length that it says, lives
    // until the call returns, when the command is done.
    let done = unsafe { nix::libc::ioctl(file.as_raw_fd(), code, &raw mut request) };
    let status = Errno::result(done).context("the command of NVMe")?;
    ensure!(status == 0, "NVMe status {status:#x}");
    Ok(())
}
