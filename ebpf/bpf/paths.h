/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The paths of a multipath disk. NVMe's multipath device takes bios and hands each to a path: a
 * hidden disk, whose requests are what is written, at the same sectors. A path has a number that
 * userspace is told by the statistics only, and may come at any time; so the programs put it into
 * the table themselves, when the first bio is on its way to it, which is before its request is.
 */
#ifndef PINNACE_PATHS_H
#define PINNACE_PATHS_H

#include "tables.h"

/*
 * Makes requests to `devt` find `slot`. An entry that leads elsewhere is of a path that is gone, and
 * whose number was given to this one.
 */
static __noinline int add_path(u32 devt, u32 slot)
{
	u64 *ways = ways_of(devt), wanted = (u64)slot << 32 | devt;

	for (u32 i = 0; i < WAYS; i++) {
		u64 entry = *(volatile u64 *)&ways[i];

		if ((u32)entry == devt &&
		    __sync_val_compare_and_swap(&ways[i], entry, wanted) == entry)
			return 0;
	}
	for (u32 i = 0; i < WAYS; i++)
		if (!__sync_val_compare_and_swap(&ways[i], 0, wanted))
			return 0;
	taint(slot, TAINT_UNKNOWN_PATH);
	return 0;
}

/* A bio that entered the disk `from` goes on to another: a path, if `from` has any. */
static __always_inline int learn_path(const struct bio *bio, u32 from)
{
	u32 slot = find_number(from), path;

	if (slot == NO_SLOT || table.disks[slot].class != CLASS_MULTIPATH)
		return 0;
	path = devt_of(bio->bi_bdev->bd_disk);
	if (path && find_number(path) != slot)
		add_path(path, slot);
	return 0;
}

#endif
