//! Buckets: runs of the gradient arena that are reduced in one collective.
//!
//! Backward finishes the arena from its end, so buckets are counted from there. The first is small,
//! so that communication starts early; the rest are large, because every collective has a fixed
//! cost. Sizes as in S. Li et al., "PyTorch Distributed", VLDB 2020: 1 MiB, then 25 MiB.

use std::ops::Range;

/// Size of a bucket in MiB, unless something else is asked for.
pub const BUCKET_MIB: usize = 25;

/// Bytes of the first bucket, unless the others are smaller.
const FIRST_BYTES: usize = 1 << 20;

/// Cuts `0..len` into buckets, in the order in which backward finishes them. All but the last are a
/// multiple of `unit` elements long; `len` must be one, too.
pub fn buckets(len: usize, unit: usize, bytes: usize) -> Vec<Range<usize>> {
    assert!(
        len.is_multiple_of(unit),
        "an arena of {len} is not cut by {unit}"
    );
    let elements = |bytes: usize| (bytes / size_of::<f32>()).next_multiple_of(unit).max(unit);
    let mut buckets = Vec::new();
    let mut end = len;
    let mut size = elements(bytes.min(FIRST_BYTES));
    while end > 0 {
        let start = end.saturating_sub(size);
        buckets.push(start..end);
        end = start;
        size = elements(bytes);
    }
    buckets
}

#[cfg(test)]
mod tests {
    use super::buckets;

    #[test]
    fn buckets_cover_the_arena_from_its_end() {
        for (len, unit, bytes) in [
            (0, 64, 1024),
            (640, 64, 1),
            (6400, 256, 1024),
            (1 << 20, 128, 25 << 20),
        ] {
            let mut end = len;
            for bucket in buckets(len, unit, bytes) {
                assert_eq!(bucket.end, end);
                assert!(bucket.len().is_multiple_of(unit) && !bucket.is_empty());
                end = bucket.start;
            }
            assert_eq!(end, 0);
        }
    }

    #[test]
    fn the_first_bucket_is_small() {
        let lens: Vec<_> = buckets(30 << 20, 64, 25 << 20)
            .iter()
            .map(|bucket| bucket.len() * 4)
            .collect();
        assert_eq!(lens[..2], [1 << 20, 25 << 20]);
    }
}
