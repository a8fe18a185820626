/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Marks what is written to protected disks when it is done, and notes what is about to be written.
 *
 * Request-based disks: block_rq_issue notes, block_rq_complete marks. Bio-based disks (device
 * mapper, md, zram): block_bio_queue notes, and keeps the range of the bio in the in-flight table,
 * where block_bio_complete looks it up, because drivers trim and advance the bio itself in between.
 *
 * Multipath disks (NVMe): the requests of their paths, which block_bio_remap learns.
 *
 * Only direct loads from the tracepoints' own arguments: no helper that reads arbitrary memory is
 * used, so kernel lockdown does not matter.
 *
 * The kernel skips a program that is re-entered on its CPU, so those at completion are attached
 * three times, and those at the start of a bio twice. The copies run in the order in which they were
 * attached. Marking a request is idempotent, and all of them do it; a bio has an entry in the
 * in-flight table, which tells a copy that an earlier one has done its work. Only the first copy
 * notes conflicts and counts what is issued: the kernel counts when it skips it, and userspace takes
 * no point then.
 */
#include "conflict.h"
#include "in_flight.h"
#include "paths.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum copy { FIRST, SECOND, LAST };

_Static_assert(LAST + 1 == COPIES, "a program for each copy");

/* What is not known to leave the medium alone is a write. */
static __always_inline bool writes(u32 op)
{
	return op != OP_READ && op != OP_FLUSH && op != OP_DRV_IN;
}

static __always_inline u32 kind_of(u32 op)
{
	if (op == OP_DISCARD || op == OP_SECURE_ERASE)
		return KIND_DISCARD;
	return op == OP_WRITE_ZEROES ? KIND_ZEROES : KIND_WRITE;
}

static __always_inline bool known(u32 op)
{
	return op == OP_WRITE || op == OP_DISCARD || op == OP_SECURE_ERASE ||
	       op == OP_ZONE_APPEND || op == OP_WRITE_ZEROES;
}

/* Counts a completion as the kernel's disk statistics class it. */
static __always_inline void count(struct counters *mine, u32 op, u32 sectors, u32 copy)
{
	if (!mine || copy >= COPIES)
		return;
	mine->events[copy]++;
	if (op == OP_WRITE || op == OP_ZONE_APPEND)
		mine->written[copy] += sectors;
	else if (op == OP_DISCARD)
		mine->discarded[copy] += sectors;
	else
		mine->other[copy] += sectors;
}

/* Counts what a driver was given. */
static __always_inline void count_issued(u32 slot, u32 sectors)
{
	struct counters *mine = counters_of(slot);

	if (mine)
		mine->issued += sectors;
}

/*
 * A discard may hold several ranges with gaps between (one bio each), which the request's own
 * sector and length don't tell.
 */
static __always_inline void mark_discard(u32 slot, const struct request *rq, u32 copy)
{
	const struct bio *bio = rq->bio;

	for (u32 i = 0; i < DISCARD_RANGES; i++) {
		if (!bio)
			return;
		mark_any(slot, bio->bi_iter.bi_sector, bio->bi_iter.bi_size >> SECTOR_SHIFT,
			 KIND_DISCARD, copy);
		bio = bio->bi_next;
	}
	if (bio)
		taint(slot, TAINT_TOO_MANY_RANGES);
}

/* The slot of a request that writes to a disk that is tracked by its requests, or NO_SLOT. */
static __always_inline u32 find_written(const struct request *rq, u32 op)
{
	u32 slot;

	if (!writes(op))
		return NO_SLOT;
	slot = find_slot(rq->q->disk);
	if (slot == NO_SLOT || table.disks[slot].class == CLASS_BIO_BASED)
		return NO_SLOT;
	return slot;
}

/* What is issued and is no write proper, by a request. */
static __noinline int rq_issue_other(const struct request *rq, u32 op, u32 slot)
{
	u32 sectors = rq->__data_len >> SECTOR_SHIFT;

	if (!known(op))
		note_everything();
	else if (op == OP_DISCARD && rq->bio)
		note_discard(slot, rq);
	else if (sectors)
		note(slot, rq->__sector, sectors);
	if (op != OP_DRV_OUT)
		count_issued(slot, sectors);
	return 0;
}

/* A request is about to go to the driver; again after each requeue. All merging is done. */
static __always_inline int rq_issue(const struct request *rq)
{
	u32 op = rq->cmd_flags & OP_MASK, slot = find_written(rq, op);
	u32 sectors = rq->__data_len >> SECTOR_SHIFT;

	if (slot == NO_SLOT)
		return 0;
	if (op != OP_WRITE)
		return rq_issue_other(rq, op, slot);
	if (sectors)
		note(slot, rq->__sector, sectors);
	count_issued(slot, sectors);
	return 0;
}

/* A request comes back from the driver undone, or before it went there. */
static __always_inline int rq_requeue(const struct request *rq)
{
	u32 op = rq->cmd_flags & OP_MASK, slot = find_written(rq, op);
	struct counters *mine;

	if (slot == NO_SLOT || op == OP_DRV_OUT || rq->state == MQ_RQ_IDLE)
		return 0;
	mine = counters_of(slot);
	if (mine)
		mine->requeued += rq->__data_len >> SECTOR_SHIFT;
	return 0;
}

/* What is done and is no write proper, by a request. */
static __noinline int rq_complete_other(const struct request *rq, u32 nr_bytes, u32 op, u32 slot,
					u32 copy)
{
	u32 sectors = nr_bytes >> SECTOR_SHIFT;

	/* The compiler knows which copies there are, and the verifier does not. */
	barrier_var(copy);
	if (op == OP_DRV_OUT) {
		/* A command of the driver's own; its sector means nothing. */
		taint(slot, TAINT_PASSTHROUGH);
		return 0;
	}
	if (!known(op))
		taint(slot, TAINT_UNKNOWN_OPERATION);
	if (op == OP_DISCARD && rq->bio)
		mark_discard(slot, rq, copy);
	else if (sectors)
		mark_any(slot, rq->__sector, sectors, kind_of(op), copy);
	count(counters_of(slot), op, sectors, copy);
	return 0;
}

/*
 * A command of the driver's own that hands no data to the disk. Where it hands none to the host
 * either, some drivers have commands like it that write: NVMe's write zeroes.
 */
static __always_inline int driver_in_complete(const struct request *rq, u32 nr_bytes)
{
	u32 slot = nr_bytes ? NO_SLOT : find_slot(rq->q->disk);

	if (slot != NO_SLOT && table.disks[slot].habits & BARE_COMMANDS_WRITE)
		taint(slot, TAINT_PASSTHROUGH);
	return 0;
}

/*
 * A request, or a part of one, is done: nr_bytes from its current sector on. A partial completion
 * fires once for each part. Failed writes are marked too: the medium may have changed.
 */
static __always_inline int rq_complete(const struct request *rq, u32 nr_bytes, u32 copy)
{
	u32 op = rq->cmd_flags & OP_MASK, slot = find_written(rq, op);
	u32 sectors = nr_bytes >> SECTOR_SHIFT;
	struct counters *mine;

	if (slot == NO_SLOT)
		return op == OP_DRV_IN ? driver_in_complete(rq, nr_bytes) : 0;
	if (op != OP_WRITE)
		return rq_complete_other(rq, nr_bytes, op, slot, copy);
	mine = counters_of(slot);
	if (sectors)
		mark(slot, rq->__sector, sectors, KIND_WRITE, mine, copy);
	count(mine, OP_WRITE, sectors, copy);
	return 0;
}

/* What is issued and is no write proper, by a bio. */
static __noinline int note_other(u32 op, u32 slot, u64 sector, u32 sectors)
{
	if (!known(op))
		note_everything();
	else if (sectors)
		note(slot, sector, sectors);
	return 0;
}

/*
 * A bio enters a disk: past partitions and throttling, so its sector is absolute. Bios without
 * data (flushes) are noted as well, lest their completion look unmatched.
 */
static __always_inline int bio_queue(const struct bio *bio, u32 copy)
{
	u32 op = bio->bi_opf & OP_MASK, slot;
	struct in_flight entry;

	if (!writes(op))
		return 0;
	slot = find_slot(bio->bi_bdev->bd_disk);
	if (slot == NO_SLOT || table.disks[slot].class != CLASS_BIO_BASED)
		return 0;
	entry.key = number_of(bio);
	entry.sector = bio->bi_iter.bi_sector;
	entry.sectors = bio->bi_iter.bi_size >> SECTOR_SHIFT;
	entry.devt = table.disks[slot].devt;
	entry.slot = slot;
	entry.op = op;
	if (copy != FIRST && is_kept(entry))
		return 0;
	/* Also replaces what a bio that never completed left at this address. */
	if (!keep(entry))
		taint(slot, TAINT_IN_FLIGHT_TABLE_FULL);
	if (copy == FIRST) {
		if (op != OP_WRITE)
			note_other(op, slot, entry.sector, entry.sectors);
		else if (entry.sectors)
			note(slot, entry.sector, entry.sectors);
		count_issued(slot, entry.sectors);
	}
	return 0;
}

/* Whether a bio is a piece split off one that is in the table, which completes after it. */
static __always_inline bool is_piece(const struct bio *bio, u32 slot)
{
	u64 parent = to_number(bio->bi_private) - to_number(&table);
	const struct in_flight *entry = find_in_flight(parent);

	return entry && entry->slot == slot;
}

/* A write was done of which the start was not seen; its own range is all there is. */
static __always_inline int bio_unmatched(const struct bio *bio, u32 copy)
{
	u32 slot = find_slot(bio->bi_bdev->bd_disk);

	if (slot == NO_SLOT || table.disks[slot].class != CLASS_BIO_BASED)
		return 0;
	mark_any(slot, bio->bi_iter.bi_sector, bio->bi_iter.bi_size >> SECTOR_SHIFT,
		 kind_of(bio->bi_opf & OP_MASK), copy);
	if (!is_piece(bio, slot))
		taint(slot, TAINT_UNMATCHED_COMPLETION);
	return 0;
}

/* Marks what a bio did that was no write proper. */
static __noinline int mark_other(u32 op, u32 slot, u64 sector, u32 sectors, u32 copy)
{
	barrier_var(copy);
	if (!known(op))
		taint(slot, TAINT_UNKNOWN_OPERATION);
	if (sectors)
		mark_any(slot, sector, sectors, kind_of(op), copy);
	count(counters_of(slot), op, sectors, copy);
	return 0;
}

/*
 * Marks what a bio asked for that was turned away, because it must not wait. It comes again as
 * another. Where the driver (md) turns it away before it accounts for it, it is counted as taken
 * back.
 */
static __noinline int mark_turned_away(u32 op, u32 slot, u64 sector, u32 sectors, u32 copy)
{
	struct counters *mine = counters_of(slot);

	barrier_var(copy);
	if (sectors)
		mark_any(slot, sector, sectors, kind_of(op), copy);
	if (mine)
		mine->requeued += sectors;
	return 0;
}

/* Marks the range that a bio had at its start. */
static __always_inline void mark_kept(const struct in_flight *entry, const struct bio *bio,
				      u32 copy)
{
	u32 slot = entry->slot & (DISKS - 1), op = entry->op, sectors = entry->sectors;
	struct counters *mine;

	/* The disk may have been removed, and its slot taken by another. */
	if (table.disks[slot].devt != entry->devt)
		return;
	if (bio->bi_status == STATUS_AGAIN && table.disks[slot].habits & TURNS_AWAY_UNCOUNTED) {
		mark_turned_away(op, slot, entry->sector, sectors, copy);
		return;
	}
	if (op != OP_WRITE) {
		mark_other(op, slot, entry->sector, sectors, copy);
		return;
	}
	mine = counters_of(slot);
	if (sectors)
		mark(slot, entry->sector, sectors, KIND_WRITE, mine, copy);
	count(mine, OP_WRITE, sectors, copy);
}

/* A bio is done that has no entry in its bucket. */
static __noinline int bio_complete_elsewhere(const struct bio *bio, u32 copy)
{
	u64 number = number_of(bio);
	struct in_flight *entry = bpf_map_lookup_elem(&spilled, &number);

	barrier_var(copy);
	if (!entry)
		return bio_unmatched(bio, copy);
	if (!(entry->key & DONE)) {
		mark_kept(entry, bio, copy);
		*(volatile u64 *)&entry->key = number | DONE;
	}
	if (copy == LAST)
		unspill(number);
	return 0;
}

/*
 * A bio is done. It is looked up by its address, not by its disk: a driver may have pointed it at
 * another one meanwhile.
 */
static __always_inline int bio_complete(const struct bio *bio, u32 copy)
{
	u64 number = number_of(bio);
	struct in_flight *entry;

	if (!writes(bio->bi_opf & OP_MASK))
		return 0;
	entry = find_in(bucket_of(number), number);
	if (!entry)
		return bio_complete_elsewhere(bio, copy);
	if (!(entry->key & DONE))
		mark_kept(entry, bio, copy);
	*(volatile u64 *)&entry->key = copy == LAST ? 0 : number | DONE;
	return 0;
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(rq_issue_1, struct request *rq)
{
	return rq_issue(rq);
}

SEC("tp_btf/block_rq_requeue")
int BPF_PROG(rq_requeue_1, struct request *rq)
{
	return rq_requeue(rq);
}

#define START(suffix, copy)                                                                   \
	SEC("tp_btf/block_bio_queue")                                                         \
	int BPF_PROG(bio_queue_##suffix, struct bio *bio)                                     \
	{                                                                                     \
		return bio_queue(bio, copy);                                                  \
	}

START(1, FIRST)
START(2, SECOND)

#define REMAP(suffix)                                                                         \
	SEC("tp_btf/block_bio_remap")                                                         \
	int BPF_PROG(bio_remap_##suffix, struct bio *bio, u32 from)                           \
	{                                                                                     \
		return learn_path(bio, from);                                                 \
	}

REMAP(1)
REMAP(2)

#define COMPLETION(suffix, copy)                                                              \
	SEC("tp_btf/block_rq_complete")                                                       \
	int BPF_PROG(rq_complete_##suffix, struct request *rq, int error, u32 nr_bytes)       \
	{                                                                                     \
		return rq_complete(rq, nr_bytes, copy);                                       \
	}                                                                                     \
	SEC("tp_btf/block_bio_complete")                                                      \
	int BPF_PROG(bio_complete_##suffix, struct request_queue *q, struct bio *bio)         \
	{                                                                                     \
		return bio_complete(bio, copy);                                               \
	}

COMPLETION(1, FIRST)
COMPLETION(2, SECOND)
COMPLETION(3, LAST)
