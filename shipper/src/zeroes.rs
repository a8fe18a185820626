//! Finding zeroes.

/// The unit in which zeroes are looked for, in bytes. Smaller runs are data like any other.
pub(crate) const ZERO_UNIT: usize = 4096;

/// Whether every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Data shows itself at once, so that little is read; the rest is compared by the C library,
    // which is as wide as the processor and stops at the first difference.
    static ZEROES: [u8; ZERO_UNIT] = [0; ZERO_UNIT];
    bytes.first().is_none_or(|byte| *byte == 0)
        && bytes.chunks(ZERO_UNIT).all(|unit| unit == &ZEROES[..unit.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_bit_anywhere_is_found(len in 1usize..20_000, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = vec![0; len];
            prop_assert!(is_zero(&bytes));
            bytes[at.index(len)] = 1 << bit;
            prop_assert!(!is_zero(&bytes));
        }
    }

    #[test]
    fn nothing_is_zero() {
        assert!(is_zero(&[]));
    }
}
