//! How a product is cut into tiles. No choice made here changes a bit of the result.

/// The widest run of terms summed before the sum is added to C. This one does decide bits.
pub(super) const MOST_TERMS: usize = 384;

/// How many terms each block takes: as even as can be, so that none is too short to pay.
pub(super) fn block_of_terms(terms: usize) -> usize {
    terms.div_ceil(terms.div_ceil(MOST_TERMS).max(1))
}

/// The `part`th of `parts` nearly equal pieces of `count`: its start and length.
pub(super) fn piece(count: usize, parts: usize, part: usize) -> (usize, usize) {
    let (short, longer) = (count / parts, count % parts);
    (
        part * short + part.min(longer),
        short + usize::from(part < longer),
    )
}

/// How the rows and columns of a product are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Tiles that the rows are cut into.
    pub(super) tiles: usize,
    /// Most vectors of a tile.
    pub(super) vectors: usize,
    /// Estimated work, in half cycles of a core with two multiply-add units.
    pub(super) cost: usize,
}

impl Plan {
    /// The cheapest cut of `rows` by `columns`, all positive, given the rows that fit beside 1, 2,
    /// .. vectors of `lanes`.
    pub(super) fn new(
        rows: usize,
        columns: usize,
        terms: usize,
        (lanes, most_rows): (usize, &[usize]),
    ) -> Self {
        let all = columns.div_ceil(lanes);
        let candidates = most_rows.iter().enumerate().map(|(index, &most)| {
            let vectors = (index + 1).min(all);
            let (tiles, panels) = (rows.div_ceil(most), all.div_ceil(vectors));
            let cost = Self::steps(rows, tiles, all, panels) * terms + tiles * panels * TILE_COST;
            Self {
                tiles,
                vectors,
                cost,
            }
        });
        candidates
            .min_by_key(|plan| plan.cost)
            .expect("every instruction set has kernels of one vector")
    }

    /// Half cycles that one term takes over all tiles: a multiply-add per element's vector, a
    /// load per row and per vector, and never less than the latency of one multiply-add.
    fn steps(rows: usize, tiles: usize, all: usize, panels: usize) -> usize {
        let sizes = |count: usize, parts: usize| {
            let longer = count % parts;
            [(longer, count / parts + 1), (parts - longer, count / parts)]
        };
        let mut sum = 0;
        for (times_rows, rows) in sizes(rows, tiles) {
            for (times_vectors, vectors) in sizes(all, panels) {
                let one = (rows * vectors).max(rows + vectors).max(8);
                sum += times_rows * times_vectors * one;
            }
        }
        sum
    }
}

/// Half cycles to start and to store a tile.
const TILE_COST: usize = 100;

/// Half cycles to transpose one element.
pub(super) const TRANSPOSE_COST: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_even_and_cover_all_terms() {
        for terms in [1, 383, 384, 385, 784, 36_864] {
            let block = block_of_terms(terms);
            assert!(block <= MOST_TERMS);
            assert_eq!(terms.div_ceil(block), terms.div_ceil(MOST_TERMS));
        }
        assert_eq!(block_of_terms(784), 262);
    }

    #[test]
    fn pieces_follow_each_other() {
        let mut end = 0;
        for part in 0..5 {
            let (start, length) = piece(64, 5, part);
            assert_eq!(start, end);
            assert!((12..=13).contains(&length));
            end += length;
        }
        assert_eq!(end, 64);
    }
}
