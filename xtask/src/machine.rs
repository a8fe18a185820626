//! What the machine itself must bring, which no package can: said in words.

use std::path::Path;

use crate::command::{is_installed, is_root};

/// One thing the demo and the tests rest on.
struct Fact {
    holds: bool,
    yes: &'static str,
    no: &'static str,
}

/// Prints what this machine brings and what it lacks.
pub(crate) fn report() {
    for fact in facts() {
        let (word, text) = if fact.holds { ("ok  ", fact.yes) } else { ("warn", fact.no) };
        println!("{word}  {text}");
    }
    println!("ok    No BPF file system has to be mounted: the demo and the tests mount their own.");
}

/// Whether the kernel makes loop and zram disks without loading a module.
pub(crate) fn makes_disks() -> bool {
    there("/dev/loop-control") && there("/sys/class/zram-control")
}

fn there(path: &str) -> bool {
    Path::new(path).exists()
}

fn facts() -> [Fact; 4] {
    [
        Fact {
            holds: is_root(),
            yes: "This is root, as loading BPF programs and making disks asks for.",
            no: "This is not root: the demo and the tests run through sudo.",
        },
        Fact {
            holds: there("/sys/kernel/btf/vmlinux"),
            yes: "The kernel describes its types (BTF).",
            no: "The kernel has no /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF): \
                 writes can't be tracked on it.",
        },
        Fact {
            holds: makes_disks() || is_installed("modprobe"),
            yes: "Loop and zram disks can be made, or their modules be asked for.",
            no: "The kernel has no loop or zram disks, and there is no modprobe to load them.",
        },
        Fact {
            holds: there("/dev/shm"),
            yes: "There is memory for the disks of the demo and the tests (/dev/shm).",
            no: "There is no /dev/shm: set PINNACE_RIG_DIR to a directory in memory.",
        },
    ]
}
