/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Does nothing: what it costs is what the kernel's own measuring of programs costs. */
#include "kernel.h"

SEC("tp_btf/block_rq_complete")
int empty_rq(void *ctx)
{
	return 0;
}

SEC("tp_btf/block_bio_complete")
int empty_bio(void *ctx)
{
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
