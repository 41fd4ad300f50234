//! From what a user wrote to layers that run: names, parameters, state and buffers.

mod room;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Built, LayerError, RowBuffer, Shape};
use crate::backend::{Backend, BackendError};
use crate::optim::StepsRows;
use crate::params::{Group, Indexed, Initializer, Layout, Tensor, elements};

/// Moving statistics start out at `initial` and keep `momentum` of themselves each step.
#[derive(Debug, Clone, PartialEq)]
pub struct StateTensor {
    /// Unique name, `layer/weight`.
    pub name: String,
    /// Dimensions, row-major.
    pub shape: Vec<usize>,
    /// Its elements in the state arena.
    pub range: Range<usize>,
    /// First value.
    pub initial: f32,
    /// Share of the old value that survives a step.
    pub momentum: f32,
}

/// A built layer as people are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSummary {
    /// Unique name.
    pub name: String,
    /// Name of the kind in the registry.
    pub kind: &'static str,
    /// Layers it lies in: 0 for one of the model's own.
    pub depth: usize,
    /// Shape of one row of its output.
    pub output: Shape,
    /// Number of parameters, those of layers in it included.
    pub parameters: usize,
    /// Number of elements of non-trainable state, those of layers in it included.
    pub state: usize,
}

/// Everything that is collected while a model's layers are built.
pub struct Build<'a, B: Backend> {
    /// Where buffers are allocated.
    pub backend: &'a mut B,
    /// Most rows a micro-batch will have.
    pub max_rows: usize,
    layout: Layout,
    states: Vec<StateTensor>,
    /// Of every layer, with what it is and where its name came from.
    names: BTreeMap<String, String>,
    current: String,
    previous: String,
    keys: u32,
    base: usize,
    summary: Vec<LayerSummary>,
    depth: usize,
    optimizer: usize,
    working_sets: Option<WorkingSets>,
    tables: Vec<Table>,
    /// Whether what is built will be allocated.
    is_allocated: bool,
}

/// What decides whether a table is stepped by the rows that a step touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingSets {
    /// Rows of the largest global batch, or micro-batch of an evaluation.
    pub batch: usize,
    /// What the model's optimizers step.
    pub rows: Vec<StepsRows>,
    /// Whether each rank steps only its shard, as it cannot a working set.
    pub is_sharded: bool,
}

/// A table of which a step touches only some rows: they lie in the arena, and it elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Index of the tensor that is its working set.
    pub tensor: usize,
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// What is looked up.
    pub indexed: Indexed,
}

impl<'a, B: Backend> Build<'a, B> {
    /// An empty model on `backend`, for micro-batches of at most `max_rows` rows.
    pub fn new(backend: &'a mut B, max_rows: usize) -> Self {
        Self {
            backend,
            max_rows,
            layout: Layout::default(),
            states: Vec::new(),
            names: BTreeMap::new(),
            current: "input".to_owned(),
            previous: "input".to_owned(),
            keys: 0,
            base: 0,
            summary: Vec::new(),
            depth: 0,
            optimizer: 0,
            working_sets: None,
            tables: Vec::new(),
            is_allocated: true,
        }
    }

    /// Of a model that is only looked at: how much memory there is does not matter.
    #[must_use]
    pub fn of_any_size(self) -> Self {
        Self {
            is_allocated: false,
            ..self
        }
    }

    /// With tables that are larger than what a step touches kept out of the arena: for training.
    #[must_use]
    pub fn with_working_sets(self, working_sets: WorkingSets) -> Self {
        Self {
            working_sets: Some(working_sets),
            ..self
        }
    }

    /// Gives the parameters that are added from now on to another of the model's optimizers.
    pub fn stepped_by(&mut self, optimizer: usize) {
        self.optimizer = optimizer;
    }

    /// Builds a layer of some kind by `body`: gives it a name, a place in the arena and a line in
    /// the summary. Its name is `chosen`, or made from the kind's as Keras does it: `dense`,
    /// `dense_1`, ..., passing over names that are taken.
    ///
    /// # Errors
    /// If another layer has the chosen name, or those of `body`.
    pub fn layer(
        &mut self,
        kind: &'static str,
        chosen: Option<&str>,
        body: impl FnOnce(&mut Self) -> Result<Built<B>, LayerError>,
    ) -> Result<Built<B>, LayerError> {
        let (layer, output) = self.part(kind, chosen, |build| {
            let Built { layer, output } = body(build)?;
            Ok((layer, output))
        })?;
        Ok(Built { layer, output })
    }

    /// As [`Self::layer`], for what a model runs itself: `body` returns it with the shape of one row of its
    /// output.
    ///
    /// # Errors
    /// As there.
    pub fn part<T>(
        &mut self,
        kind: &'static str,
        chosen: Option<&str>,
        body: impl FnOnce(&mut Self) -> Result<(T, Shape), LayerError>,
    ) -> Result<(T, Shape), LayerError> {
        let enclosing = self.base;
        self.begin(kind, chosen)?;
        let entry = self.summary.len();
        let (tensors, states) = (self.layout.tensors().len(), self.states.len());
        self.summary.push(LayerSummary {
            name: self.current.clone(),
            kind,
            depth: self.depth,
            output: Shape::default(),
            parameters: 0,
            state: 0,
        });
        self.depth += 1;
        let (part, output) = body(self)?;
        self.check_room(&output)?;
        self.depth -= 1;
        self.base = enclosing;
        let own = &self.layout.tensors()[tensors..];
        let summary = &mut self.summary[entry];
        summary.output = output.clone();
        let parameters = |tensor: &Tensor| elements(&tensor.stored_shape());
        summary.parameters = own.iter().map(parameters).fold(0, usize::saturating_add);
        let own = &self.states[states..];
        summary.state = own.iter().map(|state| state.range.len()).sum();
        Ok((part, output))
    }

    /// The layers built so far from their specs, in forward order, each before those in it.
    pub fn summary(&self) -> &[LayerSummary] {
        &self.summary
    }

    fn begin(&mut self, kind: &str, chosen: Option<&str>) -> Result<(), LayerError> {
        let name = match chosen {
            Some(name) => match self.names.get(name) {
                Some(other) => {
                    return Err(LayerError::Name {
                        name: name.to_owned(),
                        kind: kind.to_owned(),
                        other: other.clone(),
                    });
                }
                None => name.to_owned(),
            },
            None => {
                let mut name = kind.to_owned();
                let mut count = 0;
                while self.names.contains_key(&name) {
                    count += 1;
                    name = format!("{kind}_{count}");
                }
                name
            }
        };
        let origin = match chosen {
            Some(_) => format!("a {kind} of that name"),
            None => format!("a {kind} that got it from its kind"),
        };
        self.names.insert(name.clone(), origin);
        self.previous = std::mem::replace(&mut self.current, name);
        self.base = self.layout.end();
        Ok(())
    }

    /// Name of the layer being built.
    pub fn name(&self) -> &str {
        &self.current
    }

    /// A number that no other layer of this model has: the layer's part in random keys.
    pub fn key(&mut self) -> u32 {
        self.keys += 1;
        self.keys
    }

    /// Where the next parameter will start, counted as the ranges of [`Self::parameter`] are. A
    /// composite layer notes it before each child to know the child's place.
    pub fn start(&self) -> usize {
        self.layout.end() - self.base
    }

    /// Adds a parameter `layer/weight`; the range counts from the start of the layer being built,
    /// as the slices do that the layer is handed; outside layers, from the arena's start.
    pub fn parameter(
        &mut self,
        weight: &str,
        shape: &[usize],
        init: Initializer,
        group: Group,
    ) -> Range<usize> {
        let range = self
            .layout
            .push(format!("{}/{weight}", self.current), shape, init, group);
        if let Some(tensor) = self.layout.last_mut() {
            tensor.optimizer = self.optimizer;
        }
        range.start - self.base..range.end - self.base
    }

    /// Adds a parameter `layer/weight` of rows and the elements of one, whose rows are looked up by the
    /// numbers at `slots` of a sample. The range is as of [`Self::parameter`].
    ///
    /// Where the optimizer steps only the rows that a step touches, or need not step others and they are many,
    /// those alone are in the arena. What is looked up there stands behind the numbers of each sample, as
    /// many as `slots` have, from the number on that is returned, counted from the sample's end.
    ///
    /// # Errors
    /// If the optimizer steps only rows that are touched, but each rank only its shard.
    pub fn table(
        &mut self,
        weight: &str,
        [rows, width]: [usize; 2],
        init: Initializer,
        slots: &[Range<usize>],
    ) -> Result<(Range<usize>, Option<usize>), LayerError> {
        let looked_up: usize = slots.iter().map(Range::len).sum();
        let capacity = match &self.working_sets {
            None => None,
            Some(sets) => match (sets.rows[self.optimizer], sets.batch * looked_up) {
                (StepsRows::LookedUp, _) if sets.is_sharded => {
                    return Err(self.argument_error(format!(
                        "the rows of '{weight}' are stepped by ftrl where they are looked up, which zero = 1 \
                         cannot; set zero = 0, or take another optimizer"
                    )));
                }
                (StepsRows::LookedUp, touched) => Some(touched.min(rows)),
                (StepsRows::Any, touched) if touched < rows && !sets.is_sharded => Some(touched),
                (StepsRows::Any | StepsRows::All, _) => None,
            },
        };
        let Some(capacity) = capacity else {
            let range = self.parameter(weight, &[rows, width], init, Group::Decay);
            return Ok((range, None));
        };
        let range = self.parameter(weight, &[capacity, width], init, Group::Decay);
        let place = self.looked_up();
        let tensor = self.layout.tensors().len() - 1;
        if let Some(tensor) = self.layout.last_mut() {
            tensor.rows = Some(rows);
        }
        self.tables.push(Table {
            tensor,
            rows,
            width,
            indexed: Indexed {
                slots: slots.to_vec(),
                capacity,
            },
        });
        Ok((range, Some(place)))
    }

    /// Numbers that stand behind those of a sample: what is looked up in working sets.
    pub fn looked_up(&self) -> usize {
        self.tables.iter().map(|table| table.indexed.len()).sum()
    }

    /// Declares that the gradient of the parameter at `range` of the layer being built is added to once more.
    pub fn tie(&mut self, range: &Range<usize>) {
        self.layout.tie(self.base + range.start);
    }

    /// Adds a state tensor `layer/weight`; the range counts from the state arena's start.
    pub fn state(
        &mut self,
        weight: &str,
        shape: &[usize],
        initial: f32,
        momentum: f32,
    ) -> Range<usize> {
        let start = self.states.last().map_or(0, |state| state.range.end);
        let range = start..start.saturating_add(elements(shape));
        self.states.push(StateTensor {
            name: format!("{}/{weight}", self.current),
            shape: shape.to_vec(),
            range: range.clone(),
            initial,
            momentum,
        });
        range
    }

    /// Memory for `[max_rows, shape]`; `what` names it where there is none.
    ///
    /// # Errors
    /// If the device is too small.
    pub fn rows(
        &mut self,
        what: &'static str,
        shape: &Shape,
    ) -> Result<RowBuffer<B>, BackendError> {
        RowBuffer::new(self.backend, what, self.max_rows, shape.elements())
    }

    /// The error of a layer that cannot take `got`; `needs` is a clause such as "needs
    /// [height, width, channels]".
    pub fn shape_error(&self, needs: impl Into<String>, got: &Shape) -> LayerError {
        LayerError::Shape {
            layer: self.current.clone(),
            needs: needs.into(),
            previous: self.previous.clone(),
            got: got.clone(),
        }
    }

    /// The error of a layer with a senseless argument.
    pub fn argument_error(&self, problem: impl Into<String>) -> LayerError {
        LayerError::Argument {
            layer: self.current.clone(),
            problem: problem.into(),
        }
    }

    /// What was collected: parameters, state, and the tables that are not in the arena.
    pub fn finish(self) -> (Layout, Vec<StateTensor>, Vec<Table>) {
        (self.layout, self.states, self.tables)
    }
}
