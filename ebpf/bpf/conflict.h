/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What is being written, noted when it is issued: before the driver has the write, so before
 * anybody can read its data. Userspace flips the half, reads blocks, and then looks whether they
 * are noted in the new half: if not, no write issued since the flip can be in what it read.
 *
 * A program that starts after the flip loads the new half. One that loaded the old half started
 * before, and its write was in flight at the flip: it needs no note. So nobody has to wait for
 * programs that are running, and a note that comes late, or into the wrong half, is a conflict
 * too many and never one too few.
 *
 * A bit is tested before it is set, which saves a locked instruction where a block is written
 * again and again. That is sound here: nothing else follows from setting it, and a half is cleared
 * before the flip that makes it current, so who has loaded the new half does not see a bit of before.
 */
#ifndef PINNACE_CONFLICT_H
#define PINNACE_CONFLICT_H

#include "mark.h"

/*
 * One word of a dirty bitmap, 64 neighbouring chunks, goes to one word here, so that a long write
 * costs little, and eight neighbouring words to one cache line, so that what is written closely
 * stays in the cache. Both are turned by some of the hash, so that chunks on the same boundary don't
 * meet more often than others. See also Place in src/conflicts.rs.
 */
static __always_inline void note_word(struct conflicts *all, u32 half, u32 slot, u64 index,
				      u64 bits)
{
	u64 hash = ((u64)slot << 32 ^ index / 8) * 0x9e3779b97f4a7c15ULL;
	u32 turn = hash >> (64 - CONFLICT_LINES_LOG2 - 6) & 63;
	u32 within = (index + (hash >> (64 - CONFLICT_LINES_LOG2 - 9))) % 8;
	u32 at = (hash >> (64 - CONFLICT_LINES_LOG2)) * 8 + within;
	u64 *word;

	/* The compiler makes an OR of the sum, of which the verifier of 6.1 loses the bounds. */
	barrier_var(at);
	word = &all->words[half][at & (CONFLICT_WORDS - 1)];
	bits = bits << turn | bits >> (-turn & 63);
	if (bits & ~*(volatile u64 *)word)
		__sync_fetch_and_or(word, bits);
}

/* What can't be noted by its place conflicts with everything. */
static __always_inline void note_everything(void)
{
	u32 zero = 0;
	struct conflicts *all = bpf_map_lookup_elem(&conflicts, &zero);

	if (all)
		__sync_fetch_and_or(&all->overflow[all->half & 1], 1);
}

/* Several words: a global function, which the verifier looks at once. It must return a number. */
__noinline int note_words(u32 slot, u64 first, u64 last)
{
	u32 zero = 0, half;
	struct conflicts *all = bpf_map_lookup_elem(&conflicts, &zero);
	u64 index = first / 64, bits = from(first);

	if (!all)
		return 0;
	half = *(volatile u64 *)&all->half & 1;
	for (u32 i = 0; i < INLINE_WORDS; i++) {
		if (index == last / 64) {
			note_word(all, half, slot, index, bits & up_to(last));
			return 0;
		}
		note_word(all, half, slot, index, bits);
		bits = ~0ULL;
		index++;
	}
	__sync_fetch_and_or(&all->overflow[half], 1);
	return 0;
}

/* Notes the range [sector, sector + sectors), which is not empty. */
static __always_inline void note(u32 slot, u64 sector, u32 sectors)
{
	u32 shift = table.disks[slot & (DISKS - 1)].chunk_shift & 31, zero = 0;
	u64 first = sector >> shift, last = (sector + sectors - 1) >> shift;
	struct conflicts *all;

	if (first / 64 != last / 64) {
		note_words(slot, first, last);
		return;
	}
	all = bpf_map_lookup_elem(&conflicts, &zero);
	if (all)
		note_word(all, *(volatile u64 *)&all->half & 1, slot, first / 64,
			  from(first) & up_to(last));
}

/* A discard may hold several ranges; see mark_discard(). */
static __always_inline void note_discard(u32 slot, const struct request *rq)
{
	const struct bio *bio = rq->bio;
	u32 shift = table.disks[slot & (DISKS - 1)].chunk_shift & 31;

	for (u32 i = 0; i < DISCARD_RANGES; i++) {
		u32 sectors;

		if (!bio)
			return;
		sectors = bio->bi_iter.bi_size >> SECTOR_SHIFT;
		if (sectors)
			note_words(slot, bio->bi_iter.bi_sector >> shift,
				   (bio->bi_iter.bi_sector + sectors - 1) >> shift);
		bio = bio->bi_next;
	}
	if (bio)
		note_everything();
}

#endif
