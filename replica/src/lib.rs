//! The target's store: incoming journal, catalogue, base, fold.
