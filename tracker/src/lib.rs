//! From kernel marks to sealed epochs, and the persistent log of dirty chunks.
