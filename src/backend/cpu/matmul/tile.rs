//! The innermost kernel: a tile of C that stays in registers while a block of terms is summed.

use super::vector::{MOST_LANES, Portable, Vector};

/// Where a tile's sums go and what happens to them on the way. All pointers and strides are of
/// `f32` elements.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// The scalar operand at the tile's first row.
    pub(super) scalars: *const f32,
    /// Elements between rows.
    pub(super) row_stride: usize,
    /// Elements between terms.
    pub(super) term_stride: usize,
    /// How many terms.
    pub(super) terms: usize,
    /// What to fetch meanwhile for the next tile: an address for each term,
    pub(super) next: *const f32,
    /// and the elements between them.
    pub(super) next_step: usize,
    /// The vector operand at the first term and the tile's first column.
    pub(super) columns: *const f32,
    /// Elements between terms.
    pub(super) column_stride: usize,
    /// Where to copy the vector operand's tile, vectors side by side, columns padded by zeros.
    pub(super) packed: *mut f32,
    /// Columns in the last vector, 1 to LANES.
    pub(super) last: usize,
    /// The tile's first element in C.
    pub(super) output: *mut f32,
    /// Elements between rows of C.
    pub(super) output_stride: usize,
    /// What is done to the sums.
    pub(super) finish: Finish,
}

/// `C = relu(C + sum + bias)`, each part if asked for.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    /// Add to what C holds.
    pub(super) add: bool,
    /// Value per column of the tile, or null.
    pub(super) bias: *const f32,
    /// Cut off below zero.
    pub(super) relu: bool,
}

/// How a kernel reads the vector operand: whole vectors,
pub(super) const WHOLE: u8 = 0;
/// the last one only as far as C goes,
pub(super) const EDGE: u8 = 1;
/// or so, and packing it.
pub(super) const PACK: u8 = 2;

/// Terms that the vector operand is fetched ahead of its use: from the second-level cache,
const AHEAD: usize = 8;
/// and from farther away.
const FAR_AHEAD: usize = 24;

/// From this many terms on there is time to fetch the lines of C before they are written.
const LONG: usize = 32;

/// Rows that share a pointer in the kernel.
const ROWS_OF_GROUP: usize = 4;

/// Pointers that the most rows take.
const MOST_GROUPS: usize = 4;

/// Sums a tile of `ROWS` rows and `VECTORS` vectors. Each element is its own chain of fused
/// multiply-adds over the terms in order, from zero: no bit depends on the tile's shape.
///
/// # Safety
/// The machine has `V`'s instructions; all that the tile names is valid and C is exclusive;
/// whole vectors of columns are valid if `READ` is `WHOLE`;
/// `packed` holds `VECTORS` whole vectors per term if it is `PACK`.
#[expect(
    clippy::needless_range_loop,
    reason = "row and v name places in the tile; loops over them unroll"
)]
#[inline(always)]
unsafe fn sum_tile<V: Vector, const ROWS: usize, const VECTORS: usize, const READ: u8>(
    tile: &Tile,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mask = V::mask(tile.last);
        let mut sums = [[V::zero(); VECTORS]; ROWS];
        let (mut columns, mut packed, mut next) = (tile.columns, tile.packed, tile.next);
        // A pointer for each few rows, unrelated in the compiler's eyes: it would walk from row to
        // row by one chain of additions, as long as the multiply-adds take.
        let mut groups: [*const f32; MOST_GROUPS] = std::array::from_fn(|group| {
            let row = group * ROWS_OF_GROUP;
            if row < ROWS {
                std::hint::black_box(tile.scalars.wrapping_add(row * tile.row_stride))
            } else {
                tile.scalars
            }
        });
        let place = |row, v| tile.output.add(row * tile.output_stride + v * V::LANES);
        if tile.terms >= LONG {
            for row in 0..ROWS {
                for v in 0..VECTORS {
                    V::prefetch_to_write(place(row, v));
                }
            }
        }
        for _ in 0..tile.terms {
            let mut vectors = [V::zero(); VECTORS];
            for v in 0..VECTORS - 1 {
                vectors[v] = V::load(columns.add(v * V::LANES));
            }
            let last = columns.add((VECTORS - 1) * V::LANES);
            vectors[VECTORS - 1] = if READ == WHOLE {
                V::load(last)
            } else {
                V::load_masked(last, mask)
            };
            // Beside one vector loads are what limits.
            if VECTORS > 1 {
                let ahead = if READ == WHOLE { AHEAD } else { FAR_AHEAD };
                for v in 0..VECTORS {
                    V::prefetch(columns.wrapping_add(ahead * tile.column_stride + v * V::LANES));
                }
                V::prefetch(next);
                next = next.wrapping_add(tile.next_step);
            }
            if READ == PACK {
                for v in 0..VECTORS {
                    vectors[v].store(packed.add(v * V::LANES));
                }
                packed = packed.add(VECTORS * V::LANES);
            }
            for row in 0..ROWS {
                let scalar = V::splat(
                    *groups[row / ROWS_OF_GROUP].add(row % ROWS_OF_GROUP * tile.row_stride),
                );
                for v in 0..VECTORS {
                    sums[row][v] = sums[row][v].add_product(scalar, vectors[v]);
                }
            }
            for group in &mut groups {
                *group = group.wrapping_add(tile.term_stride);
            }
            columns = columns.wrapping_add(tile.column_stride);
        }
        let load = |from: *const f32, v| {
            if v + 1 < VECTORS {
                V::load(from)
            } else {
                V::load_masked(from, mask)
            }
        };
        if tile.finish.add {
            for row in 0..ROWS {
                for v in 0..VECTORS {
                    sums[row][v] = load(place(row, v), v).add(sums[row][v]);
                }
            }
        }
        if !tile.finish.bias.is_null() {
            for v in 0..VECTORS {
                let bias = load(tile.finish.bias.add(v * V::LANES), v);
                for row in 0..ROWS {
                    sums[row][v] = sums[row][v].add(bias);
                }
            }
        }
        if tile.finish.relu {
            for row in 0..ROWS {
                for v in 0..VECTORS {
                    sums[row][v] = sums[row][v].relu();
                }
            }
        }
        for row in 0..ROWS {
            for v in 0..VECTORS - 1 {
                sums[row][v].store(place(row, v));
            }
            sums[row][VECTORS - 1].store_masked(place(row, VECTORS - 1), mask);
        }
    }
}

/// Copies `rows` rows of `terms` values into columns: row `j`, term `p` of `from` becomes
/// `to[p * width + j]`; rows up to the next whole vector are zero.
///
/// # Safety
/// The machine has `V`'s instructions; the rows and `terms * width` values of `to` are valid.
#[inline(always)]
unsafe fn transpose_in<V: Vector>(
    from: *const f32,
    stride: usize,
    (rows, terms): (usize, usize),
    to: *mut f32,
    width: usize,
) {
    for first in (0..rows).step_by(V::LANES) {
        for term in (0..terms).step_by(V::LANES) {
            let count = V::LANES.min(terms - term);
            // SAFETY: by the caller's promise; masks keep within `terms`.
            unsafe {
                let mask = V::mask(count);
                let mut block = [V::zero(); MOST_LANES];
                for (row, lanes) in block.iter_mut().enumerate().take(rows - first) {
                    if row < V::LANES {
                        *lanes = V::load_masked(from.add((first + row) * stride + term), mask);
                    }
                }
                V::transpose(&mut block);
                for (i, lanes) in block.iter().enumerate().take(count) {
                    lanes.store(to.add((term + i) * width + first));
                }
            }
        }
    }
}

/// Writes a tile of sums `[rows, width]` transposed: `C[j, i] = finish(sums[i, j])` for the first
/// `columns` columns; the bias is per row of the tile.
///
/// # Safety
/// The machine has `V`'s instructions; the sums, the bias and the elements of C are valid.
#[inline(always)]
unsafe fn transpose_out<V: Vector>(
    sums: *const f32,
    width: usize,
    (rows, columns): (usize, usize),
    output: *mut f32,
    output_stride: usize,
    finish: Finish,
) {
    for first_row in (0..rows).step_by(V::LANES) {
        let count = V::LANES.min(rows - first_row);
        for first in (0..columns).step_by(V::LANES) {
            // SAFETY: by the caller's promise; the mask keeps within `rows`.
            unsafe {
                let mask = V::mask(count);
                let mut block = [V::zero(); MOST_LANES];
                for (row, lanes) in block.iter_mut().enumerate().take(count) {
                    *lanes = V::load(sums.add((first_row + row) * width + first));
                }
                V::transpose(&mut block);
                let bias = if finish.bias.is_null() {
                    None
                } else {
                    Some(V::load_masked(finish.bias.add(first_row), mask))
                };
                let valid = V::LANES.min(columns - first);
                for (i, &lanes) in block.iter().enumerate().take(valid) {
                    let to = output.add((first + i) * output_stride + first_row);
                    let mut lanes = lanes;
                    if finish.add {
                        lanes = V::load_masked(to, mask).add(lanes);
                    }
                    if let Some(bias) = bias {
                        lanes = lanes.add(bias);
                    }
                    if finish.relu {
                        lanes = lanes.relu();
                    }
                    lanes.store_masked(to, mask);
                }
            }
        }
    }
}

/// A kernel compiled for an instruction set. To call it is unsafe as `sum_tile` is.
pub(super) type Kernel = unsafe fn(&Tile);

/// The kernels compiled for one instruction set, by number of rows and vectors.
///
/// # Safety
/// As the generic functions above; rows are at most `MOST_ROWS[vectors - 1]`.
pub(super) trait Kernels {
    /// Lanes of a vector.
    const LANES: usize;
    /// Rows that fit the registers beside 1, 2, .. vectors.
    const MOST_ROWS: &'static [usize];

    /// The kernel for that many rows and vectors.
    fn kernel(rows: usize, vectors: usize, read: u8) -> Kernel;
    unsafe fn transpose_in(
        from: *const f32,
        stride: usize,
        extent: (usize, usize),
        to: *mut f32,
        width: usize,
    );
    unsafe fn transpose_out(
        sums: *const f32,
        width: usize,
        extent: (usize, usize),
        output: *mut f32,
        output_stride: usize,
        finish: Finish,
    );
}

macro_rules! kernels {
    ($set:ty, $(#[$features:meta],)? most_rows: $most:expr, $($vectors:literal: $($rows:literal)+;)+) => {
        impl Kernels for $set {
            const LANES: usize = <$set as Vector>::LANES;
            const MOST_ROWS: &'static [usize] = &$most;

            fn kernel(rows: usize, vectors: usize, read: u8) -> Kernel {
                $(#[$features])?
                unsafe fn compiled<const ROWS: usize, const VECTORS: usize, const READ: u8>(
                    tile: &Tile,
                ) {
                    // SAFETY: the promise is the caller's.
                    unsafe { sum_tile::<$set, ROWS, VECTORS, READ>(tile) }
                }
                match (vectors, rows, read) {
                    $($(
                        ($vectors, $rows, WHOLE) => compiled::<$rows, $vectors, WHOLE>,
                        ($vectors, $rows, EDGE) => compiled::<$rows, $vectors, EDGE>,
                        ($vectors, $rows, PACK) => compiled::<$rows, $vectors, PACK>,
                    )+)+
                    _ => unreachable!("no kernel for {rows} rows and {vectors} vectors"),
                }
            }

            $(#[$features])?
            unsafe fn transpose_in(
                from: *const f32,
                stride: usize,
                extent: (usize, usize),
                to: *mut f32,
                width: usize,
            ) {
                // SAFETY: the promise is the caller's.
                unsafe { transpose_in::<$set>(from, stride, extent, to, width) }
            }

            $(#[$features])?
            unsafe fn transpose_out(
                sums: *const f32,
                width: usize,
                extent: (usize, usize),
                output: *mut f32,
                output_stride: usize,
                finish: Finish,
            ) {
                // SAFETY: the promise is the caller's.
                unsafe { transpose_out::<$set>(sums, width, extent, output, output_stride, finish) }
            }
        }
    };
}

kernels!(Portable, most_rows: [4, 4],
    1: 1 2 3 4; 2: 1 2 3 4;);

#[cfg(target_arch = "x86_64")]
kernels!(super::vector::Avx2, #[target_feature(enable = "avx2,fma")], most_rows: [12, 6],
    1: 1 2 3 4 5 6 7 8 9 10 11 12; 2: 1 2 3 4 5 6;);

#[cfg(target_arch = "x86_64")]
kernels!(super::vector::Avx512, #[target_feature(enable = "avx512f,avx2,fma")],
    most_rows: [16, 14, 9, 6],
    1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16;
    2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
    3: 1 2 3 4 5 6 7 8 9;
    4: 1 2 3 4 5 6;);
