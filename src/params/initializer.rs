//! How parameters start out: Keras's initialisers.

use crate::named::registry;
use crate::random::Stream;

registry! {
    /// How a tensor's first values are drawn.
    ///
    /// `fan_in` and `fan_out` are the numbers of inputs and outputs an element is connected to: the
    /// last two dimensions times all before them.
    pub enum Initializer ("an initialiser") {
        Zeros(Zeros) = "zeros": "0",
        Ones(Ones) = "ones": "1",
        Constant(Constant) = "constant": "the same value everywhere",
        GlorotUniform(GlorotUniform) = "glorot_uniform": "uniform, variance 2 / (fan_in + fan_out)",
        GlorotNormal(GlorotNormal) = "glorot_normal": "truncated normal, variance 2 / (fan_in + fan_out)",
        HeUniform(HeUniform) = "he_uniform": "uniform, variance 2 / fan_in",
        HeNormal(HeNormal) = "he_normal": "truncated normal, variance 2 / fan_in",
        LecunUniform(LecunUniform) = "lecun_uniform": "uniform, variance 1 / fan_in",
        LecunNormal(LecunNormal) = "lecun_normal": "truncated normal, variance 1 / fan_in",
        RandomUniform(RandomUniform) = "random_uniform": "uniform between two bounds",
        RandomNormal(RandomNormal) = "random_normal": "normal",
        TruncatedNormal(TruncatedNormal) = "truncated_normal":
            "normal, drawn again beyond two standard deviations",
    }
}

macro_rules! without_settings {
    ($($name:ident)+) => {$(
        /// See [`Initializer`].
        #[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {}
    )+};
}

without_settings! {
    Zeros Ones GlorotUniform GlorotNormal HeUniform HeNormal LecunUniform LecunNormal
}

/// The same value everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// The value.
    #[serde(deserialize_with = "crate::range::finite")]
    pub value: f64,
}

/// Uniform between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomUniform {
    /// Lower bound.
    #[serde(deserialize_with = "crate::range::finite")]
    pub min: f64,
    /// Upper bound.
    #[serde(deserialize_with = "crate::range::finite")]
    pub max: f64,
}

impl Default for RandomUniform {
    fn default() -> Self {
        Self {
            min: -0.05,
            max: 0.05,
        }
    }
}

/// Normal.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomNormal {
    /// Mean.
    #[serde(deserialize_with = "crate::range::finite")]
    pub mean: f64,
    /// Standard deviation.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub stddev: f64,
}

impl Default for RandomNormal {
    fn default() -> Self {
        Self {
            mean: 0.0,
            stddev: 0.05,
        }
    }
}

/// Normal, drawn again beyond two standard deviations.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TruncatedNormal {
    /// Mean.
    #[serde(deserialize_with = "crate::range::finite")]
    pub mean: f64,
    /// Standard deviation before truncation.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub stddev: f64,
}

impl Default for TruncatedNormal {
    fn default() -> Self {
        Self {
            mean: 0.0,
            stddev: 0.05,
        }
    }
}

/// Standard deviation of a standard normal truncated at 2.
const TRUNCATED_DEVIATION: f64 = 0.879_625_661_034_239_8;

impl Initializer {
    /// Fills the tensor `name` of `shape`. The values depend on nothing else but the seed.
    pub fn fill(&self, seed: u64, name: &str, shape: &[usize], values: &mut [f32]) {
        let mut stream = Stream::new(seed, name);
        let (fan_in, fan_out) = fans(shape);
        let mut draw: Box<dyn FnMut() -> f64> = match *self {
            Self::Zeros(_) => Box::new(|| 0.0),
            Self::Ones(_) => Box::new(|| 1.0),
            Self::Constant(Constant { value }) => Box::new(move || value),
            Self::GlorotUniform(_) => uniform(stream, 2.0 / (fan_in + fan_out)),
            Self::GlorotNormal(_) => normal(stream, 2.0 / (fan_in + fan_out)),
            Self::HeUniform(_) => uniform(stream, 2.0 / fan_in),
            Self::HeNormal(_) => normal(stream, 2.0 / fan_in),
            Self::LecunUniform(_) => uniform(stream, 1.0 / fan_in),
            Self::LecunNormal(_) => normal(stream, 1.0 / fan_in),
            Self::RandomUniform(RandomUniform { min, max }) => {
                Box::new(move || min + (max - min) * stream.uniform())
            }
            Self::RandomNormal(RandomNormal { mean, stddev }) => {
                Box::new(move || mean + stddev * stream.normal())
            }
            Self::TruncatedNormal(TruncatedNormal { mean, stddev }) => {
                Box::new(move || mean + stddev * stream.truncated_normal())
            }
        };
        values.fill_with(|| draw() as f32);
    }
}

fn uniform(mut stream: Stream, variance: f64) -> Box<dyn FnMut() -> f64> {
    let bound = (3.0 * variance).sqrt();
    Box::new(move || bound * (2.0 * stream.uniform() - 1.0))
}

fn normal(mut stream: Stream, variance: f64) -> Box<dyn FnMut() -> f64> {
    let deviation = variance.sqrt() / TRUNCATED_DEVIATION;
    Box::new(move || deviation * stream.truncated_normal())
}

/// Inputs and outputs of an element, at least 1.
fn fans(shape: &[usize]) -> (f64, f64) {
    let (fan_in, fan_out) = match *shape {
        [] => (1, 1),
        [length] => (length, length),
        [ref before @ .., inputs, outputs] => {
            let field: usize = before.iter().product();
            (inputs * field, outputs * field)
        }
    };
    (fan_in.max(1) as f64, fan_out.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fans_count_the_receptive_field() {
        assert_eq!(fans(&[3, 3, 16, 32]), (144.0, 288.0));
        assert_eq!(fans(&[784, 512]), (784.0, 512.0));
        assert_eq!(fans(&[7]), (7.0, 7.0));
    }

    #[test]
    fn values_depend_on_the_seed_and_the_name_only() {
        let fill = |seed, name| {
            let mut values = [0.0; 8];
            Initializer::from(GlorotUniform {}).fill(seed, name, &[2, 4], &mut values);
            values
        };
        assert_eq!(fill(1, "dense/kernel"), fill(1, "dense/kernel"));
        assert_ne!(fill(1, "dense/kernel"), fill(2, "dense/kernel"));
        assert_ne!(fill(1, "dense/kernel"), fill(1, "dense_1/kernel"));
    }
}
