//! Random identities, hexadecimal text, and what tells this host and boot from others.

use anyhow::{Context, Result, anyhow};

/// 16 bytes from the kernel's random number generator.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no random numbers: {error}"))?;
    Ok(bytes)
}

/// A new identity as 32 hexadecimal digits.
pub(crate) fn random_id() -> Result<String> {
    random_bytes::<16>().map(|bytes| hex(&bytes))
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kernel's identity of this boot.
pub(crate) fn boot_id() -> Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("reading this boot's identity")?;
    let id: blocks::MachineId = text.trim().parse().context("reading this boot's identity")?;
    Ok(id.0)
}

/// The host's name, for people.
pub(crate) fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
