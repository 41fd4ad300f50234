//! Element-wise functions, softmax, dropout, sums over rows, and additions.

use super::device::SCRATCH_BYTES;
use super::kernels::Kernel;
use super::launch::{Grid, passes, team_width};
use super::{Cuda, View, ViewMut};
use crate::backend::activation::BLOCK;
use crate::backend::{Accumulate, Activate, Activation, DropoutKey, Memory};

impl Activate for Cuda {
    fn activate(&mut self, activation: Activation, x: View<'_, f32>, y: ViewMut<'_, f32>) {
        assert_eq!(x.len, y.len, "activate: lengths differ");
        self.apply(activation, x, &y);
    }

    fn activate_in_place(&mut self, activation: Activation, y: ViewMut<'_, f32>) {
        self.apply_in_place(activation, &y);
    }

    fn activate_backward(
        &mut self,
        activation: Activation,
        saved: View<'_, f32>,
        dy: ViewMut<'_, f32>,
    ) {
        assert_eq!(saved.len, dy.len, "activate_backward: lengths differ");
        if activation == Activation::Linear {
            return;
        }
        let (kind, parameter) = kind(activation);
        let arguments = [
            (&kind).into(),
            (&parameter).into(),
            (&dy.len).into(),
            (&saved).into(),
            (&dy).into(),
        ];
        self.launch(Kernel::ActivateBackward, Grid::quads(dy.len), &arguments);
    }

    fn softmax(&mut self, columns: usize, x: View<'_, f32>, y: ViewMut<'_, f32>) {
        assert_eq!(x.len, y.len, "softmax: lengths differ");
        self.over_rows(Kernel::Softmax, columns, x, y);
    }

    fn softmax_backward(&mut self, columns: usize, y: View<'_, f32>, dy: ViewMut<'_, f32>) {
        assert_eq!(y.len, dy.len, "softmax_backward: lengths differ");
        self.over_rows(Kernel::SoftmaxBackward, columns, y, dy);
    }

    fn add(&mut self, a: View<'_, f32>, b: View<'_, f32>, sum: ViewMut<'_, f32>) {
        assert!(a.len == sum.len && b.len == sum.len, "add: lengths differ");
        let arguments = [(&sum.len).into(), (&a).into(), (&b).into(), (&sum).into()];
        self.launch(Kernel::Add, Grid::quads(sum.len), &arguments);
    }

    fn add_assign(&mut self, a: View<'_, f32>, sum: ViewMut<'_, f32>) {
        // A thread reads its elements before it writes them.
        let before = View::new(sum.pointer, sum.len);
        self.add(before, a, sum);
    }

    fn sum_rows(
        &mut self,
        columns: usize,
        x: View<'_, f32>,
        mut sums: ViewMut<'_, f32>,
        write: Accumulate,
    ) {
        assert_eq!(sums.len, columns, "sum_rows: one sum for each column");
        let rows = x.len / columns;
        let mut groups = Groups {
            rows,
            columns,
            stride: columns,
            group: BLOCK,
            count: rows.div_ceil(BLOCK),
        };
        if groups.count <= 1 {
            groups.count = 1;
            return self.sum_groups(&groups, x, &sums, write);
        }
        let room = SCRATCH_BYTES / size_of::<f32>() / groups.count;
        for range in passes(columns, room) {
            groups.columns = range.len();
            let blocks = self.scratch(groups.count * groups.columns);
            let x = x.slice(range.start..x.len);
            self.sum_groups(&groups, x, &blocks, Accumulate::Set);
            let all = Groups {
                rows: groups.count,
                columns: groups.columns,
                stride: groups.columns,
                group: groups.count,
                count: 1,
            };
            let sums = Self::reborrow(&mut sums).slice(range);
            self.sum_groups(&all, Self::shared(&blocks), &sums, write);
        }
    }

    fn dropout(
        &mut self,
        key: DropoutKey,
        rate: f32,
        columns: usize,
        x: View<'_, f32>,
        y: ViewMut<'_, f32>,
    ) {
        assert_eq!(x.len, y.len, "dropout: lengths differ");
        let rows = x.len / columns;
        // Counters of philox have 32 bits, on the CPU too.
        let dropout = Dropout {
            seed: [key.seed as u32, (key.seed >> 32) as u32],
            step: key.step as u32,
            layer: key.layer,
            first_sample: key.first_sample as u32,
            threshold: (f64::from(rate) * (1u64 << 32) as f64) as u32,
            scale: 1.0 / (1.0 - rate),
        };
        let arguments = [
            (&dropout).into(),
            (&rows).into(),
            (&columns).into(),
            (&x).into(),
            (&y).into(),
        ];
        let grid = Grid::elements(rows * columns.div_ceil(4));
        self.launch(Kernel::Dropout, grid, &arguments);
    }
}

/// `Dropout` of `elementwise.cu`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Dropout {
    seed: [u32; 2],
    step: u32,
    layer: u32,
    first_sample: u32,
    threshold: u32,
    scale: f32,
}

/// `Groups` of `reduce.cu`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Groups {
    rows: usize,
    columns: usize,
    stride: usize,
    group: usize,
    count: usize,
}

impl Cuda {
    /// `y = activation(x)`, of equal lengths.
    fn apply(&self, activation: Activation, x: View<'_, f32>, y: &ViewMut<'_, f32>) {
        let (kind, parameter) = kind(activation);
        let arguments = [
            (&kind).into(),
            (&parameter).into(),
            (&y.len).into(),
            (&x).into(),
            y.into(),
        ];
        self.launch(Kernel::Activate, Grid::quads(y.len), &arguments);
    }

    /// `y = activation(y)`
    pub(super) fn apply_in_place(&self, activation: Activation, y: &ViewMut<'_, f32>) {
        if activation != Activation::Linear {
            // A thread reads its elements before it writes them.
            self.apply(activation, View::new(y.pointer, y.len), y);
        }
    }

    /// A kernel of `softmax.cu`: a team for each row.
    fn over_rows(&self, kernel: Kernel, columns: usize, from: View<'_, f32>, to: ViewMut<'_, f32>) {
        let (rows, width) = (from.len / columns, team_width(columns));
        let arguments = [
            (&rows).into(),
            (&columns).into(),
            (&width).into(),
            (&from).into(),
            (&to).into(),
        ];
        self.launch(kernel, Grid::teams(rows, width), &arguments);
    }

    fn sum_groups(
        &self,
        groups: &Groups,
        x: View<'_, f32>,
        sums: &ViewMut<'_, f32>,
        write: Accumulate,
    ) {
        let is_added = u32::from(write == Accumulate::Add);
        let arguments = [groups.into(), (&is_added).into(), (&x).into(), sums.into()];
        let grid = Grid::elements(groups.count * groups.columns);
        self.launch(Kernel::SumGroups, grid, &arguments);
    }
}

/// `ActivationKind` of `activation.cuh`, and the parameter of those that have one.
pub(super) fn kind(activation: Activation) -> (u32, f32) {
    match activation {
        Activation::Linear => (0, 0.0),
        Activation::Relu => (1, 0.0),
        Activation::LeakyRelu { slope } => (2, slope),
        Activation::Elu { alpha } => (3, alpha),
        Activation::Sigmoid => (4, 0.0),
        Activation::Tanh => (5, 0.0),
        Activation::Gelu => (6, 0.0),
        Activation::GeluTanh => (7, 0.0),
        Activation::Silu => (8, 0.0),
    }
}
