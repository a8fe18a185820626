/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From a range of sectors to bits. Called at completion, before the application is told.
 *
 * A bit is always set by a fetching atomic OR, never tested first: the full barrier orders it
 * after the data of the write, which userspace relies on when it clears a bit and then reads.
 */
#ifndef PINNACE_MARK_H
#define PINNACE_MARK_H

#include "tables.h"

/* What came of marking; a set. */
enum {
	FRESH = 1 << 0,         /* a bit was clear before */
	LOOKUP_FAILED = 1 << 1, /* a bitmap, or a word of it, is not there */
	TOO_LARGE = 1 << 2,     /* the range was not marked whole */
};

/* Sets the bits [first, end), which are not empty and touch at most `words` words. */
static __always_inline u32 mark_bits(void *bitmap, u64 first, u64 end, u32 words)
{
	u32 index = first / 64, last = (end - 1) / 64;
	u64 bits = ~0ULL << (first % 64);
	u32 outcome = 0;

	for (u32 i = 0; i < words; i++) {
		u64 *word;

		if (index == last)
			bits &= ~0ULL >> (63 - (end - 1) % 64);
		word = bpf_map_lookup_elem(bitmap, &index);
		if (!word)
			return outcome | LOOKUP_FAILED;
		if (~__sync_fetch_and_or(word, bits) & bits)
			outcome |= FRESH;
		if (index == last)
			return outcome;
		index++;
		bits = ~0ULL;
	}
	return outcome | TOO_LARGE;
}

/*
 * The three below are global functions: the verifier looks at each once, whatever calls it, and
 * not at every call on every path.
 */
__noinline u32 mark_chunks(u32 slot, u64 first, u64 end)
{
	void *bitmap = bpf_map_lookup_elem(&dirty, &slot);

	return bitmap ? mark_bits(bitmap, first, end, INLINE_WORDS) : LOOKUP_FAILED;
}

__noinline u32 mark_coarse(u32 slot, u64 first, u64 end)
{
	void *bitmap = bpf_map_lookup_elem(&coarse, &slot);

	return bitmap ? mark_bits(bitmap, first, end, COARSE_WORDS_OF_A_RANGE) : LOOKUP_FAILED;
}

/*
 * A long range: exact at both ends, where whole coarse bits don't fit, coarse between. Head and
 * tail are shorter than a coarse bit, so they touch at most INLINE_WORDS words. A range of more
 * than INLINE_WORDS words holds or touches a boundary of coarse bits, so head_end <= tail.
 */
static __always_inline u32 mark_long(u32 slot, u64 first, u64 end)
{
	u64 head_end = (first + COARSE_CHUNKS - 1) / COARSE_CHUNKS * COARSE_CHUNKS;
	u64 tail = end / COARSE_CHUNKS * COARSE_CHUNKS;
	u32 outcome = 0;

	if (first < head_end)
		outcome |= mark_chunks(slot, first, head_end);
	if (head_end < tail)
		outcome |= mark_coarse(slot, head_end / COARSE_CHUNKS, tail / COARSE_CHUNKS);
	if (tail < end)
		outcome |= mark_chunks(slot, tail, end);
	return outcome;
}

/*
 * Tells userspace of a range, without a wake-up, which would cost microseconds: it polls. The
 * time is taken after the bit was set. A full ring loses nothing but the hint.
 */
static __always_inline void send(u32 slot, u64 sector, u32 sectors, u32 kind, u32 copy)
{
	struct mark_record *record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);

	if (!record) {
		struct counters *mine = counters_of(slot, copy);

		if (mine)
			mine->ring_lost++;
		return;
	}
	record->sector = sector;
	record->at = bpf_ktime_get_ns();
	record->sectors = sectors;
	record->slot_and_kind = slot << 8 | kind;
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* Marks a range of a disk. Returns nothing of use; a global function must return a number. */
__noinline int mark(u32 slot, u64 sector, u32 sectors, u32 kind, u32 copy)
{
	struct disk *disk = &table.disks[slot & (DISKS - 1)];
	u64 end = sector + sectors, limit = disk->sectors;
	u32 shift = disk->chunk_shift & 31, outcome;
	u64 first, last;

	if (end > limit || end < sector) {
		taint(slot, TAINT_OUT_OF_RANGE);
		end = limit;
	}
	if (sector >= end)
		return 0;
	first = sector >> shift;
	last = (end - 1) >> shift;
	if (last / 64 - first / 64 < INLINE_WORDS)
		outcome = mark_chunks(slot, first, last + 1);
	else
		outcome = mark_long(slot, first, last + 1);
	if (outcome & FRESH)
		send(slot, sector, end - sector, kind, copy);
	if (outcome & LOOKUP_FAILED)
		taint(slot, TAINT_LOOKUP_FAILED);
	if (outcome & TOO_LARGE)
		taint(slot, TAINT_TOO_MANY_RANGES);
	return 0;
}

#endif
