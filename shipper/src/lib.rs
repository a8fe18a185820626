//! From a sealed epoch to sealed frames: plan, read, compress, seal.
