//! What the eight Estimators have in common: a linear side, a network, and what they are built of.

use std::ops::Range;

use super::columns::{self, DnnColumn};
use super::optimizer::OptimizerChoice;
use crate::backend::Combiner;
use crate::columns::Values;
use crate::data::Description;
use crate::layers::{ActivationSpec, BatchNorm, Dense, Dropout, LayerSpec};
use crate::models::{DeepSpec, DenseColumn, LinearSpec};

/// What an Estimator is, whichever it is.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) label: Label,
    pub(super) linear: Option<LinearSide<'a>>,
    pub(super) dnn: Option<DnnSide<'a>>,
}

/// What is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Classes(usize),
    Numbers(usize),
}

#[derive(Debug)]
pub(super) struct LinearSide<'a> {
    pub(super) name: &'static str,
    pub(super) columns: Which<'a, String>,
    pub(super) optimizer: &'a OptimizerChoice,
    pub(super) combiner: Combiner,
    /// Learning rate of an optimizer that is only named.
    pub(super) rate: f64,
}

#[derive(Debug)]
pub(super) struct DnnSide<'a> {
    pub(super) columns: Which<'a, DnnColumn>,
    pub(super) optimizer: &'a OptimizerChoice,
    pub(super) hidden_units: &'a [usize],
    pub(super) activation: ActivationSpec,
    pub(super) dropout: Option<f32>,
    pub(super) batch_norm: bool,
    pub(super) rate: f64,
}

/// Which columns a side has.
#[derive(Debug)]
pub(super) enum Which<'a, T> {
    All,
    These(&'a [T]),
}

impl<'a, T> Which<'a, T> {
    pub(super) fn or_all(columns: &'a Option<Vec<T>>) -> Self {
        columns.as_deref().map_or(Self::All, Self::These)
    }
}

impl LinearSide<'_> {
    pub(super) fn spec(&self, data: &Description) -> Result<LinearSpec, String> {
        let mut spec = LinearSpec {
            name: self.name,
            numbers: Vec::new(),
            categories: Vec::new(),
            combiner: self.combiner,
        };
        let Some(encoding) = &data.encoding else {
            match self.columns {
                Which::All => spec.numbers.push(whole_row(data)),
                Which::These([]) => {}
                Which::These(_) => return Err(no_columns()),
            }
            return Ok(spec);
        };
        let all: Vec<String>;
        let names = match self.columns {
            Which::These(names) => names,
            Which::All => {
                all = encoding
                    .columns
                    .iter()
                    .map(|column| column.name.clone())
                    .collect();
                &all
            }
        };
        for name in names {
            let column = columns::encoded(encoding, name)?;
            match column.values {
                Values::Numbers => spec.numbers.push(column.slots.clone()),
                Values::Ids { .. } | Values::Weighted { .. } => {
                    spec.categories.push((name.clone(), columns::ids(column)?));
                }
            }
        }
        Ok(spec)
    }
}

impl DnnSide<'_> {
    pub(super) fn spec(&self, data: &Description, outputs: usize) -> Result<DeepSpec, String> {
        let (columns, embeddings) = match (&data.encoding, &self.columns) {
            (None, Which::These(_)) => return Err(no_columns()),
            (None, Which::All) => (vec![DenseColumn::Numbers(whole_row(data))], Vec::new()),
            (Some(encoding), Which::These(used)) => columns::dense(encoding, used)?,
            (Some(encoding), Which::All) => {
                let names = encoding.columns.iter().map(|column| column.name.clone());
                columns::dense(encoding, &names.map(DnnColumn::Plain).collect::<Vec<_>>())?
            }
        };
        Ok(DeepSpec {
            columns,
            embeddings,
            layers: self.layers(outputs),
        })
    }

    fn layers(&self, outputs: usize) -> Vec<LayerSpec> {
        let mut layers = Vec::new();
        for (index, &units) in self.hidden_units.iter().enumerate() {
            layers.push(LayerSpec::from(Dense {
                name: Some(format!("hiddenlayer_{index}")),
                ..Dense::new(units).activation(self.activation)
            }));
            if let Some(rate) = self.dropout {
                layers.push(Dropout::new(rate).into());
            }
            if self.batch_norm {
                layers.push(LayerSpec::from(BatchNorm {
                    name: Some(format!("batchnorm_{index}")),
                    momentum: 0.999,
                    ..BatchNorm::default()
                }));
            }
        }
        layers.push(LayerSpec::from(Dense {
            name: Some("logits".to_owned()),
            ..Dense::new(outputs)
        }));
        layers
    }
}

fn no_columns() -> String {
    "columns are named, but the data have none; describe them in [columns]".to_owned()
}

/// All features, of data without named columns.
fn whole_row(data: &Description) -> Range<usize> {
    0..data.shape.elements()
}
