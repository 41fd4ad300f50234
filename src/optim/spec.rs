//! The registry of optimizers.

use super::elementwise::{Elementwise, Rule};
use super::lamb::LambOptimizer;
use super::lars::LarsOptimizer;
use super::{Adagrad, Adam, AdamW, Ftrl, Lamb, Lars, Lion, Optimizer, RmsProp, Segment, Sgd};
use crate::backend::{Backend, BackendError};
use crate::named::registry;
use crate::params::Layout;

/// Which rows of a table an optimizer steps, of which a step looks up some; the gradient of the others is
/// zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepsRows {
    /// All: averages decay.
    All,
    /// Those that are looked up, as in TensorFlow: others would be moved by a new rate.
    LookedUp,
    /// Either, with the same bits: a row whose gradient is zero stays as it is.
    Any,
}

registry! {
    /// An optimizer with its settings; defaults are Keras's where Keras has it.
    ///
    /// ```
    /// use ringstep::optim::{Adam, OptimizerSpec};
    /// let spec = OptimizerSpec::from(Adam { beta_1: 0.8, ..Adam::default() });
    /// assert_eq!((spec.name(), spec.learning_rate()), ("adam", 1e-3));
    /// ```
    pub enum OptimizerSpec ("an optimizer") {
        Sgd(Sgd) = "sgd": "gradient descent, with momentum or Nesterov's momentum",
        Adam(Adam) = "adam": "moving averages of the gradient and its square",
        AdamW(AdamW) = "adamw": "adam with weight decay",
        Adagrad(Adagrad) = "adagrad": "divides by the root of the sum of squared gradients",
        RmsProp(RmsProp) = "rmsprop": "divides by the root of the mean squared gradient",
        Ftrl(Ftrl) = "ftrl": "follows the regularised leader; l1 makes weights zero",
        Lamb(Lamb) = "lamb": "adam with steps scaled to each tensor, for large batches",
        Lars(Lars) = "lars": "momentum with steps scaled to each tensor, for large batches",
        Lion(Lion) = "lion": "the sign of an averaged gradient",
    }
}

/// Does `$body` with the settings of whichever kind it is.
macro_rules! each {
    ($self:expr, $spec:ident => $body:expr) => {
        match $self {
            OptimizerSpec::Sgd($spec) => $body,
            OptimizerSpec::Adam($spec) => $body,
            OptimizerSpec::AdamW($spec) => $body,
            OptimizerSpec::Adagrad($spec) => $body,
            OptimizerSpec::RmsProp($spec) => $body,
            OptimizerSpec::Ftrl($spec) => $body,
            OptimizerSpec::Lamb($spec) => $body,
            OptimizerSpec::Lars($spec) => $body,
            OptimizerSpec::Lion($spec) => $body,
        }
    };
}

impl OptimizerSpec {
    /// The learning rate that schedules start from.
    pub fn learning_rate(&self) -> f64 {
        each!(self, spec => spec.learning_rate)
    }

    /// Which rows of a table the rule steps, of which a step looks up some.
    pub fn rows(&self) -> StepsRows {
        match self {
            Self::Sgd(spec) if spec.momentum == 0.0 && spec.weight_decay == 0.0 => StepsRows::Any,
            Self::Adagrad(spec) if spec.weight_decay == 0.0 => StepsRows::Any,
            Self::Ftrl(_) => StepsRows::LookedUp,
            _ => StepsRows::All,
        }
    }

    /// The optimizer for a rank that steps `segments` of `layout`.
    ///
    /// Every step must be given the same segments.
    pub fn build<B: Backend>(
        &self,
        backend: &mut B,
        layout: &Layout,
        segments: &[Segment],
    ) -> Result<Box<dyn Optimizer<B>>, BackendError> {
        match *self {
            Self::Sgd(spec) => elementwise(spec, backend, segments),
            Self::Adam(spec) => elementwise(spec, backend, segments),
            Self::AdamW(spec) => elementwise(Adam::from(spec), backend, segments),
            Self::Adagrad(spec) => elementwise(spec, backend, segments),
            Self::RmsProp(spec) => elementwise(spec, backend, segments),
            Self::Ftrl(spec) => elementwise(spec, backend, segments),
            Self::Lamb(spec) => Ok(Box::new(LambOptimizer::new(
                spec, backend, layout, segments,
            )?)),
            Self::Lars(spec) => Ok(Box::new(LarsOptimizer::new(
                spec, backend, layout, segments,
            )?)),
            Self::Lion(spec) => elementwise(spec, backend, segments),
        }
    }
}

fn elementwise<B: Backend, R: Rule>(
    rule: R,
    backend: &mut B,
    segments: &[Segment],
) -> Result<Box<dyn Optimizer<B>>, BackendError> {
    Ok(Box::new(Elementwise::new(rule, backend, segments)?))
}
