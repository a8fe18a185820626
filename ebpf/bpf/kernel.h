/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What these programs know of the kernel, and nothing else. The fields are found by name in the
 * BTF of the running kernel when the object is loaded (CO-RE), so one object serves all kernels
 * and no generated header is needed.
 *
 * Kernel drift met so far, all of it harmless to what is used here:
 *   5.16  the error of block_rq_complete became a blk_status_t: never read;
 *   5.17  request.rq_disk went: request.q->disk is there since 5.15;
 *   6.0   numbers of zone operations changed: no zoned disk is tracked, and what is not known to
 *         read is taken for a write.
 */
#ifndef PINNACE_KERNEL_H
#define PINNACE_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

typedef __u32 u32;
typedef __u64 u64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

/* From the kernel's stable interface to programs (uapi/linux/bpf.h). */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_F_MMAPABLE = 1 << 10,
	BPF_F_INNER_MAP = 1 << 12,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct gendisk {
	int major;
	int first_minor;
};

struct block_device {
	struct gendisk *bd_disk;
};

struct bvec_iter {
	u64 bi_sector;
	u32 bi_size;
};

struct bio {
	struct bio *bi_next;
	struct block_device *bi_bdev;
	u32 bi_opf;
	__u8 bi_status;
	struct bvec_iter bi_iter;
	void *bi_private;
};

struct request_queue {
	struct gendisk *disk;
};

enum mq_rq_state {
	MQ_RQ_IDLE = 0, /* not with the driver */
};

struct request {
	struct request_queue *q;
	u32 cmd_flags;
	u32 __data_len;
	u64 __sector;
	struct bio *bio;
	enum mq_rq_state state;
};

#pragma clang attribute pop

/* Operations, by numbers that have not changed since 5.15. */
enum {
	OP_READ = 0,
	OP_WRITE = 1,
	OP_FLUSH = 2,
	OP_DISCARD = 3,
	OP_SECURE_ERASE = 5,
	OP_ZONE_APPEND = 7, /* WRITE_SAME before 5.18; either writes its range */
	OP_WRITE_ZEROES = 9,
	OP_DRV_IN = 34,
	OP_DRV_OUT = 35,
	OP_MASK = 0xff,
};

/* The status of a bio that would have had to wait, and must not: nothing was done. */
#define STATUS_AGAIN 12

#define SECTOR_SHIFT 9
#define MINOR_BITS 20

#endif
