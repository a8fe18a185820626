/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Writes to bio-based disks between their start and their completion, by the number of the bio,
 * which is its address but for a constant.
 *
 * A number belongs to one bucket of a few entries; what finds no room there is spilled to a hash
 * map. The key of an entry tells its state, too:
 *
 *   0               free; who changes it to its own FILLING owns the entry
 *   bio | FILLING   its start is being noted: the driver does not have the bio yet
 *   bio             in flight
 *   bio | DONE      its completion was handled, by a copy before this one
 *
 * A bio is started, carried out and completed by one after another, never at once, so whoever holds
 * the bio may write its entry plainly. Only free entries are contended for.
 *
 * DONE is set by the copy that has marked the write, in the entry of this very start of the bio.
 * So a copy that finds it has nothing left to do, and a write is counted once. The last copy frees
 * the entry. What a bio that never completed left at its address is replaced at its next start.
 */
#ifndef PINNACE_IN_FLIGHT_H
#define PINNACE_IN_FLIGHT_H

#include "tables.h"

enum {
	DONE = 1,
	FILLING = 2,
	STATE = 7, /* bits that no number of a bio has */
};

/*
 * A bio's address as a number, from a place that is the same for all programs. The verifier allows
 * no arithmetic on a pointer but the difference of two.
 */
static __always_inline u64 number_of(const struct bio *bio)
{
	return (u64)bio - (u64)&table;
}

/* A pointer of any kind as a number: to the verifier it is none once a byte of it was written. */
static __always_inline u64 to_number(const void *pointer)
{
	union {
		const void *volatile pointer;
		volatile u64 number;
		volatile __u8 bytes[8];
	} both = { .pointer = pointer };

	both.bytes[7] = 0xff; /* as it is: addresses of the kernel begin so */
	return both.number;
}

static __always_inline struct in_flight_bucket *bucket_of(u64 number)
{
	u32 index = number * 0x9e3779b97f4a7c15ULL >> (64 - IN_FLIGHT_BUCKETS_LOG2);

	/* Nothing if the loader made the map smaller. */
	return bpf_map_lookup_elem(&in_flight, &index);
}

/* The entry of a bio in its bucket. */
static __always_inline struct in_flight *find_in(struct in_flight_bucket *bucket, u64 number)
{
	if (!bucket)
		return NULL;
	for (u32 i = 0; i < IN_FLIGHT_WAYS; i++) {
		if ((*(volatile u64 *)&bucket->ways[i].key & ~(u64)STATE) == number)
			return &bucket->ways[i];
	}
	return NULL;
}

/* The entry of a bio, wherever it is. */
static __always_inline struct in_flight *find_in_flight(u64 number)
{
	struct in_flight *found = find_in(bucket_of(number), number);

	return found ?: bpf_map_lookup_elem(&spilled, &number);
}

/*
 * Keeps an entry in the other map, and tells who lists the buckets that something is missing. Takes
 * it in pieces, lest it be in memory where there is room for it in its bucket.
 */
static __noinline int spill(u64 key, u64 sector, u64 sectors_and_devt, u64 slot_and_op)
{
	struct in_flight with = {
		.key = key,
		.sector = sector,
		.sectors = sectors_and_devt >> 32,
		.devt = sectors_and_devt,
		.slot = slot_and_op >> 32,
		.op = slot_and_op,
	};
	u32 zero = 0;
	struct conflicts *all = bpf_map_lookup_elem(&conflicts, &zero);

	if (!all)
		return 0;
	__sync_fetch_and_add(&all->spilled, 1);
	if (!bpf_map_update_elem(&spilled, &key, &with, BPF_NOEXIST))
		return 1;
	__sync_fetch_and_add(&all->spilled, -1);
	return bpf_map_update_elem(&spilled, &key, &with, BPF_EXIST) == 0;
}

static __always_inline void unspill(u64 number)
{
	u32 zero = 0;
	struct conflicts *all = bpf_map_lookup_elem(&conflicts, &zero);

	/* If it fails, the entry is replaced later. */
	if (all && !bpf_map_delete_elem(&spilled, &number))
		__sync_fetch_and_add(&all->spilled, -1);
}

static __always_inline void fill(struct in_flight *entry, struct in_flight with)
{
	entry->sector = with.sector;
	entry->sectors = with.sectors;
	entry->devt = with.devt;
	entry->slot = with.slot;
	entry->op = with.op;
	*(volatile u64 *)&entry->key = with.key;
}

/*
 * Keeps an entry until forgotten. The compare-and-swap is a full barrier: who lists what is in
 * flight after a flip finds the entry, or else the note that follows is in the new half.
 */
static __always_inline bool keep(struct in_flight with)
{
	struct in_flight_bucket *bucket = bucket_of(with.key);
	struct in_flight *entry = find_in(bucket, with.key);

	if (entry) {
		__sync_lock_test_and_set(&entry->key, with.key | FILLING);
		fill(entry, with);
		return true;
	}
	for (u32 i = 0; bucket && i < IN_FLIGHT_WAYS; i++) {
		entry = &bucket->ways[i];
		if (*(volatile u64 *)&entry->key == 0 &&
		    __sync_val_compare_and_swap(&entry->key, 0, with.key | FILLING) == 0) {
			fill(entry, with);
			return true;
		}
	}
	return spill(with.key, with.sector, (u64)with.sectors << 32 | with.devt,
		     (u64)with.slot << 32 | with.op);
}

/* Whether a copy before this one has kept an equal entry. */
static __always_inline bool is_kept(struct in_flight with)
{
	const struct in_flight *entry = find_in_flight(with.key);

	return entry && entry->key == with.key && entry->sector == with.sector &&
	       entry->sectors == with.sectors && entry->slot == with.slot &&
	       entry->devt == with.devt && entry->op == with.op;
}

#endif
