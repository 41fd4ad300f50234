//! Two-dimensional convolution, channels last.

use std::iter;
use std::ops::Range;

use super::activation::Epilogue;
use super::dense::{glorot_uniform, yes, zeros};
use super::{ActivationSpec, Backward, Build, Built, Context, Layer, LayerError, Shape};
use crate::backend::{Backend, ConvGeometry, Convolution, Padding, View, ViewMut};
use crate::onnx::{Attribute, Graph, OnnxError, Value};
use crate::params::{Grads, Group, Initializer};
use crate::range::{check_size, size};

/// A number for rows and one for columns; one number alone stands for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "OneOrTwo")]
pub struct Pair(pub [usize; 2]);

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "a whole number, or two: [rows, columns]")]
enum OneOrTwo {
    One(usize),
    Two([usize; 2]),
}

impl TryFrom<OneOrTwo> for Pair {
    type Error = String;

    fn try_from(given: OneOrTwo) -> Result<Self, String> {
        let sizes = match given {
            OneOrTwo::One(both) => [both; 2],
            OneOrTwo::Two(each) => each,
        };
        for size in sizes {
            check_size(size)?;
        }
        Ok(Self(sizes))
    }
}

impl From<usize> for Pair {
    fn from(both: usize) -> Self {
        Self([both; 2])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(each: [usize; 2]) -> Self {
        Self(each)
    }
}

/// Every output from a window of the image: `activation(x * kernel + bias)`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2D {
    /// Its name; by default made from the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Channels of the output.
    #[serde(deserialize_with = "size")]
    pub filters: usize,
    /// Rows and columns of the window.
    pub kernel_size: Pair,
    /// Rows and columns from one window to the next.
    #[serde(default = "one")]
    pub strides: Pair,
    /// What happens at the borders.
    #[serde(default)]
    pub padding: Padding,
    /// What follows.
    #[serde(default)]
    pub activation: ActivationSpec,
    /// Whether a bias is added.
    #[serde(default = "yes")]
    pub use_bias: bool,
    /// How the kernel starts out.
    #[serde(default = "glorot_uniform")]
    pub kernel_initializer: Initializer,
    /// How the bias starts out.
    #[serde(default = "zeros")]
    pub bias_initializer: Initializer,
}

fn one() -> Pair {
    1.into()
}

impl Conv2D {
    /// `filters` windows of `kernel_size`, everything else by default.
    pub fn new(filters: usize, kernel_size: impl Into<Pair>) -> Self {
        Self {
            name: None,
            filters,
            kernel_size: kernel_size.into(),
            strides: one(),
            padding: Padding::Valid,
            activation: ActivationSpec::Linear,
            use_bias: true,
            kernel_initializer: glorot_uniform(),
            bias_initializer: zeros(),
        }
    }

    /// With another activation.
    #[must_use]
    pub fn activation(self, activation: ActivationSpec) -> Self {
        Self { activation, ..self }
    }

    /// With other borders.
    #[must_use]
    pub fn padding(self, padding: Padding) -> Self {
        Self { padding, ..self }
    }

    /// With other strides.
    #[must_use]
    pub fn strides(self, strides: impl Into<Pair>) -> Self {
        let strides = strides.into();
        Self { strides, ..self }
    }

    pub(super) fn build<B: Backend>(
        &self,
        build: &mut Build<'_, B>,
        input: &Shape,
    ) -> Result<Built<B>, LayerError> {
        let image = image(build, input)?;
        check_sizes(build, "filters", &[self.filters])?;
        let (window, strides) = (self.kernel_size.0, self.strides.0);
        check_sizes(build, "kernel_size", &window)?;
        check_sizes(build, "strides", &strides)?;
        let rows = build.max_rows;
        let geometry = ConvGeometry::new(rows, image, self.filters, window, strides, self.padding)
            .ok_or_else(|| too_large(build, window, image))?;
        let kernel = self.kernel_initializer.clone();
        let shape = [window[0], window[1], geometry.in_channels, self.filters];
        let kernel = build.parameter("kernel", &shape, kernel, Group::Decay);
        let bias = self.use_bias.then(|| {
            let initializer = self.bias_initializer.clone();
            build.parameter("bias", &[self.filters], initializer, Group::NoDecay)
        });
        let output = Shape::from([geometry.out_height, geometry.out_width, self.filters]);
        build.check_room(&output)?;
        let workspace = build.backend.convolution_workspace(&geometry);
        let layer = Conv2DLayer {
            kernel,
            bias,
            geometry,
            epilogue: Epilogue::new(self.activation, build, output.elements(), self.filters)?,
            workspace: build.backend.allocate("a convolution", workspace)?,
        };
        Ok(Built {
            layer: Box::new(layer),
            output,
        })
    }
}

/// The extents of an image.
pub(super) fn image<B: Backend>(
    build: &Build<'_, B>,
    input: &Shape,
) -> Result<[usize; 3], LayerError> {
    let image = <[usize; 3]>::try_from(input.0.as_slice());
    image
        .ok()
        .filter(|extents| !extents.contains(&0))
        .ok_or_else(|| build.shape_error("needs [height, width, channels]", input))
}

/// Refuses zeros and what no image has.
pub(super) fn check_sizes<B: Backend>(
    build: &Build<'_, B>,
    argument: &str,
    values: &[usize],
) -> Result<(), LayerError> {
    if values.contains(&0) {
        let problem = format!("{argument} is 0, but must be at least 1");
        return Err(build.argument_error(problem));
    }
    let mut values = values.iter();
    let checked = values.try_for_each(|&value| check_size(value).map(drop));
    checked.map_err(|problem| build.argument_error(format!("{argument}: {problem}")))
}

/// The error of a window that does not fit an image.
pub(super) fn too_large<B: Backend>(
    build: &Build<'_, B>,
    window: [usize; 2],
    image: [usize; 3],
) -> LayerError {
    build.argument_error(format!(
        "a window of {} x {} is larger than the image of {} x {}; make it smaller or use padding \
         = \"same\"",
        window[0], window[1], image[0], image[1]
    ))
}

struct Conv2DLayer<B: Backend> {
    kernel: Range<usize>,
    bias: Option<Range<usize>>,
    /// For the most rows.
    geometry: ConvGeometry,
    epilogue: Epilogue<B>,
    workspace: B::Buffer<f32>,
}

impl<B: Backend> Layer<B> for Conv2DLayer<B> {
    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        y: ViewMut<'_, B>,
    ) {
        let rows = cx.rows;
        let geometry = ConvGeometry {
            rows,
            ..self.geometry
        };
        let kernel = B::slice(parameters, self.kernel.clone());
        let bias = self.bias.clone().map(|bias| B::slice(parameters, bias));
        let x = B::slice(x, 0..B::len(x));
        let tensors = Convolution { x, kernel, bias };
        let workspace = B::view_mut(&mut self.workspace);
        self.epilogue
            .forward(cx.backend, y, |backend, activation, y| {
                backend.convolve(&geometry, activation, tensors, y, workspace);
            });
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        mut io: Backward<'_, B>,
        grads: &mut Grads<'_, B>,
    ) {
        let rows = cx.rows;
        let geometry = ConvGeometry {
            rows,
            ..self.geometry
        };
        self.epilogue
            .backward(cx.backend, io.y, B::reborrow(&mut io.dy));
        let dz = B::shared(&io.dy);
        if let Some(bias) = &self.bias {
            let (gradient, write) = grads.tensor(bias);
            cx.backend
                .sum_rows(geometry.out_channels, dz, gradient, write);
        }
        let (gradient, write) = grads.tensor(&self.kernel);
        let workspace = B::view_mut(&mut self.workspace);
        cx.backend
            .convolve_backward_kernel(&geometry, io.x, dz, gradient, write, workspace);
        if let Some(dx) = io.dx {
            let kernel = B::slice(parameters, self.kernel.clone());
            let workspace = B::view_mut(&mut self.workspace);
            cx.backend
                .convolve_backward_input(&geometry, kernel, dz, dx, workspace);
        }
    }

    fn export(&self, graph: &mut Graph<'_>, x: Value) -> Result<Value, OnnxError> {
        let x = graph.channels_first(x);
        let kernel = graph.kernel("kernel");
        let bias = self.bias.as_ref().map(|_| graph.weight("bias"));
        let others: Vec<&str> = iter::once(kernel.as_str()).chain(bias.as_deref()).collect();
        let geometry = &self.geometry;
        let windows = Windows {
            image: [geometry.in_height, geometry.in_width],
            window: [geometry.kernel_height, geometry.kernel_width],
            strides: [geometry.stride_height, geometry.stride_width],
            before: [geometry.pad_top, geometry.pad_left],
            count: [geometry.out_height, geometry.out_width],
        };
        let shape = [
            geometry.out_height,
            geometry.out_width,
            geometry.out_channels,
        ];
        let sum = graph.map("Conv", &x, &others, &windows.attributes(), &shape);
        Ok(self.epilogue.export(graph, sum))
    }
}

/// How windows lie over an image, for rows and columns.
pub(super) struct Windows {
    /// Extents of the image.
    pub(super) image: [usize; 2],
    /// Extents of a window.
    pub(super) window: [usize; 2],
    /// From one window to the next.
    pub(super) strides: [usize; 2],
    /// How much of the first window lies before the image.
    pub(super) before: [usize; 2],
    /// Number of windows.
    pub(super) count: [usize; 2],
}

impl Windows {
    /// As ONNX's operators on windows are told of them.
    pub(super) fn attributes(&self) -> Vec<(&'static str, Attribute)> {
        let after = |dimension: usize| {
            let covered =
                (self.count[dimension] - 1) * self.strides[dimension] + self.window[dimension];
            covered.saturating_sub(self.before[dimension] + self.image[dimension])
        };
        let pads = [self.before, [after(0), after(1)]].concat();
        let ints =
            |sizes: &[usize]| Attribute::Ints(sizes.iter().map(|&size| size as i64).collect());
        vec![
            ("kernel_shape", ints(&self.window)),
            ("strides", ints(&self.strides)),
            ("pads", ints(&pads)),
        ]
    }
}
