//! The largest or the mean value of windows of an image, channels last.

use super::kernels::Kernel;
use super::launch::Grid;
use super::{Cuda, View, ViewMut};
use crate::backend::{Pool, PoolGeometry, Pooling};

impl Pool for Cuda {
    fn pool(
        &mut self,
        pooling: Pooling,
        geometry: &PoolGeometry,
        x: View<'_, f32>,
        y: ViewMut<'_, f32>,
    ) {
        check(geometry, x.len, y.len);
        let kernel = match pooling {
            Pooling::Max => Kernel::MaxPool,
            Pooling::Average => Kernel::AveragePool,
        };
        let geometry = Geometry::from(geometry);
        let arguments = [(&geometry).into(), (&x).into(), (&y).into()];
        self.launch(kernel, Grid::elements(y.len), &arguments);
    }

    fn pool_backward(
        &mut self,
        pooling: Pooling,
        geometry: &PoolGeometry,
        x: View<'_, f32>,
        y: View<'_, f32>,
        dy: ViewMut<'_, f32>,
        dx: ViewMut<'_, f32>,
    ) {
        check(geometry, dx.len, dy.len);
        let grid = Grid::elements(dx.len);
        match pooling {
            Pooling::Max => {
                check(geometry, x.len, y.len);
                let geometry = Geometry::from(geometry);
                let arguments = [
                    (&geometry).into(),
                    (&x).into(),
                    (&y).into(),
                    (&dy).into(),
                    (&dx).into(),
                ];
                self.launch(Kernel::MaxPoolBackward, grid, &arguments);
            }
            Pooling::Average => {
                let geometry = Geometry::from(geometry);
                let arguments = [(&geometry).into(), (&dy).into(), (&dx).into()];
                self.launch(Kernel::AveragePoolBackward, grid, &arguments);
            }
        }
    }
}

fn check(geometry: &PoolGeometry, x: usize, y: usize) {
    assert_eq!(
        x,
        geometry.rows * geometry.in_elements(),
        "length of the input"
    );
    assert_eq!(
        y,
        geometry.rows * geometry.out_elements(),
        "length of the output"
    );
}

/// `Geometry` of `pooling.cu`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Geometry {
    rows: usize,
    in_extents: [usize; 2],
    channels: usize,
    window: [usize; 2],
    strides: [usize; 2],
    padding: [usize; 2],
    out_extents: [usize; 2],
}

impl From<&PoolGeometry> for Geometry {
    fn from(geometry: &PoolGeometry) -> Self {
        Self {
            rows: geometry.rows,
            in_extents: [geometry.in_height, geometry.in_width],
            channels: geometry.channels,
            window: [geometry.window_height, geometry.window_width],
            strides: [geometry.stride_height, geometry.stride_width],
            padding: [geometry.pad_top, geometry.pad_left],
            out_extents: [geometry.out_height, geometry.out_width],
        }
    }
}
