//! The kernel side: BPF programs on block I/O, their loader, and access to what they record.
