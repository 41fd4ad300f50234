//! The only chunking rule.
//!
//! Four ranks share ten items as 3, 3, 2, 2: `0..3, 3..6, 6..8, 8..10`. Everything that is divided
//! over ranks (micro-batches, chunks of a bucket, shards) is divided here, so that two places can
//! never disagree about who owns what.

use std::ops::Range;

/// The share of `index` when `items` things are cut into `parts` runs whose lengths differ by at
/// most one, longer ones first.
///
/// # Panics
/// If `index` is not below `parts`.
///
/// ```
/// let shares: Vec<_> = (0..4).map(|rank| ringstep::params::partition(10, 4, rank)).collect();
/// assert_eq!(shares, [0..3, 3..6, 6..8, 8..10]);
/// ```
pub fn partition(items: usize, parts: usize, index: usize) -> Range<usize> {
    assert!(index < parts, "part {index} of {parts}");
    let (share, longer) = (items / parts, items % parts);
    let start = index * share + index.min(longer);
    start..start + share + usize::from(index < longer)
}

#[cfg(test)]
mod tests {
    use super::partition;

    #[test]
    fn parts_cover_everything_in_order_and_differ_by_at_most_one() {
        for items in 0..40 {
            for parts in 1..=16 {
                let mut end = 0;
                for index in 0..parts {
                    let part = partition(items, parts, index);
                    assert_eq!(part.start, end);
                    assert!(part.len() == items / parts || part.len() == items.div_ceil(parts));
                    end = part.end;
                }
                assert_eq!(end, items);
            }
        }
    }
}
