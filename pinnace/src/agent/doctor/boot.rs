//! Whether an orderly reboot will cost a delta: the hooks that `docs/boot.md` has installed.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::{Finding, Grade};

const CHECK: &str = "reboot";

/// The helper that attaches in the initramfs.
const HELPER: &str = "usr/lib/pinnace/early-attach";
/// What closes the logs at a stop.
const SHUTDOWN: &str = "usr/lib/systemd/system-shutdown/pinnace.shutdown";
/// What takes the helper into an initramfs, by who makes that.
const HOOKS: [&str; 2] =
    ["usr/share/initramfs-tools/hooks/pinnace", "usr/lib/dracut/modules.d/91pinnace"];
/// The initramfs of a kernel, as distributions name it; the release follows, and maybe an ending.
const IMAGES: [(&str, &str); 2] = [("boot/initrd.img-", ""), ("boot/initramfs-", ".img")];

/// Looks below `root` for what is installed; `plan` is what the initramfs of a kernel of this
/// `release` should hold.
pub(super) fn examine(root: &Path, plan: &Path, release: &str) -> Finding {
    let there = |path: &str| root.join(path).exists();
    let missing = match (there(HELPER), there(SHUTDOWN), HOOKS.iter().any(|hook| there(hook))) {
        (true, true, true) => None,
        (false, false, false) => Some("its hooks are not installed"),
        (false, ..) => Some("the helper for the initramfs is missing"),
        (_, false, _) => Some("the hook of the stop is missing"),
        (.., false) => Some("the hook of the initramfs is missing"),
    };
    if let Some(missing) = missing {
        let found = format!("every boot leads to a comparison: {missing}");
        return Finding::bad(Grade::Warn, CHECK, found, "docs/boot.md says what to install");
    }
    let images = IMAGES.map(|(before, after)| root.join(format!("{before}{release}{after}")));
    let made = images.iter().filter_map(|image| changed(image)).max();
    let fix = "`update-initramfs -u`, or `dracut --force`";
    match (changed(plan), made) {
        (None, _) => Finding::ok(CHECK, "its hooks are installed"),
        (Some(planned), Some(made)) if made >= planned => {
            Finding::ok(CHECK, "an orderly one costs a delta")
        }
        (Some(_), Some(_)) => {
            let found = "the initramfs is older than the plan that it should hold";
            Finding::bad(Grade::Warn, CHECK, found, fix)
        }
        (Some(_), None) => {
            let found = format!("no initramfs of {release} was found in /boot");
            Finding::bad(Grade::Warn, CHECK, found, fix)
        }
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn put(root: &Path, path: &str, age: Duration) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn what_is_missing_or_too_old_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let (plan, hour) = (root.join("plan"), Duration::from_secs(3600));
        let examine = || examine(root, &plan, "6.1.0");
        assert!(examine().found.contains("not installed"));
        put(root, SHUTDOWN, hour);
        put(root, HOOKS[1], hour);
        assert!(examine().found.contains("helper"));
        put(root, HELPER, hour);
        assert_eq!(examine().grade, Grade::Ok, "nothing is protected");
        put(root, "plan", hour);
        assert!(examine().found.contains("no initramfs of 6.1.0"));
        put(root, "boot/initramfs-6.1.0.img", 2 * hour);
        assert!(examine().found.contains("older"));
        put(root, "boot/initrd.img-6.1.0", Duration::ZERO);
        assert_eq!(examine().grade, Grade::Ok);
    }
}
