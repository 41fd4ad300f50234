//! Wide and deep (Cheng et al., 2016): a linear model of columns, a network of columns, or their sum.

mod dense_features;
mod export;
mod linear;

use std::ops::Range;

use dense_features::DenseFeaturesLayer;
use linear::LinearLayer;

use super::{Head, LossSpec, MicroBatch, Model, Report, Structure};
use crate::backend::{Backend, Combiner, View, ViewMut};
use crate::data::Description;
use crate::layers::{
    Backward, Build, Context, Layer, LayerError, LayerSpec, RowBuffer, Shape, Stack,
};
use crate::onnx::{Graph, OnnxError, Value};
use crate::params::{GradSink, Grads, Initializer};

/// What a wide-and-deep model computes of rows of encoded columns; at least one side.
#[derive(Debug, Clone, PartialEq)]
pub struct WideDeepSpec {
    /// The network, the last layer of which gives the logits. The model's first optimizer steps it.
    pub deep: Option<DeepSpec>,
    /// The linear model. The model's last optimizer steps it.
    pub wide: Option<LinearSpec>,
}

/// A network of columns.
#[derive(Debug, Clone, PartialEq)]
pub struct DeepSpec {
    /// What the layers are given, one column behind the other.
    pub columns: Vec<DenseColumn>,
    /// The tables that embeddings are looked up in.
    pub embeddings: Vec<EmbeddingTable>,
    /// What is made of that.
    pub layers: Vec<LayerSpec>,
}

/// A linear model of columns: the sum of each number times its weight, of the weight of each category that
/// there is, and of the bias.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearSpec {
    /// Name of its layer.
    pub name: &'static str,
    /// Slots of numbers.
    pub numbers: Vec<Range<usize>>,
    /// Categories by the name of their weights.
    pub categories: Vec<(String, Ids)>,
    /// What several categories of one column count.
    pub combiner: Combiner,
}

/// Where the ids of a categorical column stand in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The ids: whole numbers below `count`, or negative for none.
    pub slots: Range<usize>,
    /// How many ids there are.
    pub count: usize,
    /// Place of the first of as many weights, where there are any.
    pub weights: Option<usize>,
}

/// How a column becomes numbers that a network computes with.
#[derive(Debug, Clone, PartialEq)]
pub enum DenseColumn {
    /// The numbers in these slots.
    Numbers(Range<usize>),
    /// How often each id is there.
    Indicator(Ids),
    /// The vectors of the ids, combined.
    Embedding {
        /// What is looked up.
        ids: Ids,
        /// Where: an index of [`DeepSpec::embeddings`].
        table: usize,
        /// How several vectors become one.
        combiner: Combiner,
    },
}

/// A vector for each id.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingTable {
    /// Name of its weights.
    pub name: String,
    /// Number of ids.
    pub count: usize,
    /// Length of a vector.
    pub dimension: usize,
    /// How the vectors start out.
    pub initializer: Initializer,
}

/// The model.
pub struct WideDeep<B: Backend> {
    deep: Option<Deep<B>>,
    wide: Option<Part<LinearLayer<B>>>,
    logits: RowBuffer<B>,
    head: Head<B>,
    structure: Structure,
}

struct Deep<B: Backend> {
    features: Part<DenseFeaturesLayer<B>>,
    /// What the stack is given.
    input: RowBuffer<B>,
    stack: Stack<B>,
}

/// A layer and where its parameters lie.
struct Part<L> {
    layer: L,
    place: Range<usize>,
}

impl<B: Backend> WideDeep<B> {
    /// Builds the model for rows as `data` describes them.
    ///
    /// # Errors
    /// If the last layer does not give what loss and targets need, or there is no memory.
    pub fn new(
        mut build: Build<'_, B>,
        spec: &WideDeepSpec,
        data: &Description,
        loss: &LossSpec,
    ) -> Result<Self, LayerError> {
        let outputs = Shape::from([loss.outputs(&data.targets)?]);
        let row = data.shape.elements();
        let deep = match &spec.deep {
            Some(deep) => Some(Deep::new(&mut build, deep, row)?),
            None => None,
        };
        let wide = match &spec.wide {
            Some(wide) => {
                build.stepped_by(usize::from(deep.is_some()));
                let start = build.start();
                let layer = LinearLayer::new(&mut build, wide, row, outputs.elements())?;
                let place = start..build.start();
                Some(Part { layer, place })
            }
            None => None,
        };
        let given = deep.as_ref().map_or(&outputs, |deep| deep.stack.shape());
        let head = Head::new(&mut build, loss, &data.targets, given)?;
        let logits = build.rows("logits", &outputs)?;
        let input = Shape::from([row + build.looked_up()]);
        let structure = Structure::new(build, &input, &outputs, head.target_width());
        Ok(Self {
            deep,
            wide,
            logits,
            head,
            structure,
        })
    }

    /// Computes the logits of `x` and lets `use_them`.
    fn run(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        use_them: impl FnOnce(&mut Head<B>, &mut Context<'_, B>, View<'_, B>),
    ) {
        let rows = cx.rows;
        if let Some(Part { layer, place }) = &mut self.wide {
            let own = B::slice(parameters, place.clone());
            layer.forward(cx, own, x, self.logits.view_mut(rows));
        }
        let Some(deep) = &mut self.deep else {
            return use_them(&mut self.head, cx, self.logits.view(rows));
        };
        let outputs = deep.forward(cx, parameters, x);
        if self.wide.is_none() {
            return use_them(&mut self.head, cx, outputs);
        }
        cx.backend.add_assign(outputs, self.logits.view_mut(rows));
        use_them(&mut self.head, cx, self.logits.view(rows));
    }
}

impl<B: Backend> Model<B> for WideDeep<B> {
    fn structure(&self) -> &Structure {
        &self.structure
    }

    fn forward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        report: Report<'_, B>,
    ) {
        self.run(cx, parameters, batch.features, |head, cx, logits| {
            head.forward(cx, logits, batch, report);
        });
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        batch: &MicroBatch<'_, B>,
        sink: &mut dyn GradSink<B>,
    ) {
        let mut grads = Grads::new(sink, 0);
        let mut dy = self.head.gradient(cx.rows);
        // The last in the arena, and it leaves dy as it is.
        if let Some(Part { layer, place }) = &mut self.wide {
            let io = Backward {
                x: B::slice(batch.features, 0..B::len(batch.features)),
                y: self.logits.view(cx.rows),
                dy: B::reborrow(&mut dy),
                dx: None,
            };
            let own = B::slice(parameters, place.clone());
            layer.backward(cx, own, io, &mut grads.child(place.start));
            grads.done(place.start);
        }
        if let Some(deep) = &mut self.deep {
            deep.backward(cx, parameters, batch.features, dy, &mut grads);
        }
        grads.done(0);
    }

    fn logits(&self, rows: usize) -> Option<View<'_, B>> {
        Some(match &self.deep {
            Some(deep) if self.wide.is_none() => deep.stack.output(rows, deep.input.view(rows)),
            _ => self.logits.view(rows),
        })
    }

    fn predict(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        features: View<'_, B>,
        out: ViewMut<'_, B>,
    ) {
        self.run(cx, parameters, features, |head, cx, logits| {
            head.predict(cx, logits, out);
        });
    }

    fn export(&self, graph: &mut Graph<'_>, features: Value) -> Result<Value, OnnxError> {
        let wide = match &self.wide {
            Some(wide) => Some(wide.layer.export_named(graph, features.clone())?),
            None => None,
        };
        let logits = match (&self.deep, wide) {
            (Some(deep), None) => deep.export(graph, features)?,
            (Some(deep), Some(wide)) => {
                let logits = deep.export(graph, features)?;
                graph.sum(logits, &wide)
            }
            (None, Some(wide)) => wide,
            (None, None) => features,
        };
        Ok(self.head.export(graph, logits))
    }
}

impl<B: Backend> Deep<B> {
    fn new(build: &mut Build<'_, B>, spec: &DeepSpec, row: usize) -> Result<Self, LayerError> {
        let start = build.start();
        let layer = DenseFeaturesLayer::new(build, spec, row)?;
        let place = start..build.start();
        let width = Shape::from([layer.width()]);
        Ok(Self {
            features: Part { layer, place },
            input: build.rows("dense features", &width)?,
            stack: Stack::new(build, &spec.layers, &width)?,
        })
    }

    fn forward<'a>(
        &'a mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
    ) -> View<'a, B> {
        let Part { layer, place } = &mut self.features;
        let own = B::slice(parameters, place.clone());
        layer.forward(cx, own, x, self.input.view_mut(cx.rows));
        self.stack.forward(cx, parameters, self.input.view(cx.rows))
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, B>,
        parameters: View<'_, B>,
        x: View<'_, B>,
        dy: ViewMut<'_, B>,
        grads: &mut Grads<'_, B>,
    ) {
        let input = self.input.view(cx.rows);
        let Part { layer, place } = &mut self.features;
        if Range::is_empty(place) {
            return self.stack.backward(cx, parameters, input, dy, grads);
        }
        let dy = self
            .stack
            .backward_to_input(cx, parameters, input, dy, grads);
        let io = Backward {
            x: B::slice(x, 0..B::len(x)),
            y: input,
            dy,
            dx: None,
        };
        let own = B::slice(parameters, place.clone());
        layer.backward(cx, own, io, &mut grads.child(place.start));
    }

    fn export(&self, graph: &mut Graph<'_>, features: Value) -> Result<Value, OnnxError> {
        let input = self.features.layer.export_named(graph, features)?;
        self.stack.export(graph, input)
    }
}
