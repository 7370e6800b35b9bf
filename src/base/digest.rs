//! A number for bytes of any length.

/// The first eight bytes of the bytes' BLAKE3 hash, the lowest first: the same on every boot and in every release, so
/// that it may stand in rows.
pub fn digest(bytes: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(bytes).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn the_number_is_that_of_earlier_releases() {
        // BLAKE3 of nothing begins with af1349b9f5f9a1a6.
        assert_eq!(digest(b""), 0xa6a1_f9f5_b949_13af);
    }
}
