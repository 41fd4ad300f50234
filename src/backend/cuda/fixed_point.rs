//! Floats to fixed point and to 16-bit floats, and back: the bits of the CPU.

use half::bf16;

use super::kernels::Kernel;
use super::launch::{Grid, same_lengths};
use super::{Cuda, View, ViewMut};
use crate::backend::cpu::power_of_two;
use crate::backend::{Accumulate, FixedPoint};

impl FixedPoint for Cuda {
    fn quantize(
        &mut self,
        values: View<'_, f32>,
        exponent: i32,
        sums: ViewMut<'_, i64>,
        write: Accumulate,
        magnitude: ViewMut<'_, u32>,
    ) {
        let len = values.len;
        same_lengths("quantize", len, [sums.len]);
        assert_ne!(magnitude.len, 0, "quantize: no element for the magnitude");
        let scale = power_of_two(exponent) as f32;
        let is_added = u32::from(write == Accumulate::Add);
        let arguments = [
            (&scale).into(),
            (&is_added).into(),
            (&len).into(),
            (&values).into(),
            (&sums).into(),
            (&magnitude).into(),
        ];
        self.launch(Kernel::Quantize, Grid::quads(len), &arguments);
    }

    fn magnitude(&mut self, values: View<'_, f32>, magnitude: ViewMut<'_, u32>) {
        let len = values.len;
        assert_ne!(magnitude.len, 0, "magnitude: no element to write");
        let arguments = [(&len).into(), (&values).into(), (&magnitude).into()];
        self.launch(Kernel::Magnitude, Grid::quads(len), &arguments);
    }

    fn dequantize(&mut self, sums: View<'_, i64>, exponent: i32, values: ViewMut<'_, f32>) {
        let len = sums.len;
        same_lengths("dequantize", len, [values.len]);
        let unit = power_of_two(-exponent);
        let arguments = [
            (&unit).into(),
            (&len).into(),
            (&sums).into(),
            (&values).into(),
        ];
        self.launch(Kernel::Dequantize, Grid::quads(len), &arguments);
    }

    fn narrow(&mut self, values: View<'_, f32>, narrow: ViewMut<'_, bf16>) {
        let len = values.len;
        same_lengths("narrow", len, [narrow.len]);
        let arguments = [(&len).into(), (&values).into(), (&narrow).into()];
        self.launch(Kernel::Narrow, Grid::quads(len), &arguments);
    }

    fn widen(&mut self, narrow: View<'_, bf16>, values: ViewMut<'_, f32>) {
        let len = narrow.len;
        same_lengths("widen", len, [values.len]);
        let arguments = [(&len).into(), (&narrow).into(), (&values).into()];
        self.launch(Kernel::Widen, Grid::quads(len), &arguments);
    }

    fn move_average(
        &mut self,
        average: ViewMut<'_, f32>,
        momentum: f32,
        sums: View<'_, i64>,
        exponent: i32,
        count: u64,
    ) {
        let len = average.len;
        same_lengths("move_average", len, [sums.len]);
        let rest = 1.0 - momentum;
        let unit = power_of_two(-exponent) / count as f64;
        let arguments = [
            (&momentum).into(),
            (&rest).into(),
            (&unit).into(),
            (&len).into(),
            (&sums).into(),
            (&average).into(),
        ];
        self.launch(Kernel::MoveAverage, Grid::elements(len), &arguments);
    }
}
