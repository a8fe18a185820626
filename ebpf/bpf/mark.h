/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From a range of sectors to bits. Called at completion, before the application is told.
 *
 * A bit is always set by a fetching atomic OR, never tested first: the full barrier orders it
 * after the data of the write, which userspace relies on when it clears a bit and then reads.
 */
#ifndef PINNACE_MARK_H
#define PINNACE_MARK_H

#include "ring.h"
#ifdef MUTANTS
#include "mutant.h"
#endif

/* What came of marking; a set. */
enum {
	FRESH = 1 << 0,         /* a bit was clear before */
	LOOKUP_FAILED = 1 << 1, /* a bitmap, or a word of it, is not there */
	TOO_LARGE = 1 << 2,     /* the range was not marked whole */
};

/* The word of a disk's dirty bitmap; the disk must have it, or it would be another disk's. */
static __always_inline u64 *dirty_word(u32 slot, u64 index)
{
	u32 at = slot << SHEETS_LOG2 | index >> SHEET_WORDS_LOG2;
	u32 within = index % SHEET_WORDS;
	void *sheet = bpf_map_lookup_elem(&dirty, &at);

	return sheet ? bpf_map_lookup_elem(sheet, &within) : NULL;
}

static __always_inline u64 *coarse_word(u32 slot, u64 index)
{
	u32 within = index;
	void *bitmap = bpf_map_lookup_elem(&coarse, &slot);

	return bitmap ? bpf_map_lookup_elem(bitmap, &within) : NULL;
}

/* Sets bits of one word. */
static __always_inline u32 mark_word(u64 *word, u64 bits)
{
	if (!word)
		return LOOKUP_FAILED;
	return ~__sync_fetch_and_or(word, bits) & bits ? FRESH : 0;
}

/* The bits of a word from that of `first` on, and up to and with that of `last`. */
static __always_inline u64 from(u64 first)
{
	return ~0ULL << (first % 64);
}

static __always_inline u64 up_to(u64 last)
{
	return ~0ULL >> (63 - last % 64);
}

/* Sets the bits [first, last] of a bitmap, which touch at most `words` words. */
static __always_inline u32 mark_words(u64 *(*word_of)(u32 slot, u64 index), u32 slot, u64 first,
				      u64 last, u32 words)
{
	u64 index = first / 64, bits = from(first);
	u32 outcome = 0;

	for (u32 i = 0; i < words; i++) {
		u64 *word = word_of(slot, index);

		if (index == last / 64)
			return outcome | mark_word(word, bits & up_to(last));
		outcome |= mark_word(word, bits);
		bits = ~0ULL;
		index++;
	}
	return outcome | TOO_LARGE;
}

/*
 * Global functions: the verifier looks at each once, whatever calls it, and not at every call on
 * every path.
 */
__noinline u32 mark_chunks(u32 slot, u64 first, u64 last)
{
	return mark_words(dirty_word, slot, first, last, INLINE_WORDS);
}

__noinline u32 mark_coarse(u32 slot, u64 first, u64 last)
{
	return mark_words(coarse_word, slot, first, last, COARSE_WORDS_OF_A_RANGE);
}

/*
 * A long range: exact at both ends, where whole coarse bits don't fit, coarse between. Head and
 * tail are shorter than a coarse bit, so they touch at most INLINE_WORDS words. A range of more
 * than INLINE_WORDS words holds or touches a boundary of coarse bits, so head_end <= tail.
 */
__noinline u32 mark_long(u32 slot, u64 first, u64 last)
{
	u64 head_end = (first + COARSE_CHUNKS - 1) / COARSE_CHUNKS * COARSE_CHUNKS;
	u64 tail = (last + 1) / COARSE_CHUNKS * COARSE_CHUNKS;
	u32 outcome = 0;

	if (first < head_end)
		outcome |= mark_chunks(slot, first, head_end - 1);
	if (head_end < tail)
		outcome |= mark_coarse(slot, head_end / COARSE_CHUNKS, tail / COARSE_CHUNKS - 1);
	if (tail <= last)
		outcome |= mark_chunks(slot, tail, last);
	return outcome;
}

static __always_inline u32 mark_range(u32 slot, u64 first, u64 last)
{
	return last / 64 - first / 64 < INLINE_WORDS ? mark_chunks(slot, first, last) :
						       mark_long(slot, first, last);
}

/*
 * Now, or up to a tick ago: reading the clock costs as much as all the rest, so it is read once a
 * tick and disk. The tick is loaded first, so that the time is never kept for too long.
 */
static __always_inline u64 recently(struct counters *mine, u32 copy)
{
	u64 tick = bpf_jiffies64();

	if (mine->tick[copy] != tick) {
		mine->now[copy] = bpf_ktime_get_ns();
		mine->tick[copy] = tick;
	}
	return mine->now[copy];
}

/* Tells userspace of a range. */
static __always_inline void send(u32 slot, u64 sector, u32 sectors, u32 kind,
				 struct counters *mine, u32 copy)
{
	if (!tell(sector, sectors, slot << 8 | kind, recently(mine, copy)))
		mine->ring_lost[copy]++;
}

/*
 * Marks a range of a disk, whatever its length and wherever it ends. A global function must return
 * a number.
 */
__noinline int mark_any(u32 slot, u64 sector, u32 sectors, u32 kind, u32 copy)
{
	struct disk *disk = &table.disks[slot & (DISKS - 1)];
	u64 end = sector + sectors, limit = disk->sectors;
	u32 shift = disk->chunk_shift & 31, outcome;
	struct counters *mine;

	if (end > limit || end < sector) {
		taint(slot, TAINT_OUT_OF_RANGE);
		end = limit;
	}
	if (sector >= end)
		return 0;
	outcome = mark_range(slot, sector >> shift, (end - 1) >> shift);
#ifdef MUTANTS
	if (outcome & FRESH)
		summarize(sector >> shift, (end - 1) >> shift);
#endif
	mine = counters_of(slot);
	if (outcome & FRESH && mine && copy < COPIES)
		send(slot, sector, end - sector, kind, mine, copy);
	if (outcome & LOOKUP_FAILED)
		taint(slot, TAINT_LOOKUP_FAILED);
	if (outcome & TOO_LARGE)
		taint(slot, TAINT_TOO_MANY_RANGES);
	return 0;
}

/*
 * The same, and quicker for what most writes are: a range within one word of the bitmap. There is no
 * call then, whose return is what costs.
 */
static __always_inline void mark(u32 slot, u64 sector, u32 sectors, u32 kind,
				 struct counters *mine, u32 copy)
{
	struct disk *disk = &table.disks[slot & (DISKS - 1)];
	u64 last_sector = sector + sectors - 1;
	u32 shift = disk->chunk_shift & 31;
	u64 first = sector >> shift, last = last_sector >> shift;
	u64 *word = NULL;

#ifndef MUTANTS
	if (likely(last_sector < disk->sectors && first / 64 == last / 64))
		word = dirty_word(slot, first / 64);
#endif
	if (unlikely(!word))
		mark_any(slot, sector, sectors, kind, copy);
	else if (mark_word(word, from(first) & up_to(last)) & FRESH && mine)
		send(slot, sector, sectors, kind, mine, copy);
}

#endif
