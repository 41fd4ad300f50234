//! Golden numbers: what TensorFlow 2.15.1 computes, from `tests/golden/vectors.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// An array with its dimensions, row-major.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Tensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f32>,
}

/// One layer: what went in, and everything that came out.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Case {
    pub(crate) training: bool,
    pub(crate) x: Tensor,
    /// By the name behind the last `/`.
    #[serde(deserialize_with = "by_weight")]
    pub(crate) weights: BTreeMap<String, Tensor>,
    pub(crate) y: Tensor,
    /// Gradient of `y`.
    pub(crate) upstream: Tensor,
    pub(crate) dx: Option<Tensor>,
    #[serde(deserialize_with = "by_weight")]
    pub(crate) dw: BTreeMap<String, Tensor>,
    /// Moving statistics after the pass.
    #[serde(deserialize_with = "by_weight")]
    pub(crate) weights_after: BTreeMap<String, Tensor>,
}

/// `dense/kernel:0` becomes `kernel`; no weights at all may be null.
fn by_weight<'de, D>(deserializer: D) -> Result<BTreeMap<String, Tensor>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    let weights = Option::<BTreeMap<String, Tensor>>::deserialize(deserializer)?;
    let short = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or(name);
        name.trim_end_matches(":0").to_owned()
    };
    let weights = weights.into_iter().flatten();
    Ok(weights
        .map(|(name, tensor)| (short(&name), tensor))
        .collect())
}

/// A part of the file: `["layers", "dense"]`.
pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &[&str]) -> T {
    let text = include_str!("../golden/vectors.json");
    let mut value: Value = serde_json::from_str(text).unwrap();
    for key in path {
        value = value[key].take();
    }
    serde_json::from_value(value).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// The case of that name.
pub(crate) fn layer(name: &str) -> Case {
    read(&["layers", name])
}

/// Largest difference, relative to the largest magnitude that is wanted.
pub(crate) fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let largest = want
        .iter()
        .fold(0.0, |largest: f32, x| largest.max(x.abs()));
    let pairs = got.iter().zip(want);
    let differences = pairs.map(|(got, want)| (f64::from(*got) - f64::from(*want)).abs());
    // NaN must not get lost in a maximum.
    let worst = differences.fold(
        0.0,
        |worst: f64, x| if x > worst || x.is_nan() { x } else { worst },
    );
    worst / f64::from(largest).max(1e-30)
}

/// Asserts that [`distance`] is at most `tolerance`.
pub(crate) fn assert_near(what: &str, got: &[f32], want: &[f32], tolerance: f64) {
    let distance = distance(got, want);
    assert!(
        distance <= tolerance,
        "{what} differs by {distance:e} of its largest value"
    );
}
