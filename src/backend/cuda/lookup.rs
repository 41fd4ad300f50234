//! Rows of a table by index, and what becomes of columns that are categories.

use super::kernels::Kernel;
use super::launch::{Argument, Grid};
use super::{Cuda, View, ViewMut};
use crate::backend::{Accumulate, Bag, COLUMN, Combiner, Field, Lookup, Memory};

/// Most warps that share the elements of a gradient; each reads all indices.
const MOST_WARPS: usize = 4096;

/// Most warps that share a row.
const MOST_COLUMN_WARPS: usize = 64;

/// Warps of a block.
const BLOCK_WARPS: usize = 8;

/// `Bag` of `kernels/lookup.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct BagFields {
    width: usize,
    inputs: usize,
    first: usize,
    len: usize,
    weights: usize,
    combiner: usize,
    outputs: usize,
    offset: usize,
}

impl From<Bag> for BagFields {
    fn from(bag: Bag) -> Self {
        Self {
            width: bag.width,
            inputs: bag.inputs,
            first: bag.first,
            len: bag.len,
            weights: bag.weights.unwrap_or(usize::MAX),
            combiner: match bag.combiner {
                Combiner::Sum => 0,
                Combiner::Mean => 1,
                Combiner::Sqrtn => 2,
            },
            outputs: bag.outputs,
            offset: bag.offset,
        }
    }
}

/// `Field` of `kernels/lookup.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::NoUninit)]
struct FieldFields {
    record: usize,
    offset: usize,
    width: usize,
}

impl From<Field> for FieldFields {
    fn from(field: Field) -> Self {
        Self {
            record: field.record,
            offset: field.offset,
            width: field.width,
        }
    }
}

impl Lookup for Cuda {
    fn gather_bags(
        &mut self,
        bag: Bag,
        table: View<'_, f32>,
        x: View<'_, f32>,
        y: ViewMut<'_, f32>,
        write: Accumulate,
    ) {
        let samples = bag.samples(x.len, y.len);
        let rows = table.len / bag.width;
        assert!(rows > 0 || y.len == 0, "gather_bags: a table without rows");
        let (fields, add) = (BagFields::from(bag), u32::from(write == Accumulate::Add));
        let arguments = [
            (&fields).into(),
            (&samples).into(),
            (&rows).into(),
            (&table).into(),
            (&x).into(),
            (&y).into(),
            (&add).into(),
        ];
        let grid = Grid::elements(samples * bag.width);
        self.launch(Kernel::GatherBags, grid, &arguments);
    }

    fn scatter_bags(
        &mut self,
        bag: Bag,
        x: View<'_, f32>,
        dy: View<'_, f32>,
        mut gradient: ViewMut<'_, f32>,
        write: Accumulate,
    ) {
        let samples = bag.samples(x.len, dy.len);
        let rows = gradient.len / bag.width;
        assert!(
            rows > 0 || dy.len == 0,
            "scatter_bags: a table without rows"
        );
        if write == Accumulate::Set {
            self.fill(Self::reborrow(&mut gradient), 0.0);
        }
        if samples * bag.len == 0 {
            return;
        }
        let column_warps = bag.width.div_ceil(32).min(MOST_COLUMN_WARPS);
        // A power of two.
        let row_warps = (MOST_WARPS / column_warps.next_power_of_two())
            .min(rows.next_power_of_two())
            .max(BLOCK_WARPS);
        let blocks = [(row_warps / BLOCK_WARPS) as u32, column_warps as u32, 1];
        let grid = Grid::new(blocks, [32 * BLOCK_WARPS as u32, 1, 1]);
        let fields = BagFields::from(bag);
        let arguments = [
            (&fields).into(),
            (&samples).into(),
            (&rows).into(),
            (&x).into(),
            (&dy).into(),
            (&gradient).into(),
        ];
        self.launch(Kernel::ScatterBags, grid, &arguments);
    }

    fn take_rows(
        &mut self,
        field: Field,
        indices: View<'_, f32>,
        table: View<'_, f32>,
        rows: ViewMut<'_, f32>,
    ) {
        let records = field.records(table.len, indices.len, rows.len);
        assert!(
            records > 0 || rows.len == 0,
            "take_rows: a table without rows"
        );
        let arrays = [(&indices).into(), (&table).into(), (&rows).into()];
        self.move_rows(Kernel::TakeRows, field, (indices.len, records), arrays);
    }

    fn put_rows(
        &mut self,
        field: Field,
        indices: View<'_, f32>,
        rows: View<'_, f32>,
        table: ViewMut<'_, f32>,
    ) {
        let records = field.records(table.len, indices.len, rows.len);
        let arrays = [(&indices).into(), (&rows).into(), (&table).into()];
        self.move_rows(Kernel::PutRows, field, (indices.len, records), arrays);
    }

    fn expand(
        &mut self,
        inputs: usize,
        columns: View<'_, f32>,
        x: View<'_, f32>,
        y: ViewMut<'_, f32>,
    ) {
        let (samples, outputs) = (x.len / inputs, columns.len / COLUMN);
        assert_eq!(y.len, samples * outputs, "expand: as many samples");
        let arguments = [
            (&inputs).into(),
            (&outputs).into(),
            (&samples).into(),
            (&columns).into(),
            (&x).into(),
            (&y).into(),
        ];
        self.launch(Kernel::Expand, Grid::elements(y.len), &arguments);
    }
}

impl Cuda {
    /// Launches a kernel that moves a field of `count` records between the arrays.
    fn move_rows(
        &mut self,
        kernel: Kernel,
        field: Field,
        (count, records): (usize, usize),
        [indices, from, to]: [Argument<'_>; 3],
    ) {
        let fields = FieldFields::from(field);
        let arguments = [
            (&fields).into(),
            (&count).into(),
            (&records).into(),
            indices,
            from,
            to,
        ];
        self.launch(kernel, Grid::elements(count * field.width), &arguments);
    }
}
