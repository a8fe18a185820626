/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Hints to userspace: which ranges have set a bit that was clear. Userspace polls, since to wake it
 * would cost microseconds. What finds no room is counted and loses nothing but the hint.
 *
 * Not the kernel's own ring, which takes a lock and several calls for what is four stores here.
 *
 * A record is begun by counting it, so each has a place of its own whatever its writer interrupts,
 * and done by its turn, written last: the reader waits for it. Between the look at how many are
 * waiting and the counting, other writers may have counted; a processor runs three programs at
 * once at most, one in each context, so `most` leaves room for as many from each, and no record is
 * overwritten before it was taken.
 */
#ifndef PINNACE_RING_H
#define PINNACE_RING_H

#include "tables.h"

static __always_inline union ring_entry *ring_entry(u32 index)
{
	return bpf_map_lookup_elem(&ring, &index);
}

/* Tells a range. False if there is no room. */
static __always_inline bool tell(u64 sector, u32 sectors, u32 slot_and_kind, u64 at)
{
	union ring_entry *writers = ring_entry(RING_WRITERS), *entry;
	const union ring_entry *reader = ring_entry(RING_READER);
	u64 number, taken;

	if (!writers || !reader)
		return false;
	/* First, so that it is not beyond what has begun. */
	taken = *(volatile u64 *)&reader->reader.taken;
	if (*(volatile u64 *)&writers->writers.begun - taken >= writers->writers.most)
		return false;
	number = __sync_fetch_and_add(&writers->writers.begun, 1);
	entry = ring_entry(RING_RECORDS + (number & writers->writers.mask));
	if (!entry)
		return false;
	entry->record.sector = sector;
	entry->record.at = at;
	entry->record.sectors = sectors;
	entry->record.slot_and_kind = slot_and_kind;
	/* A full barrier: whoever sees it sees the rest. */
	__sync_lock_test_and_set(&entry->record.turn, number + 1);
	return true;
}

#endif
