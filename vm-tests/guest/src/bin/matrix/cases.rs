//! Which cases there are.

use std::time::Duration;

use blocks::ByteLen;
use vm_guest::{
    cell::{Case, FilesystemName, Work},
    image::LARGE,
    passthrough::Command,
    stack::Kind,
};
use vm_tests::vm::Series;

/// The longest that a case may take: ten times what it takes on a machine that does nothing else.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

const SMALL: ByteLen = ByteLen(64 << 20);

const KINDS: [Kind; 14] = [
    Kind::VirtioBlk,
    Kind::VirtioScsi,
    Kind::Nvme,
    Kind::NvmeHead,
    Kind::DmLinear,
    Kind::DmCrypt,
    Kind::DmThin,
    Kind::DmSnapshotOrigin,
    Kind::Raid1,
    Kind::Raid5,
    Kind::Zram,
    Kind::Loop,
    Kind::NullBlk,
    Kind::ScsiDebug,
];

const FILESYSTEMS: [FilesystemName; 3] =
    [FilesystemName::Ext4, FilesystemName::Xfs, FilesystemName::Btrfs];

const PASSTHROUGH: [(Kind, Command); 8] = [
    (Kind::VirtioScsi, Command::Write),
    (Kind::VirtioScsi, Command::Read),
    (Kind::ScsiDebug, Command::Write),
    (Kind::Nvme, Command::Write),
    (Kind::Nvme, Command::WriteZeroes),
    (Kind::Nvme, Command::Read),
    (Kind::NvmeHead, Command::Write),
    (Kind::NvmeHead, Command::Read),
];

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What fits continuous integration.
    Subset,
    /// Everything.
    Full,
}

/// A case with what the table calls it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named {
    /// A disk and a work on it.
    Cell {
        /// What is run.
        case: Case,
        /// Whether the kernel is locked down.
        lockdown: bool,
    },
    /// The control: no program is attached, and the judge must object.
    Blind(Case),
    /// Writers against harvests: right, or one of the wrong ways.
    Race(&'static str),
}

impl Named {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Cell { case, lockdown } => {
                let work = match case.work {
                    Work::Raw { .. } => String::new(),
                    Work::PathsComeAndGo { .. } => ", paths come and go".to_owned(),
                    Work::Passthrough { command } => {
                        format!(", passthrough {}", command_name(command))
                    }
                    Work::MergedDiscards { .. } => ", merged discards".to_owned(),
                    Work::Files { filesystem, .. } => format!(", {filesystem:?}").to_lowercase(),
                };
                let lockdown = if *lockdown { ", lockdown" } else { "" };
                format!("{}{work}{lockdown}", kind_name(case.kind))
            }
            Self::Blind(_) => "control: not attached".to_owned(),
            Self::Race("right") => "race of writes and harvests".to_owned(),
            Self::Race("issue-only") => "control: race, marked at issue".to_owned(),
            Self::Race(_) => "control: race, read before cleared".to_owned(),
        }
    }
}

const fn command_name(command: Command) -> &'static str {
    match command {
        Command::Write => "write",
        Command::WriteZeroes => "write zeroes",
        Command::Read => "read",
    }
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::VirtioBlk => "virtio-blk",
        Kind::VirtioScsi => "virtio-scsi",
        Kind::Nvme => "NVMe",
        Kind::NvmeHead => "NVMe multipath head",
        Kind::DmLinear => "dm-linear, 4 segments",
        Kind::DmCrypt => "dm-crypt",
        Kind::DmThin => "dm-thin",
        Kind::DmSnapshotOrigin => "dm-snapshot origin",
        Kind::Raid1 => "md raid1",
        Kind::Raid5 => "md raid5",
        Kind::Zram => "zram",
        Kind::Loop => "loop",
        Kind::NullBlk => "null_blk, 2 queues",
        Kind::ScsiDebug => "scsi_debug, 4 KiB sectors",
    }
}

/// Where a disk of a kind can't be tracked, so that the product has to say so.
pub(crate) fn must_be_refused(series: Series, kind: Kind) -> bool {
    let too_old = series == Series::Bullseye;
    // Single pages pass by a zram there, and heads keep no statistics.
    let unseen = series == Series::Bookworm && matches!(kind, Kind::Zram | Kind::NvmeHead);
    too_old || unseen
}

impl Extent {
    /// Whether a kernel belongs to it. The newest may be another tomorrow, which is nothing that a
    /// change to be tested is answerable for.
    pub(crate) fn holds(self, series: Series) -> bool {
        self == Self::Full || matches!(series, Series::Bookworm | Series::Trixie)
    }

    /// The length of disks that the subset makes no file system on.
    pub(crate) fn disks(self) -> ByteLen {
        if self == Self::Full { LARGE } else { SMALL }
    }

    /// The cases of one boot.
    pub(crate) fn cases(self, series: Series, lockdown: bool) -> Vec<Named> {
        let writes = if self == Self::Full { 200 } else { 40 };
        let cell = |kind, work, blind| Case { kind, work, bytes: SMALL.0, blind };
        let raw = |kind| cell(kind, Work::Raw { writes }, false);
        if lockdown || series == Series::Bullseye {
            // That kernel is too old for any disk, and for what the rig asks of a zram.
            let third = if lockdown { Kind::Zram } else { Kind::Raid1 };
            let kinds = [Kind::VirtioBlk, Kind::DmLinear, third];
            return kinds.map(|kind| Named::Cell { case: raw(kind), lockdown }).to_vec();
        }
        let mut cases: Vec<Named> =
            KINDS.map(|kind| Named::Cell { case: raw(kind), lockdown }).to_vec();
        let on: &[Kind] = match self {
            Self::Full => &[Kind::VirtioBlk, Kind::Nvme, Kind::DmLinear, Kind::Raid5],
            Self::Subset => &[Kind::VirtioBlk],
        };
        for kind in on {
            for filesystem in FILESYSTEMS {
                let work = Work::Files { filesystem, steps: 2 * writes };
                cases.push(Named::Cell { case: cell(*kind, work, false), lockdown });
            }
        }
        let work = Work::PathsComeAndGo { writes: writes / 4 };
        cases.push(Named::Cell { case: cell(Kind::NvmeHead, work, false), lockdown });
        let work = Work::MergedDiscards { files: 100 };
        cases.push(Named::Cell { case: cell(Kind::Nvme, work, false), lockdown });
        for (kind, command) in PASSTHROUGH {
            let work = Work::Passthrough { command };
            cases.push(Named::Cell { case: cell(kind, work, false), lockdown });
        }
        cases.push(Named::Blind(cell(Kind::VirtioBlk, Work::Raw { writes: 10 }, true)));
        cases.extend(["right", "issue-only", "read-first"].map(Named::Race));
        cases
    }
}
