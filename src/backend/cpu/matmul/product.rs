//! The loops around the kernel: blocks of columns and terms, tiles of rows, panels of vectors.

use std::cell::RefCell;

use super::operand::{Columns, Scalars};
use super::plan::{Plan, TRANSPOSE_COST, block_of_terms, piece};
use super::tile::{Finish, Kernels, Tile};

/// A product `C[rows, columns] = scalars · columns`, and what is done with its sums.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// The left operand.
    pub(super) scalars: Scalars<'a>,
    /// The right operand.
    pub(super) columns: Columns<'a>,
    /// How many columns.
    pub(super) width: usize,
    /// Whether C is stored as `[columns, rows]`.
    pub(super) transposed: bool,
    /// Add to what C holds.
    pub(super) add: bool,
    /// A value for each column, or for each row of the product where C is stored transposed.
    pub(super) bias: Option<&'a [f32]>,
    /// Cut off below zero at the end.
    pub(super) relu: bool,
}

impl Product<'_> {
    /// Estimated work with `K`'s kernels, to compare ways to compute the same thing.
    pub(super) fn cost<K: Kernels>(&self) -> usize {
        let (rows, terms) = (self.scalars.rows, self.scalars.terms);
        let mut cost = self.plan::<K>().cost;
        if matches!(self.columns, Columns::Transposed(_)) {
            cost += TRANSPOSE_COST * terms * self.width;
        }
        if self.transposed {
            cost += TRANSPOSE_COST * rows * self.width * terms.div_ceil(block_of_terms(terms));
        }
        cost
    }

    fn plan<K: Kernels>(&self) -> Plan {
        let Scalars { rows, terms, .. } = self.scalars;
        Plan::new(rows, self.width, terms, (K::LANES, K::MOST_ROWS))
    }

    /// Computes it. There must be a row, a column and a term.
    ///
    /// # Safety
    /// The machine has `K`'s instructions.
    pub(super) unsafe fn run<K: Kernels>(&self, output: &mut [f32]) {
        let (rows, terms) = (self.scalars.rows, self.scalars.terms);
        assert_eq!(output.len(), rows * self.width, "matmul: length of c");
        assert_eq!(
            self.columns.len(),
            terms * self.width,
            "matmul: length of b"
        );
        let bias_len = if self.transposed { rows } else { self.width };
        assert!(
            self.bias.is_none_or(|bias| bias.len() == bias_len),
            "matmul: length of bias"
        );
        let plan = self.plan::<K>();
        let panel = plan.vectors * K::LANES;
        let block = block_of_terms(terms);
        let most_width = (PACKED_ELEMENTS / block / panel).max(1) * panel;
        let most_width = self
            .width
            .div_ceil(self.width.div_ceil(most_width))
            .next_multiple_of(panel);
        WORKSPACE.with_borrow_mut(|workspace| {
            let packed = workspace.get().as_mut_ptr().cast::<f32>();
            for first_column in (0..self.width).step_by(most_width) {
                let width = most_width.min(self.width - first_column);
                for first_term in (0..terms).step_by(block) {
                    let count = block.min(terms - first_term);
                    let last = first_term + count == terms;
                    let part = Part {
                        plan,
                        terms: (first_term, count),
                        columns: (first_column, width),
                        add: self.add || first_term > 0,
                        bias: self.bias.filter(|_| last),
                        relu: self.relu && last,
                    };
                    // SAFETY: the lengths were compared above, the operand's reach when it was
                    // made, and the workspace holds `PACKED_ELEMENTS`.
                    unsafe { self.run_part::<K>(&part, packed, output.as_mut_ptr()) }
                }
            }
        });
    }

    /// One block of terms of one block of columns.
    unsafe fn run_part<K: Kernels>(&self, part: &Part<'_>, packed: *mut f32, output: *mut f32) {
        let (first_term, terms) = part.terms;
        let (first_column, width) = part.columns;
        let vectors = width.div_ceil(K::LANES);
        let panels = vectors.div_ceil(part.plan.vectors);
        let source = match self.columns {
            Columns::RowMajor(data) => {
                // SAFETY: inside `data`.
                let start = unsafe { data.as_ptr().add(first_term * self.width + first_column) };
                let side_by_side = panels == 1 && self.width == vectors * K::LANES;
                if part.plan.tiles <= FEW_TILES || side_by_side {
                    Source::Direct(start)
                } else {
                    Source::PackOnFirstUse(start)
                }
            }
            Columns::Transposed(data) => {
                for index in 0..panels {
                    let (vector, count) = piece(vectors, panels, index);
                    let first = vector * K::LANES;
                    let columns = (count * K::LANES).min(width - first);
                    // SAFETY: inside `data` and the workspace.
                    unsafe {
                        let from = data
                            .as_ptr()
                            .add((first_column + first) * self.scalars.terms + first_term);
                        K::transpose_in(
                            from,
                            self.scalars.terms,
                            (columns, terms),
                            packed.add(first * terms),
                            count * K::LANES,
                        );
                    }
                }
                Source::Packed
            }
        };
        let mut first_use = true;
        for index in 0..part.plan.tiles {
            let (first_row, count) = piece(self.scalars.rows, part.plan.tiles, index);
            for panel in 0..panels {
                let (vector, panel_vectors) = piece(vectors, panels, panel);
                let first = vector * K::LANES;
                let valid = (panel_vectors * K::LANES).min(width - first);
                // SAFETY: a packed panel begins after `first` whole columns of `terms`.
                let at = unsafe { packed.add(first * terms) };
                let (columns, column_stride, pack) = match source {
                    Source::Direct(start) => (start.wrapping_add(first), self.width, false),
                    Source::PackOnFirstUse(start) if first_use => {
                        (start.wrapping_add(first), self.width, true)
                    }
                    _ => (at.cast_const(), panel_vectors * K::LANES, false),
                };
                // A packed panel is whole; what is beyond the last column is never stored.
                let tile = Tile {
                    scalars: self.scalars.at(first_row, first_term),
                    row_stride: self.scalars.row_stride,
                    term_stride: self.scalars.term_stride,
                    terms,
                    columns,
                    column_stride,
                    packed: at,
                    last: valid - (panel_vectors - 1) * K::LANES,
                    output,
                    output_stride: self.width,
                    finish: Finish {
                        add: part.add,
                        bias: std::ptr::null(),
                        relu: part.relu,
                    },
                };
                let place = (first_row, count, first_column + first, valid);
                // SAFETY: the tile lies inside the operands and C.
                unsafe { self.run_tile::<K>(tile, place, panel_vectors, pack, part.bias) }
            }
            first_use = false;
        }
    }

    /// One tile, to its place in C.
    #[inline(always)]
    unsafe fn run_tile<K: Kernels>(
        &self,
        mut tile: Tile,
        (row, rows, column, columns): (usize, usize, usize, usize),
        vectors: usize,
        pack: bool,
        bias: Option<&[f32]>,
    ) {
        let bias_at = |start: usize| match bias {
            Some(bias) => bias.as_ptr().wrapping_add(start),
            None => std::ptr::null(),
        };
        // SAFETY: the place is inside C by the caller's promise; the scratch tile holds any tile.
        unsafe {
            if !self.transposed {
                tile.output = tile.output.add(row * self.width + column);
                tile.finish.bias = bias_at(column);
                K::sum_tile(rows, vectors, pack, &tile);
                return;
            }
            let mut scratch = Scratch([0.0; SCRATCH_ELEMENTS]);
            let sums = scratch.0.as_mut_ptr();
            let all_rows = self.scalars.rows;
            let output = tile.output.add(column * all_rows + row);
            let finish = Finish {
                bias: bias_at(row),
                ..tile.finish
            };
            tile.output = sums;
            tile.output_stride = vectors * K::LANES;
            tile.last = tile.last.min(K::LANES);
            tile.finish = Finish {
                add: false,
                bias: std::ptr::null(),
                relu: false,
            };
            K::sum_tile(rows, vectors, pack, &tile);
            let width = vectors * K::LANES;
            K::transpose_out(sums, width, (rows, columns), output, all_rows, finish);
        }
    }
}

/// One block of terms of one block of columns.
struct Part<'a> {
    plan: Plan,
    /// First and count.
    terms: (usize, usize),
    /// First and count.
    columns: (usize, usize),
    add: bool,
    bias: Option<&'a [f32]>,
    relu: bool,
}

/// Where the vector operand is read.
#[derive(Clone, Copy)]
enum Source {
    /// In place, from here.
    Direct(*const f32),
    /// In place by the first tile of rows, which packs it for the others.
    PackOnFirstUse(*const f32),
    /// In the workspace.
    Packed,
}

/// With this many tiles of rows, packing does not pay.
const FEW_TILES: usize = 2;

/// Elements of the packed block: it should stay in the second-level cache.
const PACKED_ELEMENTS: usize = 192 * 1024;

/// Elements of the largest tile.
const SCRATCH_ELEMENTS: usize = 512;

/// A tile on its way to a transposed C.
#[repr(align(64))]
struct Scratch([f32; SCRATCH_ELEMENTS]);

/// A cache line of the workspace.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read and written as elements")] [f32; 16]);

/// Packed panels of the thread's product at hand: allocated by its first product.
#[derive(Default)]
struct Workspace(Vec<Line>);

impl Workspace {
    fn get(&mut self) -> &mut [Line] {
        if self.0.is_empty() {
            self.0 = vec![Line([0.0; 16]); PACKED_ELEMENTS / 16];
        }
        &mut self.0
    }
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}
