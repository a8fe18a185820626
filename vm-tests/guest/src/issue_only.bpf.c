/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A tracker that is wrong on purpose: it marks a write when it is issued, not when it is done.
 * A harvest between the two clears the mark and reads the old content, and the write is lost.
 * The oracle of the race tests has to notice.
 *
 * For bio-based disks of up to CHUNKS chunks of 4 KiB, and writes of up to LARGEST chunks.
 */
#define SEC(name) __attribute__((section(name), used))
#define CHUNKS 4096
#define LARGEST 64
#define READ 0
#define FLUSH 2
#define MMAPABLE (1 << 10)

typedef unsigned int u32;
typedef unsigned long long u64;

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;

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
	struct block_device *bi_bdev;
	u32 bi_opf;
	struct bvec_iter bi_iter;
};

#pragma clang attribute pop

/* Set by the test before it loads the object. */
const volatile u32 disk_major;
const volatile u32 disk_minor;

struct {
	int (*type)[2]; /* array */
	int (*map_flags)[MMAPABLE];
	int (*max_entries)[CHUNKS / 64];
	u32 *key;
	u64 *value;
} dirty SEC(".maps");

SEC("tp_btf/block_bio_queue")
int bio_queue(u64 *arguments)
{
	struct bio *bio = (struct bio *)arguments[0];
	struct gendisk *disk = bio->bi_bdev->bd_disk;
	u32 op = bio->bi_opf & 0xff;
	u64 first, end;

	if (op == READ || op == FLUSH || !bio->bi_iter.bi_size)
		return 0;
	if ((u32)disk->major != disk_major || (u32)disk->first_minor != disk_minor)
		return 0;
	first = bio->bi_iter.bi_sector >> 3;
	end = (bio->bi_iter.bi_sector + (bio->bi_iter.bi_size >> 9) + 7) >> 3;
	for (u32 i = 0; i < LARGEST; i++) {
		u64 chunk = first + i;
		u32 index = chunk / 64;
		u64 *word;

		if (chunk >= end)
			break;
		word = bpf_map_lookup_elem(&dirty, &index);
		if (word)
			__sync_fetch_and_or(word, 1ULL << (chunk % 64));
	}
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
