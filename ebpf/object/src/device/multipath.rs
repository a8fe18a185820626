//! NVMe multipath: which disk is a head, and which are its paths.
//!
//! The kernel makes of a namespace that several controllers may reach one disk that takes bios
//! (`nvme0n1`, the head), and a hidden one for each controller (`nvme0c1n1`, a path). A path has no
//! node and no `dev` in sysfs. Its number is in `/proc/diskstats`, which lists hidden disks too.

use std::{fs, io, path::Path};

use super::DeviceNumber;

/// The head hangs on the subsystem, a disk without paths on its controller.
pub(super) fn is_head(directory: &Path) -> bool {
    directory.components().any(|part| part.as_os_str() == "nvme-subsystem")
}

/// The numbers of the paths of the head with this name.
pub(super) fn paths(head: &str) -> io::Result<Vec<DeviceNumber>> {
    Ok(paths_in(&fs::read_to_string("/proc/diskstats")?, head))
}

/// The same, from the text of the statistics: lines of major, minor, name and counts.
fn paths_in(statistics: &str, head: &str) -> Vec<DeviceNumber> {
    let path = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let number = DeviceNumber::new(major, minor).filter(|number| number.devt() != 0)?;
        (head_of(fields.next()?)? == head).then_some(number)
    };
    statistics.lines().filter_map(path).collect()
}

/// The head of the path with this name: `nvme0n1` of `nvme0c1n1`.
fn head_of(path: &str) -> Option<String> {
    let (subsystem, rest) = path.strip_prefix("nvme")?.split_once('c')?;
    let (controller, namespace) = rest.split_once('n')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let named = [subsystem, controller, namespace].into_iter().all(is_number);
    named.then(|| format!("nvme{subsystem}n{namespace}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_told_by_their_place() {
        let head = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1";
        assert!(is_head(Path::new(head)));
        let plain = "/sys/devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1";
        assert!(!is_head(Path::new(plain)));
    }

    #[test]
    fn paths_are_told_by_their_names() {
        let statistics = " 259       1 nvme0c0n1 1 2 3\n 259       0 nvme0n1 1 2 3\n \
                          259       3 nvme0c12n1 1\n 259       4 nvme0c0n2 1\n   0       0 nvme0c3n1 1\n";
        let found: Vec<_> =
            paths_in(statistics, "nvme0n1").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["259:1", "259:3"]);
        assert_eq!(head_of("nvme0n1p1"), None);
        assert_eq!(head_of("nvme0c1n1p1"), None);
    }
}
