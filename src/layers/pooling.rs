//! The largest or the mean value of windows of an image, or of the whole image.

use super::conv2d::{Pair, Windows, check_sizes, image, too_large};
use super::{Backward, Build, Built, Context, Layer, LayerError, Shape};
use crate::backend::{Backend, Padding, PoolGeometry, Pooling, View, ViewMut};
use crate::onnx::{Attribute, Graph, OnnxError, Value};
use crate::params::Grads;

macro_rules! window_pooling {
    ($(#[$meta:meta])* $name:ident, $pooling:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Its name; by default made from the kind.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub name: Option<String>,
            /// Rows and columns of the window.
            pub pool_size: Pair,
            /// Rows and columns from one window to the next; by default those of the window.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub strides: Option<Pair>,
            /// What happens at the borders.
            pub padding: Padding,
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(2)
            }
        }

        impl $name {
            /// Windows of `pool_size` side by side.
            pub fn new(pool_size: impl Into<Pair>) -> Self {
                Self {
                    name: None,
                    pool_size: pool_size.into(),
                    strides: None,
                    padding: Padding::Valid,
                }
            }

            pub(super) fn build<B: Backend>(
                &self,
                build: &mut Build<'_, B>,
                input: &Shape,
            ) -> Result<Built<B>, LayerError> {
                let image = image(build, input)?;
                let window = self.pool_size.0;
                let strides = self.strides.map_or(window, |strides| strides.0);
                check_sizes(build, "pool_size", &window)?;
                check_sizes(build, "strides", &strides)?;
                let geometry =
                    PoolGeometry::new(build.max_rows, image, window, strides, self.padding)
                        .ok_or_else(|| too_large(build, window, image))?;
                let output = [geometry.out_height, geometry.out_width, geometry.channels];
                Ok(PoolingLayer::built($pooling, geometry, output.into()))
            }
        }
    };
}

window_pooling! {
    /// The largest value of each window, channel by channel.
    MaxPooling2D, Pooling::Max
}

window_pooling! {
    /// The mean of each window, channel by channel; what lies outside the image does not count.
    AveragePooling2D, Pooling::Average
}

macro_rules! global_pooling {
    ($(#[$meta:meta])* $name:ident, $pooling:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Its name; by default made from the kind.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub name: Option<String>,
        }

        impl $name {
            pub(super) fn build<B: Backend>(
                &self,
                build: &mut Build<'_, B>,
                input: &Shape,
            ) -> Result<Built<B>, LayerError> {
                let image = image(build, input)?;
                let window = [image[0], image[1]];
                let rows = build.max_rows;
                let geometry = PoolGeometry::new(rows, image, window, window, Padding::Valid)
                    .ok_or_else(|| too_large(build, window, image))?;
                Ok(PoolingLayer::built($pooling, geometry, [image[2]].into()))
            }
        }
    };
}

global_pooling! {
    /// The largest value of each channel.
    GlobalMaxPooling2D, Pooling::Max
}

global_pooling! {
    /// The mean of each channel.
    GlobalAveragePooling2D, Pooling::Average
}

struct PoolingLayer {
    pooling: Pooling,
    /// For the most rows.
    geometry: PoolGeometry,
    /// Shape of one row: the channels alone where a window is the whole image.
    output: Shape,
}

impl PoolingLayer {
    fn built<B: Backend>(pooling: Pooling, geometry: PoolGeometry, output: Shape) -> Built<B> {
        let layer = Box::new(Self {
            pooling,
            geometry,
            output: output.clone(),
        });
        Built { layer, output }
    }
}

impl<B: Backend> Layer<B> for PoolingLayer {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        _: View<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) {
        let rows = cx.rows;
        let geometry = PoolGeometry {
            rows,
            ..self.geometry
        };
        cx.backend.pool(self.pooling, &geometry, x, y);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        _: View<'_, B>,
        io: Backward<'_, B>,
        _: &mut Grads<'_, B>,
    ) {
        let rows = cx.rows;
        let geometry = PoolGeometry {
            rows,
            ..self.geometry
        };
        if let Some(dx) = io.dx {
            cx.backend
                .pool_backward(self.pooling, &geometry, io.x, io.y, io.dy, dx);
        }
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        if self.output.0.len() == 1 {
            let operator = match self.pooling {
                Pooling::Max => "ReduceMax",
                Pooling::Average => "ReduceMean",
            };
            let attributes = [
                ("axes", Attribute::Ints(x.spatial_axes())),
                ("keepdims", Attribute::Int(0)),
            ];
            return Ok(graph.map(operator, &x, &[], &attributes, &self.output.0));
        }
        let x = graph.channels_first(x);
        let geometry = &self.geometry;
        let windows = Windows {
            image: [geometry.in_height, geometry.in_width],
            window: [geometry.window_height, geometry.window_width],
            strides: [geometry.stride_height, geometry.stride_width],
            before: [geometry.pad_top, geometry.pad_left],
            count: [geometry.out_height, geometry.out_width],
        };
        let mut attributes = windows.attributes();
        let operator = match self.pooling {
            Pooling::Max => "MaxPool",
            Pooling::Average => {
                attributes.push(("count_include_pad", Attribute::Int(0)));
                "AveragePool"
            }
        };
        Ok(graph.map(operator, &x, &[], &attributes, &self.output.0))
    }
}
