//! The loops around the kernel: blocks of columns and terms, tiles of rows, panels of vectors.

use std::cell::RefCell;

use super::operand::{Columns, Scalars};
use super::plan::{MOST_TERMS, Plan, TRANSPOSE_COST, block_of_terms, pieces};
use super::tile::{EDGE, Finish, Kernel, Kernels, PACK, Tile, WHOLE};
use crate::backend::Precision;
use crate::backend::cpu::round::round;

/// A product `C[rows, columns] = scalars · columns`, and what is done with its sums.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// The left operand.
    pub(super) scalars: Scalars<'a>,
    /// The right operand.
    pub(super) columns: Columns<'a>,
    /// What both are rounded to.
    pub(super) precision: Precision,
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
        let mut cost = self.plan::<K>().cost;
        if matches!(self.columns, Columns::Transposed(_)) {
            cost += TRANSPOSE_COST * self.scalars.terms * self.width;
        }
        cost
    }

    fn plan<K: Kernels>(&self) -> Plan {
        let Scalars { rows, terms, .. } = self.scalars;
        Plan::new(
            rows,
            self.width,
            terms,
            self.transposed,
            (K::LANES, K::MOST_ROWS),
        )
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
                        product: self,
                        plan,
                        first_term,
                        terms: count,
                        first_column,
                        width,
                        packed,
                        output: output.as_mut_ptr(),
                        add: self.add || first_term > 0,
                        bias: self.bias.filter(|_| last),
                        relu: self.relu && last,
                    };
                    // SAFETY: the lengths were compared above and the operand's when it was made;
                    // the workspace holds `PACKED_ELEMENTS` and two tiles.
                    unsafe { part.run::<K>() }
                }
            }
        });
    }
}

/// One block of terms of one block of columns.
struct Part<'a> {
    product: &'a Product<'a>,
    plan: Plan,
    first_term: usize,
    terms: usize,
    first_column: usize,
    width: usize,
    packed: *mut f32,
    output: *mut f32,
    add: bool,
    bias: Option<&'a [f32]>,
    relu: bool,
}

impl Part<'_> {
    unsafe fn run<K: Kernels>(&self) {
        let Product {
            scalars,
            columns,
            precision,
            width: all_columns,
            transposed,
            ..
        } = *self.product;
        let vectors = self.width.div_ceil(K::LANES);
        let panels = vectors.div_ceil(self.plan.vectors);
        let tiles = self.plan.tiles;
        let rounds = precision != Precision::F32;
        let (start, pack) = match columns {
            Columns::RowMajor(data) if rounds => {
                // SAFETY: the caller's promise.
                unsafe { self.pack_rows::<K>(data, vectors, panels) };
                (None, false)
            }
            Columns::RowMajor(data) => {
                let first = self.first_term * all_columns + self.first_column;
                let side_by_side = panels == 1 && all_columns == vectors * K::LANES;
                let pack = tiles > FEW_TILES && !side_by_side;
                (Some(data.as_ptr().wrapping_add(first)), pack)
            }
            Columns::Transposed(data) => {
                // SAFETY: the caller's promise.
                unsafe { self.pack_transposed::<K>(data, vectors, panels) };
                (None, false)
            }
        };
        if rounds {
            // SAFETY: that much was packed, by the caller's promise.
            round(precision, unsafe {
                std::slice::from_raw_parts_mut(self.packed, vectors * K::LANES * self.terms)
            });
        }
        let (next_rows, next_step) = self.next_tile();
        let mut tile = Tile {
            scalars: std::ptr::null(),
            row_stride: scalars.row_stride,
            term_stride: scalars.term_stride,
            terms: self.terms,
            next: std::ptr::null(),
            next_step: 0,
            columns: std::ptr::null(),
            column_stride: 0,
            packed: std::ptr::null_mut(),
            last: 0,
            output: self.output,
            output_stride: all_columns,
            finish: Finish {
                add: self.add,
                bias: std::ptr::null(),
                relu: self.relu,
            },
        };
        let mut unpacked = start;
        for (row, rows) in pieces(scalars.rows, tiles) {
            tile.scalars = scalars.at(row, self.first_term);
            tile.next = tile.scalars.wrapping_add(next_rows * rows);
            tile.next_step = next_step * rows;
            if scalars.row_stride == 1 {
                tile.next_step = scalars.term_stride;
            }
            if rounds {
                // SAFETY: the caller's promise.
                tile.scalars = unsafe { self.round_scalars(row, rows) };
                (tile.row_stride, tile.term_stride) = (self.terms, 1);
            }
            for (vector, panel) in pieces(vectors, panels) {
                let first = vector * K::LANES;
                let valid = (panel * K::LANES).min(self.width - first);
                tile.last = valid - (panel - 1) * K::LANES;
                tile.packed = self.packed.wrapping_add(first * self.terms);
                let read = match unpacked {
                    Some(start) => {
                        tile.columns = start.wrapping_add(first);
                        tile.column_stride = all_columns;
                        match (pack, tile.last == K::LANES) {
                            (true, _) => PACK,
                            (false, true) => WHOLE,
                            (false, false) => EDGE,
                        }
                    }
                    None => {
                        tile.columns = tile.packed;
                        tile.column_stride = panel * K::LANES;
                        WHOLE
                    }
                };
                let kernel = K::kernel(rows, panel, read);
                let column = self.first_column + first;
                // SAFETY: the tile lies inside the operands and C, packed panels one after the
                // other inside the workspace.
                unsafe {
                    if transposed {
                        self.run_transposed::<K>(kernel, tile, (row, rows), (column, valid), panel);
                    } else {
                        tile.output = self.output.add(row * all_columns + column);
                        tile.finish.bias = self.bias_at(column);
                        kernel(&tile);
                    }
                }
            }
            if pack {
                unpacked = None;
            }
        }
    }

    /// What the next tile of rows will read: where it starts, in elements for each row of a tile,
    /// and the elements for each row of a tile and term from which to fetch. Where rows are far
    /// apart they are streams that the machine follows by itself.
    fn next_tile(&self) -> (usize, usize) {
        let scalars = &self.product.scalars;
        if scalars.row_stride == self.terms {
            (self.terms, 1)
        } else if scalars.row_stride == 1 {
            (1, 0)
        } else {
            (0, 0)
        }
    }

    /// Packs all panels of a vector operand `[columns, terms]`.
    unsafe fn pack_transposed<K: Kernels>(&self, data: &[f32], vectors: usize, panels: usize) {
        let all_terms = self.product.scalars.terms;
        for (vector, panel) in pieces(vectors, panels) {
            let first = vector * K::LANES;
            let extent = ((panel * K::LANES).min(self.width - first), self.terms);
            // SAFETY: inside `data` and the workspace.
            unsafe {
                let from =
                    (data.as_ptr()).add((self.first_column + first) * all_terms + self.first_term);
                let to = self.packed.add(first * self.terms);
                K::transpose_in(from, all_terms, extent, to, panel * K::LANES);
            }
        }
    }

    /// Packs all panels of a vector operand `[terms, columns]`, columns padded by zeros.
    unsafe fn pack_rows<K: Kernels>(&self, data: &[f32], vectors: usize, panels: usize) {
        let elements = vectors * K::LANES * self.terms;
        // SAFETY: inside the workspace.
        let packed = unsafe { std::slice::from_raw_parts_mut(self.packed, elements) };
        let rows = data.chunks_exact(self.product.width);
        for (vector, panel) in pieces(vectors, panels) {
            let (first, width) = (vector * K::LANES, panel * K::LANES);
            let valid = width.min(self.width - first);
            let panel = packed[first * self.terms..][..width * self.terms].chunks_exact_mut(width);
            for (row, to) in rows.clone().skip(self.first_term).zip(panel) {
                to[..valid].copy_from_slice(&row[self.first_column + first..][..valid]);
                to[valid..].fill(0.0);
            }
        }
    }

    /// A rounded copy of a tile of the scalar operand, `[rows, terms]`.
    unsafe fn round_scalars(&self, row: usize, rows: usize) -> *const f32 {
        assert!(rows * self.terms <= SCALAR_ELEMENTS, "a tile is too large");
        // SAFETY: inside the workspace, behind the panels and the tile of sums.
        let to = unsafe {
            let start = self.packed.add(PACKED_ELEMENTS + TILE_ELEMENTS);
            std::slice::from_raw_parts_mut(start, rows * self.terms)
        };
        let terms = self.first_term..self.first_term + self.terms;
        let Product {
            scalars, precision, ..
        } = self.product;
        scalars.copy(row..row + rows, terms, to);
        round(*precision, to);
        to.as_ptr()
    }

    /// Sums a tile beside the packed panels and writes it to a C that is stored transposed.
    unsafe fn run_transposed<K: Kernels>(
        &self,
        kernel: Kernel,
        mut tile: Tile,
        (row, rows): (usize, usize),
        (column, valid): (usize, usize),
        panel: usize,
    ) {
        let all_rows = self.product.scalars.rows;
        let finish = Finish {
            bias: self.bias_at(row),
            ..tile.finish
        };
        let width = panel * K::LANES;
        // SAFETY: the tile lies inside C; the workspace has room for it after the panels.
        unsafe {
            let sums = self.packed.add(PACKED_ELEMENTS);
            tile.output = sums;
            tile.output_stride = width;
            tile.finish = Finish {
                add: false,
                bias: std::ptr::null(),
                relu: false,
            };
            kernel(&tile);
            let output = self.output.add(column * all_rows + row);
            K::transpose_out(sums, width, (rows, valid), output, all_rows, finish);
        }
    }

    fn bias_at(&self, start: usize) -> *const f32 {
        match self.bias {
            Some(bias) => bias.as_ptr().wrapping_add(start),
            None => std::ptr::null(),
        }
    }
}

/// With this many tiles of rows, packing does not pay.
const FEW_TILES: usize = 2;

/// Elements of the packed block: it should stay in the second-level cache.
const PACKED_ELEMENTS: usize = 128 * 1024;

/// Elements of the largest tile.
const TILE_ELEMENTS: usize = 512;

/// Elements of the largest tile of scalars: a block of terms of 16 rows.
const SCALAR_ELEMENTS: usize = 16 * MOST_TERMS;

/// What of a product is copied.
const WORKSPACE_ELEMENTS: usize = PACKED_ELEMENTS + TILE_ELEMENTS + SCALAR_ELEMENTS;

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
            self.0 = vec![Line([0.0; 16]); WORKSPACE_ELEMENTS / 16];
        }
        &mut self.0
    }
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}
