//! An Estimator's optimizer: by name, as the Estimator means it, or with all its settings.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::optim::{Adagrad, Adam, EpsilonPlacement, Ftrl, OptimizerSpec, RmsProp, Sgd};

/// The names that stand for an optimizer.
const NAMES: [&str; 5] = ["adagrad", "adam", "ftrl", "rmsprop", "sgd"];

/// An optimizer by name or with its settings.
#[derive(Debug, Clone, PartialEq)]
pub enum OptimizerChoice {
    /// With the Estimator's learning rate, and the constants of `tf.compat.v1.train`.
    Named(&'static str),
    /// As it says, its defaults being Keras's.
    Spec(OptimizerSpec),
}

impl OptimizerChoice {
    /// The optimizer called `name`, one of `adagrad`, `adam`, `ftrl`, `rmsprop` and `sgd`.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn named(name: &str) -> Self {
        Self::find(name).expect("an optimizer that can be named")
    }

    fn find(name: &str) -> Option<Self> {
        NAMES
            .into_iter()
            .find(|known| *known == name)
            .map(Self::Named)
    }

    /// The optimizer, with `rate` for one that is only named.
    pub fn resolve(&self, rate: f64) -> OptimizerSpec {
        let name = match self {
            Self::Spec(spec) => return spec.clone(),
            Self::Named(name) => *name,
        };
        match name {
            "adagrad" => Adagrad {
                learning_rate: rate,
                epsilon: 0.0,
                ..Adagrad::default()
            }
            .into(),
            "adam" => Adam {
                learning_rate: rate,
                epsilon: 1e-8,
                ..Adam::default()
            }
            .into(),
            "ftrl" => Ftrl {
                learning_rate: rate,
                ..Ftrl::default()
            }
            .into(),
            "rmsprop" => RmsProp {
                learning_rate: rate,
                epsilon: 1e-10,
                epsilon_placement: EpsilonPlacement::UnderRoot,
                initial_mean_square: 1.0,
                ..RmsProp::default()
            }
            .into(),
            _ => Sgd {
                learning_rate: rate,
                ..Sgd::default()
            }
            .into(),
        }
    }
}

impl<S: Into<OptimizerSpec>> From<S> for OptimizerChoice {
    fn from(spec: S) -> Self {
        Self::Spec(spec.into())
    }
}

impl Serialize for OptimizerChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => serializer.serialize_str(name),
            Self::Spec(spec) => Serialize::serialize(spec, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for OptimizerChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;

        impl<'de> Visitor<'de> for Choice {
            type Value = OptimizerChoice;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of an optimizer (adagrad, adam, ftrl, rmsprop or sgd) or a table with its kind")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<OptimizerChoice, E> {
                OptimizerChoice::find(name)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(name), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<OptimizerChoice, A::Error> {
                let table = serde::de::value::MapAccessDeserializer::new(table);
                <OptimizerSpec as Deserialize>::deserialize(table).map(OptimizerChoice::Spec)
            }
        }

        deserializer.deserialize_any(Choice)
    }
}
