//! TensorFlow's eight premade Estimators: name the columns, pick a model.
//!
//! Each is a wide-and-deep model with one side or both, a loss by the kind of label, and optimizers of its
//! own. Arguments and defaults are those of `tf.compat.v1.estimator`; what its successor has by default can
//! be set. An optimizer that is only named has the learning rate and the constants that the Estimator gives
//! it; one that is given as a table has Keras's defaults.

mod columns;
mod optimizer;
mod sides;

use std::collections::BTreeSet;

pub use columns::{DnnColumn, Embedding, Indicator, SharedEmbedding};
pub use optimizer::OptimizerChoice;

use sides::{DnnSide, Label, LinearSide, Parts, Which};

use crate::backend::{Backend, Combiner};
use crate::columns::Columns;
use crate::data::{Description, Targets};
use crate::layers::{ActivationSpec, Build, LayerError};
use crate::models::{
    BuildModel, Judge, LossSpec, Model, SigmoidCrossEntropy, SoftmaxCrossEntropy, SquaredError,
    WideDeep, WideDeepSpec,
};
use crate::named::{listed, registry};
use crate::optim::OptimizerSpec;
use crate::range::{size, sizes};

registry! {
    /// An Estimator with its arguments.
    pub enum EstimatorSpec ("an estimator") {
        LinearClassifier(LinearClassifier) = "linear_classifier": "classes from a weighted sum of columns",
        LinearRegressor(LinearRegressor) = "linear_regressor": "numbers from a weighted sum of columns",
        DnnClassifier(DnnClassifier) = "dnn_classifier": "classes from a network of columns",
        DnnRegressor(DnnRegressor) = "dnn_regressor": "numbers from a network of columns",
        DnnLinearCombinedClassifier(DnnLinearCombinedClassifier) = "dnn_linear_combined_classifier":
            "classes from both: wide and deep",
        DnnLinearCombinedRegressor(DnnLinearCombinedRegressor) = "dnn_linear_combined_regressor":
            "numbers from both: wide and deep",
        BaselineClassifier(BaselineClassifier) = "baseline_classifier": "how often each class comes",
        BaselineRegressor(BaselineRegressor) = "baseline_regressor": "the mean of the labels",
    }
}

/// Defines the two Estimators that differ only in what they predict.
macro_rules! pair {
    (
        $(#[$meta:meta])*
        $classifier:ident, $regressor:ident {
            $($(#[$about:meta])* $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $classifier {
            /// Number of classes; for two there is one logit, that of the second.
            #[serde(deserialize_with = "size")]
            pub n_classes: usize,
            $($(#[$about])* pub $field: $type,)*
        }

        impl Default for $classifier {
            fn default() -> Self {
                Self { n_classes: 2, $($field: $default,)* }
            }
        }

        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $regressor {
            /// Numbers in a label.
            #[serde(deserialize_with = "size")]
            pub label_dimension: usize,
            $($(#[$about])* pub $field: $type,)*
        }

        impl Default for $regressor {
            fn default() -> Self {
                Self { label_dimension: 1, $($field: $default,)* }
            }
        }
    };
}

pair! {
    /// A weighted sum of columns; everything starts from zero.
    LinearClassifier, LinearRegressor {
        /// Names of columns; all where it is not said.
        #[serde(skip_serializing_if = "Option::is_none")]
        feature_columns: Option<Vec<String>> = None,
        /// By name, with a learning rate of 0.2.
        optimizer: OptimizerChoice = OptimizerChoice::named("ftrl"),
        /// What several values of a categorical column count.
        sparse_combiner: Combiner = Combiner::Sum,
    }
}

pair! {
    /// A network: for each number of hidden units a dense layer, its activation, dropout and batch
    /// normalisation, then the logits.
    DnnClassifier, DnnRegressor {
        /// Columns as dense numbers, in any order: the network has them in the order of their names. All
        /// where it is not said.
        #[serde(skip_serializing_if = "Option::is_none")]
        feature_columns: Option<Vec<DnnColumn>> = None,
        /// Units of the hidden layers, in forward order.
        #[serde(deserialize_with = "sizes")]
        hidden_units: Vec<usize> = Vec::new(),
        /// By name, with a learning rate of 0.05.
        optimizer: OptimizerChoice = OptimizerChoice::named("adagrad"),
        /// What follows each hidden layer.
        activation_fn: ActivationSpec = ActivationSpec::Relu,
        /// Share of hidden units that is dropped in training.
        #[serde(skip_serializing_if = "Option::is_none")]
        dropout: Option<f32> = None,
        /// Whether hidden layers are normalised over the micro-batch.
        batch_norm: bool = false,
    }
}

pair! {
    /// The sum of a linear model and a network, each stepped by an optimizer of its own from the one loss.
    /// A side whose columns are not said is absent.
    DnnLinearCombinedClassifier, DnnLinearCombinedRegressor {
        /// Names of the linear model's columns.
        #[serde(skip_serializing_if = "Option::is_none")]
        linear_feature_columns: Option<Vec<String>> = None,
        /// By name, with a learning rate of 0.005, or one over the root of the number of columns if that is
        /// less.
        linear_optimizer: OptimizerChoice = OptimizerChoice::named("ftrl"),
        /// What several values of a categorical column count.
        linear_sparse_combiner: Combiner = Combiner::Sum,
        /// The network's columns.
        #[serde(skip_serializing_if = "Option::is_none")]
        dnn_feature_columns: Option<Vec<DnnColumn>> = None,
        /// By name, with a learning rate of 0.001.
        dnn_optimizer: OptimizerChoice = OptimizerChoice::named("adagrad"),
        /// Units of the hidden layers, in forward order.
        #[serde(deserialize_with = "sizes")]
        dnn_hidden_units: Vec<usize> = Vec::new(),
        /// What follows each hidden layer.
        dnn_activation_fn: ActivationSpec = ActivationSpec::Relu,
        /// Share of hidden units that is dropped in training.
        #[serde(skip_serializing_if = "Option::is_none")]
        dnn_dropout: Option<f32> = None,
        /// Whether hidden layers are normalised over the micro-batch.
        batch_norm: bool = false,
    }
}

pair! {
    /// A bias for each logit: what can be known without any column.
    BaselineClassifier, BaselineRegressor {
        /// By name, with a learning rate of 0.3.
        optimizer: OptimizerChoice = OptimizerChoice::named("ftrl"),
    }
}

/// The parts of the Estimators that are on one side.
macro_rules! one_side {
    (linear $spec:expr, $label:expr) => {
        Parts {
            label: $label,
            linear: Some(LinearSide {
                name: "linear",
                columns: Which::or_all(&$spec.feature_columns),
                optimizer: &$spec.optimizer,
                combiner: $spec.sparse_combiner,
                rate: 0.2,
            }),
            dnn: None,
        }
    };
    (dnn $spec:expr, $label:expr) => {
        Parts {
            label: $label,
            linear: None,
            dnn: Some(DnnSide {
                columns: Which::or_all(&$spec.feature_columns),
                optimizer: &$spec.optimizer,
                hidden_units: &$spec.hidden_units,
                activation: $spec.activation_fn,
                dropout: $spec.dropout,
                batch_norm: $spec.batch_norm,
                rate: 0.05,
            }),
        }
    };
    (combined $spec:expr, $label:expr) => {
        Parts {
            label: $label,
            linear: $spec
                .linear_feature_columns
                .as_deref()
                .map(|columns| LinearSide {
                    name: "linear",
                    columns: Which::These(columns),
                    optimizer: &$spec.linear_optimizer,
                    combiner: $spec.linear_sparse_combiner,
                    rate: f64::min(0.005, (columns.len() as f64).sqrt().recip()),
                }),
            dnn: $spec.dnn_feature_columns.as_deref().map(|columns| DnnSide {
                columns: Which::These(columns),
                optimizer: &$spec.dnn_optimizer,
                hidden_units: &$spec.dnn_hidden_units,
                activation: $spec.dnn_activation_fn,
                dropout: $spec.dnn_dropout,
                batch_norm: $spec.batch_norm,
                rate: 0.001,
            }),
        }
    };
    (baseline $spec:expr, $label:expr) => {
        Parts {
            label: $label,
            linear: Some(LinearSide {
                name: "baseline",
                columns: Which::These(&[]),
                optimizer: &$spec.optimizer,
                combiner: Combiner::Sum,
                rate: 0.3,
            }),
            dnn: None,
        }
    };
}

impl EstimatorSpec {
    fn parts(&self) -> Parts<'_> {
        use Label::{Classes, Numbers};
        match self {
            Self::LinearClassifier(spec) => one_side!(linear spec, Classes(spec.n_classes)),
            Self::LinearRegressor(spec) => one_side!(linear spec, Numbers(spec.label_dimension)),
            Self::DnnClassifier(spec) => one_side!(dnn spec, Classes(spec.n_classes)),
            Self::DnnRegressor(spec) => one_side!(dnn spec, Numbers(spec.label_dimension)),
            Self::DnnLinearCombinedClassifier(spec) => {
                one_side!(combined spec, Classes(spec.n_classes))
            }
            Self::DnnLinearCombinedRegressor(spec) => {
                one_side!(combined spec, Numbers(spec.label_dimension))
            }
            Self::BaselineClassifier(spec) => one_side!(baseline spec, Classes(spec.n_classes)),
            Self::BaselineRegressor(spec) => {
                one_side!(baseline spec, Numbers(spec.label_dimension))
            }
        }
    }

    /// What is minimised.
    pub fn loss(&self) -> LossSpec {
        match self.parts().label {
            Label::Classes(2) => SigmoidCrossEntropy::default().into(),
            Label::Classes(_) => SoftmaxCrossEntropy::default().into(),
            Label::Numbers(_) => SquaredError {}.into(),
        }
    }

    /// How the rows of an evaluation are judged.
    pub fn judge(&self) -> Judge {
        match self.parts().label {
            Label::Classes(2) => Judge::Binary,
            Label::Classes(count) => Judge::Classes(count),
            Label::Numbers(count) => Judge::Numbers(count),
        }
    }

    /// What steps the model's sides: the network first.
    pub fn optimizers(&self) -> Vec<OptimizerSpec> {
        let parts = self.parts();
        let dnn = parts.dnn.map(|dnn| dnn.optimizer.resolve(dnn.rate));
        let linear = parts
            .linear
            .map(|linear| linear.optimizer.resolve(linear.rate));
        dnn.into_iter().chain(linear).collect()
    }

    /// How many classes there are, where there are classes.
    pub fn classes(&self) -> Option<usize> {
        match self.parts().label {
            Label::Classes(count) => Some(count),
            Label::Numbers(_) => None,
        }
    }

    /// Names of the columns that are used, each once, in the order in which they are named; `None` for all
    /// that there are.
    pub fn columns(&self) -> Option<Vec<&str>> {
        let parts = self.parts();
        let mut names = Vec::new();
        if let Some(linear) = parts.linear {
            match linear.columns {
                Which::All => return None,
                Which::These(columns) => names.extend(columns.iter().map(String::as_str)),
            }
        }
        if let Some(dnn) = parts.dnn {
            match dnn.columns {
                Which::All => return None,
                Which::These(columns) => names.extend(columns.iter().flat_map(DnnColumn::columns)),
            }
        }
        let mut known = BTreeSet::new();
        names.retain(|name| known.insert(*name));
        Some(names)
    }

    /// Refuses arguments that make no sense, among `columns`; returns the argument's name and what is wrong.
    ///
    /// # Errors
    /// With the first of them.
    pub fn check(&self, columns: Option<&Columns>) -> Result<(), (&'static str, String)> {
        let parts = self.parts();
        match parts.label {
            Label::Classes(..2) => {
                return Err(("n_classes", "expected at least 2 classes".to_owned()));
            }
            Label::Numbers(0) => {
                return Err(("label_dimension", "must be at least 1".to_owned()));
            }
            _ => {}
        }
        let is_combined = matches!(
            self,
            Self::DnnLinearCombinedClassifier(_) | Self::DnnLinearCombinedRegressor(_)
        );
        let named = |combined, alone| if is_combined { combined } else { alone };
        if parts.linear.is_none() && parts.dnn.is_none() {
            let problem = "missing: give columns to one side or to both, by linear_feature_columns and \
                           dnn_feature_columns";
            return Err(("linear_feature_columns", problem.to_owned()));
        }
        let is_baseline = matches!(
            self,
            Self::BaselineClassifier(_) | Self::BaselineRegressor(_)
        );
        let linear = parts.linear.as_ref();
        let nothing = "names no columns; leave it out";
        if !is_baseline && linear.is_some_and(|linear| matches!(linear.columns, Which::These([]))) {
            let argument = named("linear_feature_columns", "feature_columns");
            return Err((argument, nothing.to_owned()));
        }
        let dnn = parts.dnn.as_ref();
        if dnn.is_some_and(|dnn| matches!(dnn.columns, Which::These([]))) {
            let argument = named("dnn_feature_columns", "feature_columns");
            return Err((argument, nothing.to_owned()));
        }
        if let (Some(linear), Some(columns)) = (&parts.linear, columns)
            && let Which::These(names) = linear.columns
        {
            let argument = named("linear_feature_columns", "feature_columns");
            let mut known = BTreeSet::new();
            for name in names {
                columns::find(columns, name).map_err(|problem| (argument, problem))?;
                if !known.insert(name) {
                    return Err((argument, format!("'{name}' is named twice")));
                }
            }
        }
        let Some(dnn) = &parts.dnn else {
            return Ok(());
        };
        let hidden_units = named("dnn_hidden_units", "hidden_units");
        if dnn.hidden_units.contains(&0) {
            let problem = "a layer of 0 units; each needs at least 1";
            return Err((hidden_units, problem.to_owned()));
        }
        if dnn.hidden_units.is_empty() {
            let problem = "missing: the units of each hidden layer, such as [64, 32]";
            return Err((hidden_units, problem.to_owned()));
        }
        if let Some(rate) = dnn.dropout
            && !(0.0..1.0).contains(&rate)
        {
            let problem = format!("expected a share from 0 to below 1, found {rate}");
            return Err((named("dnn_dropout", "dropout"), problem));
        }
        if let Some(columns) = columns {
            let argument = named("dnn_feature_columns", "feature_columns");
            let checked = match dnn.columns {
                Which::All => columns
                    .names()
                    .try_for_each(|name| DnnColumn::Plain(name.to_owned()).check(columns)),
                Which::These(used) => {
                    let mut each = used.iter();
                    each.try_for_each(|column| column.check(columns))
                        .and_then(|()| columns::check_names(used))
                }
            };
            checked.map_err(|problem| (argument, problem))?;
        }
        Ok(())
    }

    /// The model for rows as `data` describes them.
    fn wide_deep(&self, data: &Description) -> Result<WideDeepSpec, LayerError> {
        let parts = self.parts();
        let problem = |problem: String| LayerError::Model { problem };
        let outputs = match (parts.label, &data.targets) {
            (Label::Classes(asked), Targets::Classes(names)) if asked != names.len() => {
                let found = names.len();
                // One class is nothing to tell apart.
                let fewer = match found {
                    0 | 1 => String::new(),
                    _ => format!("set n_classes = {found} in [estimator], or "),
                };
                return Err(problem(format!(
                    "n_classes is {asked}, but the classes of the training data are {found}: {}; {fewer}name \
                     all {asked} by classes in [data]",
                    listed(names)
                )));
            }
            (Label::Numbers(asked), &Targets::Numbers(found)) if asked != found => {
                return Err(problem(format!(
                    "label_dimension is {asked}, but a label has {found} numbers; set \
                     label_dimension = {found} in [estimator]"
                )));
            }
            (Label::Classes(_), Targets::Numbers(_)) => {
                return Err(problem(
                    "labels are numbers, not classes; name classes, or take a regressor".to_owned(),
                ));
            }
            (Label::Classes(2), _) => 1,
            (Label::Classes(count) | Label::Numbers(count), _) => count,
        };
        let wide = match parts.linear {
            Some(linear) => Some(linear.spec(data).map_err(problem)?),
            None => None,
        };
        let deep = match parts.dnn {
            Some(dnn) => Some(dnn.spec(data, outputs).map_err(problem)?),
            None => None,
        };
        Ok(WideDeepSpec { deep, wide })
    }
}

impl BuildModel for EstimatorSpec {
    fn build<B: Backend>(
        &self,
        build: Build<'_, B>,
        data: &Description,
        loss: &LossSpec,
    ) -> Result<Box<dyn Model<B>>, LayerError> {
        let spec = self.wide_deep(data)?;
        Ok(Box::new(WideDeep::new(build, &spec, data, loss)?))
    }
}
