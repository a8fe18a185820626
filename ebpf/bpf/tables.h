/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps, and the shapes of what is in them. Mirrored by src/table.rs, src/counters.rs,
 * src/conflicts.rs and src/ring.rs; any change of meaning needs a new LAYOUT_VERSION in src/limits.rs, where the
 * numbers in capitals come from too.
 */
#ifndef PINNACE_TABLES_H
#define PINNACE_TABLES_H

#include "kernel.h"

#define NO_SLOT DISKS
#define BUCKETS (1 << BUCKETS_LOG2)
#define CONFLICT_LINES_LOG2 (CONFLICT_WORDS_LOG2 - 3)
#define CONFLICT_WORDS (1 << CONFLICT_WORDS_LOG2)
#define SHEET_WORDS (1 << SHEET_WORDS_LOG2)

_Static_assert((DISKS & (DISKS - 1)) == 0, "slots are masked");

enum disk_class {
	CLASS_NONE = 0,
	CLASS_REQUEST_BASED = 1,
	CLASS_BIO_BASED = 2,
	CLASS_MULTIPATH = 3, /* requests of its paths, which have numbers of their own */
};

/* Written by userspace before the disk is published in a bucket; only taints change after. */
struct disk {
	u64 sectors;
	u32 devt;
	u32 class;
	u32 chunk_shift; /* log2 of a chunk's sectors */
	u32 taints;
	u32 habits; /* what its driver does otherwise than others; a set */
	u32 reserved[9];
};

_Static_assert(sizeof(struct disk) == 64, "one cache line a disk");

/*
 * Which slot has a device number. A device number hashes to one bucket of half a cache line, and
 * each entry is one word, slot << 32 | devt, so that a disk is added and removed by one store. An
 * empty entry is 0: device number 0 belongs to no disk. Only paths of a multipath disk are added
 * by the programs; see paths.h.
 */
struct disk_table {
	u64 buckets[BUCKETS][WAYS];
	struct disk disks[DISKS];
};

/* A section of its own makes a map of its own, which userspace maps and pins. */
struct disk_table table SEC(".data.table");

/*
 * The dirty bitmaps, in sheets: one word is 64 chunks. All sheets have one size, so that the
 * kernel looks a word up in line; in a map of any size it would be a call, whose return is what
 * costs.
 */
struct sheet_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, SHEET_WORDS);
	__type(key, u32);
	__type(value, u64);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DISKS << SHEETS_LOG2);
	__type(key, u32);
	__array(values, struct sheet_map);
} dirty SEC(".maps");

/* One word of these is 64 times COARSE_CHUNKS chunks. */
struct coarse_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, DISKS);
	__type(key, u32);
	__array(values, struct coarse_map);
} coarse SEC(".maps");

/*
 * A write that set at least one bit which was clear; see ring.h. The first entries of the ring are
 * two cache lines of their own: one for those who write records, one for who reads them.
 */
union ring_entry {
	struct {
		u64 sector;
		u64 at;
		u32 sectors;
		u32 slot_and_kind; /* slot << 8 | kind */
		u64 turn;          /* the number of the record, from 1 on; written last */
	} record;
	struct {
		u64 begun; /* records, ever */
		u64 mask;  /* of a record's number: where it is */
		u64 most;  /* records that may wait to be read */
	} writers;
	struct {
		u64 taken; /* records, ever */
	} reader;
};

_Static_assert(sizeof(union ring_entry) == 32, "two entries a cache line");

enum { RING_WRITERS = 0, RING_READER = 2, RING_RECORDS = 4 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RING_RECORDS); /* and records, set by the loader */
	__type(key, u32);
	__type(value, union ring_entry);
} ring SEC(".maps");

/*
 * What the programs met on one disk, in sectors where not said otherwise. Each copy has fields of
 * its own, so that one may interrupt another on its CPU; what every write touches comes first.
 */
struct counters {
	u64 written[COPIES];
	u64 events[COPIES]; /* completions */
	u64 issued;         /* given to the driver */
	u64 requeued;       /* taken back from it */
	u64 discarded[COPIES];
	u64 other[COPIES];
	u64 ring_lost[COPIES]; /* records */
	u64 tick[COPIES];      /* when `now` was taken, in ticks */
	u64 now[COPIES];       /* nanoseconds; for records of the ring */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DISKS);
	__type(key, u32);
	__type(value, struct counters);
} counters SEC(".maps");

/*
 * What was written since which flip, by all disks, hashed; see conflict.h. Userspace flips `half`,
 * and clears the half that is not current.
 */
struct conflicts {
	u64 half; /* the current one: 0 or 1 */
	u64 overflow[2];
	u64 spilled; /* writes in flight that are in the map `spilled` */
	u64 reserved[4];
	u64 words[2][CONFLICT_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct conflicts);
} conflicts SEC(".maps");

/* A write to a bio-based disk between its start and its completion; see in_flight.h. */
struct in_flight {
	u64 key; /* the number of the bio, and a state */
	u64 sector;
	u32 sectors;
	u32 devt;
	u32 slot;
	u32 op;
};

struct in_flight_bucket {
	struct in_flight ways[IN_FLIGHT_WAYS];
};

_Static_assert(sizeof(struct in_flight_bucket) % 64 == 0, "buckets share no cache line");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1 << IN_FLIGHT_BUCKETS_LOG2); /* or fewer, set by the loader */
	__type(key, u32);
	__type(value, struct in_flight_bucket);
} in_flight SEC(".maps");

/* What finds no room there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16); /* set by the loader */
	__type(key, u64);             /* the number of the bio */
	__type(value, struct in_flight);
} spilled SEC(".maps");

/* The number of a disk, or 0 for none. */
static __always_inline u32 devt_of(const struct gendisk *disk)
{
	return disk ? (u32)disk->major << MINOR_BITS | (u32)disk->first_minor : 0;
}

/* Fibonacci hashing: neighbouring numbers, the usual case, spread evenly. */
static __always_inline u64 *ways_of(u32 devt)
{
	return table.buckets[(devt * 0x9e3779b1u) >> (32 - BUCKETS_LOG2)];
}

/* The slot of a device number, or NO_SLOT. */
static __always_inline u32 find_number(u32 devt)
{
	const u64 *ways = ways_of(devt);

	if (!devt)
		return NO_SLOT;
	for (u32 i = 0; i < WAYS; i++) {
		u64 entry = *(volatile const u64 *)&ways[i];

		if ((u32)entry == devt)
			return (entry >> 32) & (DISKS - 1);
	}
	return NO_SLOT;
}

/*
 * The slot of a disk, or NO_SLOT. The disk of an admin queue is NULL; loads through it would read
 * zeroes, and 0 is no disk's number, but that is said here rather than relied on.
 */
static __always_inline u32 find_slot(const struct gendisk *disk)
{
	return find_number(devt_of(disk));
}

static __always_inline void taint(u32 slot, u32 reason)
{
	struct disk *disk = &table.disks[slot & (DISKS - 1)];

	/* Usually set already if ever: a load is cheaper than a locked instruction. */
	if (!(disk->taints & reason))
		__sync_fetch_and_or(&disk->taints, reason);
}

/*
 * A disk's counters on this CPU. A copy is never re-entered on its CPU, so that plain additions to
 * its own fields are enough.
 */
static __always_inline struct counters *counters_of(u32 slot)
{
	return bpf_map_lookup_elem(&counters, &slot);
}

#endif
