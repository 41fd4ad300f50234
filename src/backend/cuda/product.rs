//! How sums of products are cut: into slices, which decide bits, and over tiles, which do not.

use super::activation::kind;
use super::device::SCRATCH_BYTES;
use super::kernels::Kernel;
use super::launch::Grid;
use super::{Cuda, View, ViewMut};
use crate::backend::{Accumulate, Activation, Precision};

/// Most elements of the tables of slices. It decides bits, where slices are as many as their tables have
/// room, and so does not grow with the memory that holds them.
pub(super) const TABLE_ELEMENTS: usize = 8 << 20;

const _: () = assert!(TABLE_ELEMENTS * size_of::<f32>() <= SCRATCH_BYTES);

/// Terms that a tile's kernel stages at a time: 64 bytes of what operands are rounded to.
const fn step(precision: Precision) -> usize {
    match precision {
        Precision::F32 | Precision::Tf32 => 16,
        Precision::Bf16 | Precision::F16 => 32,
    }
}

/// Fewest terms of a slice, where there are so many.
const SLICE: usize = 256;

/// Most slices.
const MOST_SLICES: usize = 64;

/// Multiprocessors for which tiles are chosen: those of an H100 or H200, whatever is at hand.
pub(super) const PROCESSORS: usize = 132;

/// How the terms of every sum are cut. A function of their number and the precision alone: it decides
/// bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slices {
    /// Terms of each slice but the last, which may have fewer.
    pub(super) terms: usize,
    pub(super) count: usize,
}

impl Slices {
    pub(super) fn of(terms: usize, precision: Precision) -> Self {
        Self::at_most(MOST_SLICES, terms, precision)
    }

    /// For sums of which each slice should have a table, and `most` tables have room.
    pub(super) fn at_most(most: usize, terms: usize, precision: Precision) -> Self {
        Self::cut(terms, SLICE, MOST_SLICES.min(most), step(precision))
    }

    /// At most `most`, of at least `fewest` terms each where there are so many, and of a multiple of `step`.
    pub(super) fn cut(terms: usize, fewest: usize, most: usize, step: usize) -> Self {
        let count = terms.div_ceil(fewest).min(most).max(1);
        let each = terms.div_ceil(count).next_multiple_of(step).max(step);
        Self {
            terms: each,
            count: terms.div_ceil(each),
        }
    }
}

/// The extents of the tile that a block of threads computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tile {
    /// 128 x 128
    Large,
    /// 128 x 32
    Tall,
    /// 64 x 64
    Medium,
    /// 32 x 32
    Small,
}

impl Tile {
    const ALL: [Self; 4] = [Self::Large, Self::Medium, Self::Tall, Self::Small];

    /// The quickest for `sums` tables of `[rows, columns]` sums: what is left idle in the last
    /// wave of blocks and what lies beyond the table's edges count as work.
    fn of(rows: usize, columns: usize, sums: usize, precision: Precision) -> Self {
        let time = |tile: &Self| {
            let (height, width) = tile.extents();
            let blocks = tile.count(rows, columns) * sums;
            blocks.div_ceil(PROCESSORS) * height * width * tile.cost(precision)
        };
        let quickest = Self::ALL.into_iter().min_by_key(time);
        quickest.expect("there are tiles")
    }

    /// Rows and columns.
    fn extents(self) -> (usize, usize) {
        match self {
            Self::Large => (128, 128),
            Self::Tall => (128, 32),
            Self::Medium => (64, 64),
            Self::Small => (32, 32),
        }
    }

    /// Time for a multiply-add, in hundredths of what it takes where nothing else is to be done:
    /// smaller tiles read shared memory more often. Tensor cores wait for global memory; what is
    /// read from there goes with the extents' sum.
    fn cost(self, precision: Precision) -> usize {
        if precision != Precision::F32 {
            let (height, width) = self.extents();
            return 6400 * (height + width) / (height * width);
        }
        match self {
            Self::Large => 110,
            Self::Medium => 130,
            Self::Tall => 135,
            Self::Small => 200,
        }
    }

    fn threads(self) -> u32 {
        match self {
            Self::Large => 256,
            Self::Tall | Self::Medium => 128,
            Self::Small => 64,
        }
    }

    /// Tiles that cover `[rows, columns]`.
    pub(super) fn count(self, rows: usize, columns: usize) -> usize {
        let (height, width) = self.extents();
        rows.div_ceil(height) * columns.div_ceil(width)
    }

    /// One of the four kernels of a family, large to small.
    pub(super) fn choose(self, [large, tall, medium, small]: [Kernel; 4]) -> Kernel {
        match self {
            Self::Large => large,
            Self::Tall => tall,
            Self::Medium => medium,
            Self::Small => small,
        }
    }
}

/// Which blocks compute a table of sums. Changes no bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) tile: Tile,
    /// Whether each slice has its own blocks, and the slices' tables are folded afterwards.
    pub(super) is_split: bool,
}

impl Plan {
    /// For `[rows, columns]` sums in slices. Split where the tiles alone would leave most multiprocessors
    /// idle, and the slices' tables have room.
    pub(super) fn of(rows: usize, columns: usize, slices: usize, precision: Precision) -> Self {
        let fills = Tile::Medium.count(rows, columns) >= PROCESSORS;
        let is_split = slices > 1 && !fills && slices * rows * columns <= TABLE_ELEMENTS;
        let sums = if is_split { slices } else { 1 };
        Self {
            tile: Tile::of(rows, columns, sums, precision),
            is_split,
        }
    }

    pub(super) fn grid(self, rows: usize, columns: usize, slices: usize) -> Grid {
        let tiles = self.tile.count(rows, columns);
        let tiles = u32::try_from(tiles).expect("a product has fewer than 2^32 tiles");
        // At most `MOST_SLICES`.
        let slices = if self.is_split { slices as u32 } else { 1 };
        Grid::new([tiles, slices, 1], [self.tile.threads(), 1, 1])
    }
}

/// `Product` of `product.cuh`: `[m, n]` sums of `k` terms.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
pub(super) struct Product {
    m: usize,
    n: usize,
    k: usize,
    slice: usize,
    table: usize,
    wide: [u32; 2],
    finish: Finish,
}

impl Product {
    /// `wide`: of A and B.
    pub(super) fn new(
        [m, n, k]: [usize; 3],
        slices: Slices,
        wide: [bool; 2],
        target: &Target<'_>,
    ) -> Self {
        Self {
            m,
            n,
            k,
            slice: slices.terms,
            table: target.table,
            wide: wide.map(u32::from),
            finish: target.finish,
        }
    }
}

/// Where sums shall go, and what shall become of them: `c = ` or `c += activation(sum + bias)`.
pub(super) struct Output<'a> {
    pub(super) c: ViewMut<'a, f32>,
    /// Elements of a row of C.
    pub(super) columns: usize,
    pub(super) bias: Option<View<'a, f32>>,
    pub(super) write: Accumulate,
    pub(super) activation: Activation,
}

/// What a kernel of products is told of its output: C, or a table for each slice.
pub(super) struct Target<'a> {
    pub(super) c: ViewMut<'a, f32>,
    pub(super) bias: View<'a, f32>,
    /// Elements of a slice's table; 0: `c` is C.
    table: usize,
    finish: Finish,
}

impl Cuda {
    /// Queues by `launch` the kernels that compute all sums of `output`, and behind them, where each
    /// of the slices has its own blocks, the one that adds their tables up.
    pub(super) fn write_sums(
        &self,
        plan: Plan,
        slices: Slices,
        output: Output<'_>,
        launch: impl FnOnce(Target<'_>),
    ) {
        let Output {
            c,
            columns,
            bias,
            write,
            activation,
        } = output;
        let wide = is_wide(c.pointer, columns) && is_bias_wide(bias);
        let finish = Finish::new(write, activation, wide);
        let bias = View::or_null(bias);
        if !plan.is_split {
            return launch(Target {
                c,
                bias,
                table: 0,
                finish,
            });
        }
        let fold = Fold {
            len: c.len,
            columns,
            slices: slices.count,
            finish,
        };
        let tables = || self.scratch::<f32>(slices.count * c.len);
        launch(Target {
            c: tables(),
            bias: View::or_null(None),
            table: c.len,
            finish: Finish::of_slice(columns.is_multiple_of(4)),
        });
        let tables = tables();
        let arguments = [
            (&fold).into(),
            (&tables).into(),
            (&bias).into(),
            (&c).into(),
        ];
        self.launch(Kernel::Fold, Grid::elements(c.len), &arguments);
    }
}

/// `Finish` of `activation.cuh`: what becomes of a sum.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
pub(super) struct Finish {
    add: u32,
    activation: u32,
    parameter: f32,
    wide: u32,
}

impl Finish {
    /// `wide`: whether rows of C, and the bias, are made of aligned quads.
    fn new(write: Accumulate, activation: Activation, wide: bool) -> Self {
        let (activation, parameter) = kind(activation);
        Self {
            add: u32::from(write == Accumulate::Add),
            activation,
            parameter,
            wide: u32::from(wide),
        }
    }

    /// For the table of one slice.
    fn of_slice(wide: bool) -> Self {
        Self::new(Accumulate::Set, Activation::Linear, wide)
    }
}

/// `Fold` of `fold.cu`: how slices' tables are added up.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct Fold {
    len: usize,
    columns: usize,
    slices: usize,
    finish: Finish,
}

/// Whether rows of `columns` elements from `pointer` on are made of aligned quads.
pub(super) fn is_wide(pointer: u64, columns: usize) -> bool {
    pointer.is_multiple_of(16) && columns.is_multiple_of(4)
}

/// The same for a bias, which may be absent.
fn is_bias_wide(bias: Option<View<'_, f32>>) -> bool {
    bias.is_none_or(|bias| is_wide(bias.pointer, bias.len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_all_terms_and_are_few() {
        let numbers = [0, 1, 16, 255, 256, 257, 784, 16_384, 16_385, 36_864];
        for terms in numbers.into_iter().chain([1 << 20]) {
            for precision in Precision::ALL {
                let slices = Slices::of(terms, precision);
                assert!(slices.terms * slices.count >= terms);
                assert!(slices.terms * slices.count < terms + slices.terms.max(1));
                assert!(slices.count <= terms.div_ceil(SLICE) && slices.count <= MOST_SLICES);
                assert!(Slices::at_most(5, terms, precision).count <= 5);
                assert_eq!(slices.terms % step(precision), 0);
            }
        }
        let (terms, count) = (208, 4);
        assert_eq!(Slices::of(784, Precision::F32), Slices { terms, count });
        let terms = 224;
        assert_eq!(Slices::of(784, Precision::F16), Slices { terms, count });
    }

    #[test]
    fn large_products_take_large_tiles_and_small_ones_spread_their_slices() {
        for precision in Precision::ALL {
            let plan = |rows, columns, terms| {
                let slices = Slices::of(terms, precision);
                Plan::of(rows, columns, slices.count, precision)
            };
            let whole = |tile| Plan {
                tile,
                is_split: false,
            };
            assert_eq!(plan(4096, 4096, 4096), whole(Tile::Large));
            assert_eq!(plan(36_864, 32, 288), whole(Tile::Tall));
            let split = plan(64, 512, 784);
            assert!(split.is_split && split.tile == Tile::Small);
            assert!(!plan(784, 512, 64).is_split);
            assert!(plan(288, 64, 36_864).is_split);
            // Sixteen tables of half a million sums fill the room; seventeen do not fit.
            assert!(plan(512, 1024, 16 * SLICE).is_split);
            assert!(!plan(512, 1024, 17 * SLICE).is_split);
        }
    }
}
