/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A mistake, made on purpose, to show that tests see what comes of it. In no release: only the
 * feature `mutants` compiles it.
 *
 * A summary of the dirty bitmaps that is set after their bits, and only by who found one of them
 * clear. Between the two, another write of the same chunk finds the bit set, sets nothing, and is
 * acknowledged: who looks for dirty bits by the summary then misses an acknowledged write. The ring
 * is such a summary too, which is why no cut harvests by it. See also src/conflicts.rs.
 */
#ifndef PINNACE_MUTANT_H
#define PINNACE_MUTANT_H

#include "tables.h"

/* In the reserved words of the conflict table, which userspace maps. */
#define SUMMARY 0       /* bit b: a chunk whose number ends in these six bits */
#define SUMMARY_DELAY 1 /* nanoseconds by which some come later */

#define DELAYED_ONE_IN 16
#define SPINS (1 << 20)

static long is_over(u64 spin, void *until)
{
	return bpf_ktime_get_ns() >= *(u64 *)until;
}

/*
 * Says that some of the chunks [first, last] are dirty; on one processor as if an interrupt had come
 * first, so that others can write meanwhile.
 */
static __always_inline void summarize(u64 first, u64 last)
{
	u32 zero = 0, turn = first & 63;
	struct conflicts *all = bpf_map_lookup_elem(&conflicts, &zero);
	u64 bits = last - first < 63 ? (2ULL << ((last - first) & 63)) - 1 : ~0ULL;
	u64 delay;

	if (!all)
		return;
	delay = *(volatile u64 *)&all->reserved[SUMMARY_DELAY];
	if (delay && !bpf_get_smp_processor_id() &&
	    bpf_get_prandom_u32() % DELAYED_ONE_IN == 0) {
		u64 until = bpf_ktime_get_ns() + delay;

		bpf_loop(SPINS, is_over, &until, 0);
	}
	bits = bits << turn | bits >> (-turn & 63);
	__sync_fetch_and_or(&all->reserved[SUMMARY], bits);
}

#endif
