//! One layer on its own: run on the CPU, compared with golden numbers and with finite differences.

use std::ops::Range;

use ringstep::backend::Accumulate;
use ringstep::backend::cpu::Cpu;
use ringstep::layers::{Backward, Build, Context, Layer, LayerSpec, Mode, Shape, StateTensor};
use ringstep::params::{GradSink, Grads, Layout, Tensor};
use ringstep::random::Stream;

use crate::golden::{self, assert_near};

/// A built layer with its parameters and state.
pub(crate) struct OneLayer {
    cpu: Cpu,
    layer: Box<dyn Layer<Cpu>>,
    layout: Layout,
    states: Vec<StateTensor>,
    output: Shape,
    rows: usize,
    parameters: Vec<f32>,
    state: Vec<f32>,
    statistics: Vec<f32>,
}

/// A gradient arena that checks how it is finished.
struct Sink {
    gradient: Vec<f32>,
    write: Accumulate,
    watermark: usize,
    finished: Vec<usize>,
}

/// What a backward pass hands out.
pub(crate) struct Gradients {
    /// Of the input, where asked.
    pub(crate) dx: Option<Vec<f32>>,
    /// Of the parameters, laid out like them.
    pub(crate) parameters: Vec<f32>,
    /// From where on the gradient was finished, call by call.
    pub(crate) finished: Vec<usize>,
}

impl GradSink<Cpu> for Sink {
    fn grads(&mut self, range: Range<usize>) -> (&mut [f32], Accumulate) {
        assert!(
            range.end <= self.watermark,
            "a finished gradient is written"
        );
        (&mut self.gradient[range], self.write)
    }

    fn done(&mut self, from: usize) {
        assert!(from <= self.watermark, "a gradient is finished twice");
        self.watermark = from;
        self.finished.push(from);
    }
}

impl OneLayer {
    /// Builds `spec` for micro-batches of `rows` rows of shape `input`. Parameters start out as
    /// small normal numbers, so that no bias is zero.
    pub(crate) fn new(spec: impl Into<LayerSpec>, input: &[usize], rows: usize) -> Self {
        let mut cpu = Cpu::new();
        let mut build = Build::new(&mut cpu, rows);
        let built = spec
            .into()
            .build(&mut build, &Shape(input.to_vec()))
            .unwrap();
        let (layout, states, _) = build.finish();
        let mut parameters = vec![0.0; layout.end()];
        for tensor in layout.tensors() {
            parameters[tensor.range()].copy_from_slice(&normal(&tensor.name, tensor.len()));
        }
        let ends = states.iter().map(|state| state.range.end);
        let mut state = vec![0.0; ends.max().unwrap_or(0)];
        for tensor in &states {
            state[tensor.range.clone()].fill(tensor.initial);
        }
        Self {
            cpu,
            layer: built.layer,
            output: built.output,
            rows,
            parameters,
            statistics: vec![0.0; state.len()],
            state,
            layout,
            states,
        }
    }

    /// The next passes have this many rows.
    pub(crate) fn rows(&mut self, rows: usize) {
        self.rows = rows;
    }

    /// Shape of one row of output.
    pub(crate) fn output(&self) -> &Shape {
        &self.output
    }

    /// Sets the parameter or state tensor `layer/weight`.
    pub(crate) fn set(&mut self, weight: &str, values: &[f32]) {
        if let Some(state) = self.states.iter().find(|state| is(&state.name, weight)) {
            return self.state[state.range.clone()].copy_from_slice(values);
        }
        let range = self.tensor(weight).range();
        self.parameters[range].copy_from_slice(values);
    }

    fn tensor(&self, weight: &str) -> &Tensor {
        let mut tensors = self.layout.tensors().iter();
        tensors
            .find(|tensor| is(&tensor.name, weight))
            .unwrap_or_else(|| panic!("no weight {weight}"))
    }

    /// The part of the arena `gradients` that belongs to `layer/weight`.
    pub(crate) fn part<'a>(&self, gradients: &'a [f32], weight: &str) -> &'a [f32] {
        &gradients[self.tensor(weight).range()]
    }

    /// The output for `x`.
    pub(crate) fn forward(&mut self, mode: Mode, x: &[f32]) -> Vec<f32> {
        let mut y = vec![f32::NAN; self.rows * self.output.elements()];
        if self.layer.is_view() {
            return x.to_vec();
        }
        let mut cx = context(
            &mut self.cpu,
            mode,
            self.rows,
            &self.state,
            &mut self.statistics,
        );
        self.layer.forward(&mut cx, &self.parameters, x, &mut y);
        y
    }

    /// The gradients of input and parameters for that of `y`; added to ones where `write` says so.
    pub(crate) fn backward(
        &mut self,
        (mode, write): (Mode, Accumulate),
        x: &[f32],
        y: &[f32],
        dy: &[f32],
        needs_dx: bool,
    ) -> Gradients {
        if self.layer.is_view() {
            return Gradients {
                dx: Some(dy.to_vec()),
                parameters: Vec::new(),
                finished: Vec::new(),
            };
        }
        let (mut dx, mut dy) = (vec![f32::NAN; x.len()], dy.to_vec());
        let mut sink = Sink {
            gradient: vec![1.0; self.layout.end()],
            write,
            watermark: self.layout.end(),
            finished: Vec::new(),
        };
        let mut cx = context(
            &mut self.cpu,
            mode,
            self.rows,
            &self.state,
            &mut self.statistics,
        );
        let io = Backward {
            x,
            y,
            dy: dy.as_mut_slice(),
            dx: needs_dx.then_some(dx.as_mut_slice()),
        };
        self.layer
            .backward(&mut cx, &self.parameters, io, &mut Grads::new(&mut sink, 0));
        Gradients {
            dx: needs_dx.then_some(dx),
            parameters: sink.gradient,
            finished: sink.finished,
        }
    }

    /// The state after a step over this micro-batch alone.
    pub(crate) fn next_state(&self, weight: &str) -> Vec<f32> {
        let mut states = self.states.iter();
        let tensor = states.find(|state| is(&state.name, weight)).unwrap();
        let old = &self.state[tensor.range.clone()];
        let sums = &self.statistics[tensor.range.clone()];
        let next = |(old, sum): (&f32, &f32)| {
            tensor.momentum * old + (1.0 - tensor.momentum) * sum / self.rows as f32
        };
        old.iter().zip(sums).map(next).collect()
    }
}

fn is(name: &str, weight: &str) -> bool {
    name.rsplit('/').next() == Some(weight)
}

fn context<'a>(
    backend: &'a mut Cpu,
    mode: Mode,
    rows: usize,
    state: &'a [f32],
    statistics: &'a mut [f32],
) -> Context<'a, Cpu> {
    Context {
        backend,
        mode,
        rows,
        seed: 7,
        step: 3,
        first_sample: 11,
        state,
        statistics,
    }
}

/// `len` normal numbers of standard deviation one half, the same every time.
pub(crate) fn normal(purpose: &str, len: usize) -> Vec<f32> {
    let mut stream = Stream::new(1, purpose);
    (0..len).map(|_| 0.5 * stream.normal() as f32).collect()
}

/// Compares a layer's output, gradients and moving statistics with the golden case `name`.
pub(crate) fn check_golden(name: &str, spec: impl Into<LayerSpec>) {
    const TOLERANCE: f64 = 1e-5;
    let case = golden::layer(name);
    let mode = if case.training {
        Mode::Train
    } else {
        Mode::Infer
    };
    let mut layer = OneLayer::new(spec, &case.x.shape[1..], case.x.shape[0]);
    for (weight, tensor) in &case.weights {
        layer.set(weight, &tensor.data);
    }
    let y = layer.forward(mode, &case.x.data);
    assert_eq!(layer.output().0, case.y.shape[1..], "{name}: output shape");
    assert_near(&format!("{name}: output"), &y, &case.y.data, TOLERANCE);
    for (weight, after) in &case.weights_after {
        let what = format!("{name}: {weight} afterwards");
        if case.training {
            assert_near(&what, &layer.next_state(weight), &after.data, TOLERANCE);
        }
    }
    let how = (mode, Accumulate::Set);
    let needs_dx = case.dx.is_some();
    let gradients = layer.backward(how, &case.x.data, &y, &case.upstream.data, needs_dx);
    if let (Some(dx), Some(want)) = (&gradients.dx, &case.dx) {
        assert_near(&format!("{name}: dx"), dx, &want.data, TOLERANCE);
    }
    for (weight, want) in &case.dw {
        let got = layer.part(&gradients.parameters, weight);
        assert_near(&format!("{name}: d{weight}"), got, &want.data, TOLERANCE);
    }
}

/// Compares the gradients of `layer` at `x` with central differences of the sum of its outputs,
/// each times a fixed random number, in training mode: at most 1e-2 of the largest, because outputs
/// are single precision. Keep `x` away from kinks by more than [`STEP`].
pub(crate) fn check_finite_differences(layer: &mut OneLayer, x: &[f32], needs_dx: bool) {
    let dy = normal("upstream", layer.rows * layer.output.elements());
    let y = layer.forward(Mode::Train, x);
    let set = (Mode::Train, Accumulate::Set);
    let gradients = layer.backward(set, x, &y, &dy, needs_dx);
    let (dx, gradients) = (gradients.dx, gradients.parameters);

    let add = (Mode::Train, Accumulate::Add);
    let added = layer.backward(add, x, &y, &dy, needs_dx).parameters;
    for tensor in layer.layout.tensors() {
        let more: Vec<f32> = gradients[tensor.range()].iter().map(|g| g + 1.0).collect();
        assert_near(&tensor.name, &added[tensor.range()], &more, 1e-6);
    }

    let value = |layer: &mut OneLayer, x: &[f32]| -> f64 {
        let y = layer.forward(Mode::Train, x);
        let terms = y.iter().zip(&dy);
        terms.map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum()
    };
    if let Some(dx) = dx {
        let mut x = x.to_vec();
        let numeric: Vec<f32> = (0..x.len())
            .map(|i| {
                let at = x[i];
                let mut moved = |to: f32| {
                    x[i] = to;
                    value(layer, &x)
                };
                let slope = (moved(at + STEP) - moved(at - STEP)) / f64::from(2.0 * STEP);
                x[i] = at;
                slope as f32
            })
            .collect();
        assert_near("dx", &dx, &numeric, 1e-2);
    }
    for tensor in layer.layout.tensors().to_vec() {
        let numeric: Vec<f32> = tensor
            .range()
            .map(|i| {
                let at = layer.parameters[i];
                let mut moved = |to: f32| {
                    layer.parameters[i] = to;
                    value(layer, x)
                };
                let slope = (moved(at + STEP) - moved(at - STEP)) / f64::from(2.0 * STEP);
                layer.parameters[i] = at;
                slope as f32
            })
            .collect();
        assert_near(&tensor.name, &gradients[tensor.range()], &numeric, 1e-2);
    }
}

/// How far values are moved for a central difference: far enough that single precision does not
/// drown the slope, near enough that curvature does not bend it.
pub(crate) const STEP: f32 = 1e-2;
