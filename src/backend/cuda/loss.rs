//! Losses with their gradient in one pass.

use cudarc::driver::sys::CUdeviceptr;

use super::kernels::Kernel;
use super::launch::{Grid, team_width};
use super::{Cuda, View, ViewMut};
use crate::backend::{Compared, Loss, Losses, Memory};

/// Rows whose losses lie in scratch memory at a time.
const ROWS: usize = 1 << 16;

/// Threads of the block that adds the rows' losses, as many as it stages.
const REPORT_THREADS: u32 = 256;

impl Losses for Cuda {
    fn loss(
        &mut self,
        loss: Loss,
        rows: usize,
        compared: Compared<'_, Self>,
        report: ViewMut<'_, f64>,
        mut gradient: Option<ViewMut<'_, f32>>,
    ) {
        let Compared {
            outputs,
            targets,
            weights,
        } = compared;
        let columns = outputs.len / rows.max(1);
        let target_columns = targets.len / rows.max(1);
        let is_index = matches!(loss, Loss::SoftmaxCrossEntropy { .. }) && target_columns == 1;
        assert!(
            outputs.len == rows * columns
                && targets.len == rows * target_columns
                && (target_columns == columns || is_index)
                && weights.is_none_or(|weights| weights.len == rows)
                && gradient
                    .as_ref()
                    .is_none_or(|gradient| gradient.len == outputs.len)
                && report.len == 4,
            "loss: lengths differ"
        );
        for first in (0..rows.max(1)).step_by(ROWS) {
            let range = first..rows.min(first + ROWS);
            let count = range.len();
            let elements = |columns| columns * range.start..columns * range.end;
            let part = gradient
                .as_mut()
                .map(|gradient| Self::reborrow(gradient).slice(elements(columns)));
            let batch = Batch {
                rows: count,
                columns,
                outputs: outputs.slice(elements(columns)).pointer,
                targets: targets.slice(elements(target_columns)).pointer,
                weights: View::or_null(weights.map(|weights| weights.slice(elements(1)))).pointer,
                gradient: ViewMut::or_null(part).pointer,
                losses: self.scratch::<f64>(2 * count).pointer,
            };
            self.losses(loss, &batch, target_columns);
            let is_added = u32::from(first > 0);
            let arguments = [(&batch).into(), (&is_added).into(), (&report).into()];
            let grid = Grid::new([1, 1, 1], [REPORT_THREADS, 1, 1]);
            self.launch(Kernel::LossReport, grid, &arguments);
        }
    }
}

/// `Batch` of `loss.cu`: what is compared, and where its gradient and the losses of its rows go.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Batch {
    rows: usize,
    columns: usize,
    outputs: CUdeviceptr,
    targets: CUdeviceptr,
    weights: CUdeviceptr,
    gradient: CUdeviceptr,
    losses: CUdeviceptr,
}

/// `Loss` of `loss.cu`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Elementwise {
    kind: u32,
    parameter: f32,
}

impl Cuda {
    /// The losses and metrics of the rows of `batch`, and its gradient.
    fn losses(&self, loss: Loss, batch: &Batch, target_columns: usize) {
        let width = team_width(batch.columns);
        let grid = Grid::teams(batch.rows, width);
        let (kind, parameter) = match loss {
            Loss::SoftmaxCrossEntropy { smoothing } => {
                let arguments = [
                    batch.into(),
                    (&target_columns).into(),
                    (&smoothing).into(),
                    (&width).into(),
                ];
                return self.launch(Kernel::SoftmaxCrossEntropy, grid, &arguments);
            }
            Loss::SigmoidCrossEntropy { smoothing } => (0, smoothing),
            Loss::SquaredError => (1, 0.0),
            Loss::AbsoluteError => (2, 0.0),
            Loss::Huber { delta } => (3, delta),
        };
        let loss = Elementwise { kind, parameter };
        let arguments = [batch.into(), (&loss).into(), (&width).into()];
        self.launch(Kernel::ElementwiseLoss, grid, &arguments);
    }
}
