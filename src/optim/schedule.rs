//! Learning rates over time, with Keras's formulas.

use crate::named::registry;

registry! {
    /// The learning rate as a function of the step.
    ///
    /// Rates given in the tables are absolute, as in Keras.
    pub enum ScheduleSpec ("a learning rate schedule") {
        Constant(Constant) = "constant": "the optimizer's learning rate throughout",
        Warmup(Warmup) = "warmup": "rises linearly over the first steps, then follows another schedule",
        Cosine(Cosine) = "cosine": "falls along half a cosine",
        Exponential(Exponential) = "exponential": "falls by a factor every so many steps",
        Piecewise(Piecewise) = "piecewise": "constant between boundaries",
        Polynomial(Polynomial) = "polynomial": "falls along a power to an end, once or in cycles",
        InverseTime(InverseTime) = "inverse_time": "falls as one over time",
    }
}

/// The optimizer's learning rate throughout.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {}

/// A linear rise before another schedule.
///
/// Step `s < steps` has the rate `base * (from + (1 - from) * s / steps)`; from there on `then`
/// counts its own steps from 0. Keras's `CosineDecay` with `warmup_steps` is this with a cosine.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Warmup {
    /// Length of the rise.
    pub steps: u64,
    /// Share of the base rate at step 0.
    #[serde(default, deserialize_with = "crate::range::not_negative")]
    pub from: f64,
    /// What follows; constant where not given.
    #[serde(default)]
    pub then: Box<ScheduleSpec>,
}

/// `base * ((1 - alpha) * (1 + cos(pi * s / decay_steps)) / 2 + alpha)`, then `base * alpha`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cosine {
    /// Length of the fall.
    pub decay_steps: u64,
    /// Share of the base rate at the end.
    #[serde(default, deserialize_with = "crate::range::not_negative")]
    pub alpha: f64,
}

/// `base * decay_rate ^ (s / decay_steps)`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exponential {
    /// Steps per factor.
    pub decay_steps: u64,
    /// The factor.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub decay_rate: f64,
    /// Falls at whole multiples of `decay_steps` only.
    #[serde(default)]
    pub staircase: bool,
}

/// `values[i]` up to and including step `boundaries[i]`, the last value after the last boundary.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piecewise {
    /// Rising steps.
    pub boundaries: Vec<u64>,
    /// Learning rates, one more than boundaries.
    pub values: Vec<f64>,
}

/// `(base - end) * (1 - s / decay_steps) ^ power + end`, then `end`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Polynomial {
    /// Length of the fall.
    pub decay_steps: u64,
    /// The rate at the end.
    #[serde(
        default = "Polynomial::default_end",
        deserialize_with = "crate::range::not_negative"
    )]
    pub end_learning_rate: f64,
    /// 1 is a straight line.
    #[serde(
        default = "Polynomial::default_power",
        deserialize_with = "crate::range::not_negative"
    )]
    pub power: f64,
    /// Past the end the fall starts anew, stretched to the next multiple of `decay_steps`.
    #[serde(default)]
    pub cycle: bool,
}

impl Polynomial {
    fn default_end() -> f64 {
        1e-4
    }

    fn default_power() -> f64 {
        1.0
    }
}

/// `base / (1 + decay_rate * s / decay_steps)`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InverseTime {
    /// Steps per unit of time.
    pub decay_steps: u64,
    /// How much the divisor grows per unit of time.
    #[serde(deserialize_with = "crate::range::not_negative")]
    pub decay_rate: f64,
    /// Falls at whole multiples of `decay_steps` only.
    #[serde(default)]
    pub staircase: bool,
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        Self::Constant(Constant {})
    }
}

impl ScheduleSpec {
    /// The learning rate of `step`, counted from 0, where the optimizer's own is `base`.
    pub fn rate(&self, base: f64, step: u64) -> f64 {
        match self {
            Self::Constant(_) => base,
            Self::Warmup(warmup) if step < warmup.steps => {
                let progress = step as f64 / warmup.steps as f64;
                base * (warmup.from + (1.0 - warmup.from) * progress)
            }
            Self::Warmup(warmup) => warmup.then.rate(base, step - warmup.steps),
            Self::Cosine(Cosine { decay_steps, alpha }) => {
                let progress = step.min(*decay_steps) as f64 / *decay_steps as f64;
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
                base * ((1.0 - alpha) * cosine + alpha)
            }
            Self::Exponential(spec) => {
                let time = time(step, spec.decay_steps, spec.staircase);
                base * spec.decay_rate.powf(time)
            }
            Self::Piecewise(Piecewise { boundaries, values }) => {
                values[boundaries.partition_point(|&boundary| boundary < step)]
            }
            Self::Polynomial(spec) => {
                let stretch = match spec.cycle {
                    true => step.div_ceil(spec.decay_steps).max(1),
                    false => 1,
                };
                let length = spec.decay_steps as f64 * stretch as f64;
                let left = 1.0 - (step as f64).min(length) / length;
                (base - spec.end_learning_rate) * left.powf(spec.power) + spec.end_learning_rate
            }
            Self::InverseTime(spec) => {
                base / (1.0 + spec.decay_rate * time(step, spec.decay_steps, spec.staircase))
            }
        }
    }

    /// Whether [`rate`](Self::rate) is defined for every step.
    pub fn check(&self) -> Result<(), ScheduleError> {
        let decay_steps = match self {
            Self::Constant(_) => return Ok(()),
            Self::Warmup(warmup) => return warmup.then.check(),
            Self::Piecewise(Piecewise { boundaries, values }) => {
                if values.len() != boundaries.len() + 1 {
                    return Err(ScheduleError::Values {
                        boundaries: boundaries.len(),
                        values: values.len(),
                    });
                }
                return match boundaries.windows(2).find(|pair| pair[0] >= pair[1]) {
                    Some(pair) => Err(ScheduleError::Boundaries {
                        first: pair[0],
                        second: pair[1],
                    }),
                    None => Ok(()),
                };
            }
            Self::Cosine(spec) => spec.decay_steps,
            Self::Exponential(spec) => spec.decay_steps,
            Self::Polynomial(spec) => spec.decay_steps,
            Self::InverseTime(spec) => spec.decay_steps,
        };
        match decay_steps {
            0 => Err(ScheduleError::NoSteps { kind: self.name() }),
            _ => Ok(()),
        }
    }
}

/// Steps in units of `decay_steps`, whole ones for a staircase.
fn time(step: u64, decay_steps: u64, staircase: bool) -> f64 {
    match staircase {
        true => (step / decay_steps) as f64,
        false => step as f64 / decay_steps as f64,
    }
}

/// A schedule that has no rate for some step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// A fall over no steps.
    #[error("schedule {kind}: decay_steps is 0; give the number of steps the fall takes")]
    NoSteps {
        /// The schedule.
        kind: &'static str,
    },
    /// Values do not match boundaries.
    #[error(
        "schedule piecewise: {boundaries} boundaries and {values} values; give one value more than \
         boundaries"
    )]
    Values {
        /// Number of boundaries.
        boundaries: usize,
        /// Number of values.
        values: usize,
    },
    /// Boundaries do not rise.
    #[error("schedule piecewise: boundary {first} before {second}; boundaries must rise")]
    Boundaries {
        /// A boundary.
        first: u64,
        /// The one after it.
        second: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_and_a_table_are_read() {
        #[derive(serde::Deserialize, serde::Serialize)]
        struct File {
            schedule: ScheduleSpec,
        }
        let read = |text: &str| toml::from_str::<File>(text).map(|file| file.schedule);
        assert_eq!(read("schedule = 'constant'"), Ok(ScheduleSpec::default()));
        let warm = read(
            "schedule = { kind = 'warmup', steps = 5, then = { kind = 'cosine', decay_steps = 9 } }",
        )
        .unwrap();
        assert_eq!(
            warm,
            ScheduleSpec::Warmup(Warmup {
                steps: 5,
                from: 0.0,
                then: Box::new(
                    Cosine {
                        decay_steps: 9,
                        alpha: 0.0
                    }
                    .into()
                ),
            })
        );
        let written = toml::to_string(&File {
            schedule: warm.clone(),
        })
        .unwrap();
        assert_eq!(read(&written), Ok(warm), "{written}");
    }

    #[test]
    fn unknown_names_and_keys_are_refused() {
        let error = |text: &str| {
            toml::from_str::<std::collections::BTreeMap<String, ScheduleSpec>>(text)
                .unwrap_err()
                .to_string()
        };
        assert!(error("s = 'cosin'").contains("unknown variant `cosin`"));
        assert!(error("s = { kind = 'constant', power = 2 }").contains("unknown field `power`"));
        assert!(error("s = { steps = 2 }").contains("missing field `kind`"));
        assert!(error("s = 3").contains("a learning rate schedule or a table"));
    }

    #[test]
    fn undefined_schedules_are_refused() {
        let cosine = Cosine {
            decay_steps: 0,
            alpha: 0.0,
        };
        assert_eq!(
            ScheduleSpec::from(cosine).check(),
            Err(ScheduleError::NoSteps { kind: "cosine" })
        );
        let piecewise = |boundaries: &[u64], values: &[f64]| {
            ScheduleSpec::from(Piecewise {
                boundaries: boundaries.to_vec(),
                values: values.to_vec(),
            })
            .check()
        };
        assert_eq!(piecewise(&[5, 9], &[1.0, 0.5, 0.1]), Ok(()));
        assert!(piecewise(&[5], &[1.0]).is_err());
        assert!(piecewise(&[5, 5], &[1.0, 0.5, 0.1]).is_err());
    }

    #[test]
    fn a_cycle_starts_anew_where_the_line_ends() {
        let spec = ScheduleSpec::from(Polynomial {
            decay_steps: 10,
            end_learning_rate: 0.0,
            power: 1.0,
            cycle: true,
        });
        assert_eq!(spec.rate(1.0, 10), 0.0);
        assert_eq!(spec.rate(1.0, 15), 0.25);
        assert_eq!(spec.rate(1.0, 20), 0.0);
    }
}
