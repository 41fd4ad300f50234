//! How a product is cut into tiles. No choice made here changes a bit of the result.

/// The widest run of terms summed before the sum is added to C. This one does decide bits.
pub(super) const MOST_TERMS: usize = 512;

/// How many terms each block takes: as even as can be, so that none is too short to pay.
pub(super) fn block_of_terms(terms: usize) -> usize {
    terms.div_ceil(terms.div_ceil(MOST_TERMS).max(1))
}

/// Nearly equal pieces of `count`, one after the other: their starts and lengths.
pub(super) fn pieces(count: usize, parts: usize) -> impl Iterator<Item = (usize, usize)> {
    let (short, longer) = (count / parts, count % parts);
    (0..parts).map(move |part| {
        let start = part * short + part.min(longer);
        (start, short + usize::from(part < longer))
    })
}

/// How the rows and columns of a product are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// Tiles that the rows are cut into.
    pub(super) tiles: usize,
    /// Most vectors of a tile.
    pub(super) vectors: usize,
    /// Estimated work, in quarter cycles of a core with two multiply-add units.
    pub(super) cost: usize,
}

impl Plan {
    /// The cheapest cut of `rows` by `columns`, all positive, given the rows that fit beside 1, 2,
    /// .. vectors of `lanes`.
    pub(super) fn new(
        rows: usize,
        columns: usize,
        terms: usize,
        transposed: bool,
        (lanes, most_rows): (usize, &[usize]),
    ) -> Self {
        let all = columns.div_ceil(lanes);
        let blocks = terms.div_ceil(block_of_terms(terms));
        let candidates = most_rows.iter().enumerate().map(|(index, &most)| {
            let vectors = (index + 1).min(all);
            let (tiles, panels) = (rows.div_ceil(most), all.div_ceil(vectors));
            let cost = Self::steps(rows, tiles, all, panels) * terms
                + tiles * panels * TILE_COST
                + if transposed {
                    tiles * all * lanes * TRANSPOSE_TILE_COST * blocks
                } else {
                    0
                };
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

    /// Work of one term over all tiles: a multiply-add per element's vector, and half as much for
    /// a load per row and per vector, though loads run beside; never less than it takes until one
    /// multiply-add can follow another.
    fn steps(rows: usize, tiles: usize, all: usize, panels: usize) -> usize {
        let sizes = |count: usize, parts: usize| {
            let longer = count % parts;
            [(longer, count / parts + 1), (parts - longer, count / parts)]
        };
        let mut sum = 0;
        for (times_rows, rows) in sizes(rows, tiles) {
            for (times_vectors, vectors) in sizes(all, panels) {
                let one = (2 * rows * vectors + rows + vectors).max(LATENCY);
                sum += times_rows * times_vectors * one;
            }
        }
        sum
    }
}

/// Cost of a multiply-add's latency.
const LATENCY: usize = 16;

/// Cost to start and to store a tile.
const TILE_COST: usize = 200;

/// Cost to write one lane of a tile to a C stored transposed, whatever the tile's rows.
const TRANSPOSE_TILE_COST: usize = 20;

/// Cost to transpose one element of an operand.
pub(super) const TRANSPOSE_COST: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_even_and_cover_all_terms() {
        for terms in [1, 511, 512, 513, 784, 36_864] {
            let block = block_of_terms(terms);
            assert!(block <= MOST_TERMS);
            assert_eq!(terms.div_ceil(block), terms.div_ceil(MOST_TERMS));
        }
        assert_eq!(block_of_terms(784), 392);
    }

    #[test]
    fn pieces_follow_each_other() {
        let cut: Vec<_> = pieces(64, 5).collect();
        assert_eq!(cut, [(0, 13), (13, 13), (26, 13), (39, 13), (52, 12)]);
    }
}
