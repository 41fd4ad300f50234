//! How the operands of a product lie in memory.

/// One level of a nested index: `count` values, `stride` elements apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::cpu) struct Extent {
    /// How many.
    pub(in crate::backend::cpu) count: usize,
    /// Elements from one to the next.
    pub(in crate::backend::cpu) stride: usize,
}

impl Extent {
    /// `count` values, `stride` elements apart.
    pub(in crate::backend::cpu) fn new(count: usize, stride: usize) -> Self {
        Self { count, stride }
    }

    /// A level that is not there.
    pub(in crate::backend::cpu) const ONE: Self = Self {
        count: 1,
        stride: 0,
    };
}

/// An index made of three levels, outermost first: value `i` has the digits of `i` in the mixed
/// radix of the counts, and lies at the sum of digit times stride.
///
/// Two of these describe a matrix of patches without copying it. Of an image `[batch, height,
/// width, channels]` whose patches are `[kernel_height, kernel_width, channels]` and move by
/// `stride`, a patch starts at `[(batch, height·width·channels), (out_height,
/// stride·width·channels), (out_width, stride·channels)]`, and its elements lie at
/// `[ONE, (kernel_height, width·channels), (kernel_width·channels, 1)]` from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::cpu) struct Index([Extent; 3]);

impl Index {
    /// An index of three levels, outermost first.
    pub(in crate::backend::cpu) fn new(mut levels: [Extent; 3]) -> Self {
        // Levels that continue each other are one, so that inner runs are as long as they can be.
        for inner in [2, 1, 2] {
            let (outer, last) = (levels[inner - 1], levels[inner]);
            if last.count == 1 || outer.count == 1 || outer.stride == last.count * last.stride {
                let stride = if last.count == 1 {
                    outer.stride
                } else {
                    last.stride
                };
                levels[inner] = Extent::new(outer.count * last.count, stride);
                levels[inner - 1] = Extent::ONE;
            }
        }
        if levels[0] != Extent::ONE && levels[1] == Extent::ONE {
            levels.swap(0, 1);
        }
        Self(levels)
    }

    /// `count` values, `stride` elements apart.
    pub(in crate::backend::cpu) fn plain(count: usize, stride: usize) -> Self {
        Self([Extent::ONE, Extent::ONE, Extent::new(count, stride)])
    }

    /// How many values it takes.
    pub(in crate::backend::cpu) fn count(&self) -> usize {
        self.0.iter().map(|level| level.count).product()
    }

    /// Values of the innermost level.
    pub(super) fn run(&self) -> usize {
        self.0[2].count
    }

    /// Elements between neighbours of a run.
    pub(super) fn stride(&self) -> usize {
        self.0[2].stride
    }

    /// Where value `i` lies.
    pub(super) fn offset(&self, i: usize) -> usize {
        let [outer, middle, inner] = self.0;
        let (i, digit) = (i / inner.count, i % inner.count);
        i / middle.count * outer.stride + i % middle.count * middle.stride + digit * inner.stride
    }

    /// The largest offset of a value; the index must not be empty.
    fn reach(&self) -> usize {
        self.0
            .iter()
            .map(|level| (level.count - 1) * level.stride)
            .sum()
    }
}

/// The operand whose elements are taken one by one: row `i`, term `p` of it is
/// `data[rows(i) + terms(p)]`.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend::cpu) struct Scalars<'a> {
    data: &'a [f32],
    pub(super) rows: Index,
    pub(super) terms: Index,
}

impl<'a> Scalars<'a> {
    /// A matrix, or a matrix of patches, in `data`.
    pub(in crate::backend::cpu) fn new(data: &'a [f32], rows: Index, terms: Index) -> Self {
        let empty = rows.count() == 0 || terms.count() == 0;
        assert!(
            empty || rows.reach() + terms.reach() < data.len(),
            "matmul: {rows:?} by {terms:?} reaches outside {} elements",
            data.len()
        );
        Self { data, rows, terms }
    }

    pub(super) fn start(&self) -> *const f32 {
        self.data.as_ptr()
    }
}

/// The operand that is taken by vectors: term `p`, column `j` of it.
#[derive(Debug, Clone, Copy)]
pub(in crate::backend::cpu) enum Columns<'a> {
    /// `data[p * columns + j]`
    RowMajor(&'a [f32]),
    /// `data[j * terms + p]`
    Transposed(&'a [f32]),
}

impl Columns<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::RowMajor(data) | Self::Transposed(data) => data.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_that_continue_each_other_are_joined() {
        let joined = Index::new([Extent::new(4, 60), Extent::new(5, 12), Extent::new(6, 2)]);
        assert_eq!(joined, Index::plain(120, 2));
        let apart = Index::new([Extent::new(4, 60), Extent::new(3, 20), Extent::new(6, 2)]);
        assert_eq!((apart.run(), apart.count()), (6, 72));
        let inner_one = Index::new([Extent::ONE, Extent::new(7, 9), Extent::new(1, 5)]);
        assert_eq!(inner_one, Index::plain(7, 9));
    }

    #[test]
    fn offsets_are_sums_of_digits_times_strides() {
        for levels in [
            [(2, 100), (3, 30), (4, 1)],
            [(2, 12), (3, 4), (4, 1)],
            [(2, 50), (1, 7), (4, 1)],
            [(3, 50), (4, 9), (1, 3)],
            [(3, 50), (1, 9), (1, 3)],
        ] {
            let levels = levels.map(|(count, stride)| Extent::new(count, stride));
            let index = Index::new(levels);
            let mut i = 0;
            for outer in 0..levels[0].count {
                for middle in 0..levels[1].count {
                    for inner in 0..levels[2].count {
                        let expected = outer * levels[0].stride
                            + middle * levels[1].stride
                            + inner * levels[2].stride;
                        assert_eq!(index.offset(i), expected, "{levels:?} at {i}");
                        i += 1;
                    }
                }
            }
            assert_eq!(index.count(), i);
        }
    }

    #[test]
    #[should_panic(expected = "reaches outside 11 elements")]
    fn reaching_outside_is_refused() {
        Scalars::new(&[0.0; 11], Index::plain(3, 4), Index::plain(4, 1));
    }
}
