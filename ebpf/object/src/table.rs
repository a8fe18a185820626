//! The programs' table of disks, mapped: who is tracked, where, and what they could not follow.
//!
//! Shape (`bpf/tables.h`): buckets of [`WAYS`] words `slot << 32 | devt`, 0 when empty; then, for
//! each slot, eight words: sectors; devt and class; log2 of a chunk's sectors and taints; its
//! driver's habits.
//!
//! Invariant: a slot's record is complete before an entry names the slot. Adding and removing an
//! entry is one store, so a program sees a disk or does not. The programs add entries too, for paths
//! of a multipath disk, so a free entry is taken by an exchange.

use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use blocks::{Slot, TaintSet};

use crate::{
    device::{self, DeviceNumber, DiskClass},
    limits::{BUCKETS_LOG2, DISKS, WAYS},
    mapped::Mapped,
    spec::DiskSpec,
};

const BUCKET_WORDS: usize = (1 << BUCKETS_LOG2) * WAYS as usize;
const RECORD_WORDS: usize = 8;
/// How long the table is.
pub const WORDS: usize = BUCKET_WORDS + DISKS as usize * RECORD_WORDS;

/// Offsets within a record.
const SECTORS: usize = 0;
const DEVT_AND_CLASS: usize = 1;
const SHIFT_AND_TAINTS: usize = 2;
const HABITS: usize = 3;

/// All entries that this device number could have are taken.
#[derive(Debug)]
pub struct Crowded;

/// The table, mapped.
#[derive(Debug)]
pub struct DiskTable(Mapped);

impl DiskTable {
    /// Maps it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(map: &impl AsFd) -> io::Result<Self> {
        Mapped::new(map, WORDS as u64).map(Self)
    }

    /// Writes the record of a slot that no entry names, without taints.
    pub fn describe(&self, slot: Slot, spec: &DiskSpec) {
        let shift = spec.geometry.chunk().sectors().trailing_zeros();
        let class = spec.class.number();
        self.record(slot, SECTORS).store(spec.geometry.sectors(), SeqCst);
        let devt = u64::from(spec.number.devt());
        self.record(slot, DEVT_AND_CLASS).store(devt | u64::from(class) << 32, SeqCst);
        self.record(slot, SHIFT_AND_TAINTS).store(u64::from(shift), SeqCst);
        self.record(slot, HABITS).store(u64::from(device::habits(spec.number)), SeqCst);
    }

    /// Makes the programs find `number` in `slot`. If they found it in another, where it was the number
    /// of a path that is gone, they never find it in none meanwhile.
    pub fn publish(&self, number: DeviceNumber, slot: Slot) -> Result<(), Crowded> {
        let bucket = self.bucket(number);
        let put = |place: &AtomicU64, old| {
            place.compare_exchange(old, entry(number, slot), SeqCst, SeqCst).is_ok()
        };
        let replaced = bucket.iter().any(|place| {
            let old = place.load(SeqCst);
            low_half(old) == number.devt() && put(place, old)
        });
        if replaced || bucket.iter().any(|place| put(place, 0)) { Ok(()) } else { Err(Crowded) }
    }

    /// Makes the programs find `paths` in the slot of their head, beside it, and no path that is none
    /// any more.
    ///
    /// `paths` is asked after those in the table are known: the programs add one before its first
    /// request, so one that is there and is not told of has gone.
    pub fn follow_paths(
        &self,
        head: DeviceNumber,
        slot: Slot,
        paths: impl FnOnce() -> io::Result<Vec<DeviceNumber>>,
    ) -> io::Result<Result<(), Crowded>> {
        let known: Vec<DeviceNumber> = self.numbers_of(slot).collect();
        let paths = paths()?;
        let gone = known.iter().filter(|&number| *number != head && !paths.contains(number));
        gone.for_each(|number| self.withdraw(*number, slot));
        Ok(paths.into_iter().try_for_each(|number| self.publish(number, slot)))
    }

    /// Makes the programs no longer find it. Programs that are running may still.
    pub fn withdraw(&self, number: DeviceNumber, slot: Slot) {
        for found in self.bucket(number) {
            if found.load(SeqCst) == entry(number, slot) {
                found.store(0, SeqCst);
            }
        }
    }

    /// Whether the programs find `number` in `slot`.
    pub fn is_published(&self, number: DeviceNumber, slot: Slot) -> bool {
        self.bucket(number).iter().any(|found| found.load(SeqCst) == entry(number, slot))
    }

    /// Withdraws every entry of `slot`, whatever its device number.
    pub fn withdraw_slot(&self, slot: Slot) {
        self.numbers_of(slot).for_each(|number| self.withdraw(number, slot));
    }

    /// The numbers that the programs find in `slot`.
    fn numbers_of(&self, slot: Slot) -> impl Iterator<Item = DeviceNumber> {
        let entries = self.0.words()[..BUCKET_WORDS].iter().map(|found| found.load(SeqCst));
        let of_slot = entries.filter(move |word| *word != 0 && word >> 32 == u64::from(slot.0));
        of_slot.map(|word| DeviceNumber::from_devt(low_half(word)))
    }

    /// What the programs could not follow.
    pub fn taints(&self, slot: Slot) -> TaintSet {
        let word = self.record(slot, SHIFT_AND_TAINTS).load(SeqCst);
        TaintSet(u32::try_from(word >> 32).expect("32 bits are left"))
    }

    /// Adds what was found elsewhere.
    pub fn add_taints(&self, slot: Slot, taints: TaintSet) {
        self.record(slot, SHIFT_AND_TAINTS).fetch_or(u64::from(taints.0) << 32, SeqCst);
    }

    /// Clears these, and no others.
    pub fn clear_taints(&self, slot: Slot, taints: TaintSet) {
        self.record(slot, SHIFT_AND_TAINTS).fetch_and(!(u64::from(taints.0) << 32), SeqCst);
    }

    fn bucket(&self, number: DeviceNumber) -> &[AtomicU64] {
        let hash = number.devt().wrapping_mul(0x9e37_79b1) >> (32 - BUCKETS_LOG2);
        let first = hash as usize * WAYS as usize;
        &self.0.words()[first..first + WAYS as usize]
    }

    fn record(&self, slot: Slot, word: usize) -> &AtomicU64 {
        &self.0.words()[BUCKET_WORDS + slot.0 as usize * RECORD_WORDS + word]
    }
}

fn entry(number: DeviceNumber, slot: Slot) -> u64 {
    u64::from(slot.0) << 32 | u64::from(number.devt())
}

fn low_half(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).expect("32 bits")
}

impl DiskClass {
    /// Its number in the programs' table and in a disk's record.
    pub const fn number(self) -> u32 {
        match self {
            Self::RequestBased => 1,
            Self::BioBased => 2,
            Self::Multipath => 3,
        }
    }

    /// The class of a number, if it is one.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::RequestBased),
            2 => Some(Self::BioBased),
            3 => Some(Self::Multipath),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
