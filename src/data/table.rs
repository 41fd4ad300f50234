//! A data set in memory.

use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::DataError;
use crate::columns::Encoding;
use crate::layers::Shape;

/// What a row's target is.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Targets {
    /// One class index per row, stored as an `f32`; the names stand in index order.
    Classes(Vec<String>),
    /// `n` numbers per row.
    Numbers(usize),
}

impl Targets {
    /// Numbers stored per row.
    pub fn width(&self) -> usize {
        match self {
            Self::Classes(_) => 1,
            Self::Numbers(width) => *width,
        }
    }
}

/// What a table holds, without its numbers: all that a model has to know of what it was trained on.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Description {
    /// Number of rows.
    pub rows: usize,
    /// Shape of one row of features.
    pub shape: Shape,
    /// Names of the columns that the features are of; empty where they are of none. A column may have
    /// several features.
    pub columns: Vec<String>,
    /// What the targets mean.
    pub targets: Targets,
    /// How the rows came from named columns, where the run has `[columns]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

/// Of no rows of nothing.
impl Default for Description {
    fn default() -> Self {
        Self {
            rows: 0,
            shape: Shape::default(),
            columns: Vec::new(),
            targets: Targets::Numbers(0),
            encoding: None,
        }
    }
}

/// Rows of numbers, row-major: features, targets and, where given, weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Shape of one row of features.
    pub shape: Shape,
    /// `[rows, shape]`
    pub features: Vec<f32>,
    /// What the targets mean.
    pub target_kind: Targets,
    /// `[rows, target_kind.width()]`; empty where the source has no label (prediction).
    pub targets: Vec<f32>,
    /// `[rows]`, at least 0; `None` counts every row as 1.
    pub weights: Option<Vec<f32>>,
    /// Names of the columns that the features are of; empty where they are of none. A column may have
    /// several features.
    pub names: Vec<String>,
    /// Number of rows.
    pub rows: usize,
    /// How the rows came from named columns, where the run has `[columns]`.
    pub encoding: Option<Encoding>,
}

impl Table {
    /// Refuses features that are not whole numbers from 0 to below `count`; `path` is where they come
    /// from.
    ///
    /// # Errors
    /// [`DataError::Index`] with the first of them.
    pub fn check_indices(&self, count: usize, path: &Path) -> Result<(), DataError> {
        let is_index = |value: f32| value >= 0.0 && value < count as f32 && value.fract() == 0.0;
        let Some(at) = self.features.iter().position(|&value| !is_index(value)) else {
            return Ok(());
        };
        let (row, place) = (at / self.shape.elements(), at % self.shape.elements());
        Err(DataError::Index {
            path: path.to_owned(),
            row: row + 1,
            feature: match self.names.get(place) {
                Some(name) if self.names.len() == self.shape.elements() => format!("'{name}'"),
                _ => place.to_string(),
            },
            value: self.features[at],
            count,
        })
    }

    /// Refuses numbers that are not as many as the rows have, or that no file could have had; says what is
    /// wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let counts = [
            ("features", self.features.len(), self.shape.elements()),
            ("targets", self.targets.len(), self.target_kind.width()),
            (
                "weights",
                self.weights.as_ref().map_or(self.rows, Vec::len),
                1,
            ),
        ];
        if self.rows == 0 {
            return Err("has no rows".to_owned());
        }
        if let Some(encoding) = &self.encoding
            && encoding.width() != self.shape.elements()
        {
            let (encoded, width) = (encoding.width(), self.shape.elements());
            return Err(format!(
                "rows of {width} numbers, but an encoding of {encoded}"
            ));
        }
        for (what, found, width) in counts {
            if Some(found) != self.rows.checked_mul(width) {
                let rows = self.rows;
                return Err(format!(
                    "{rows} rows of {width} {what} each, but {found} of them"
                ));
            }
        }
        let classes = match &self.target_kind {
            Targets::Classes(names) => Some(names.len() as f32),
            Targets::Numbers(_) => None,
        };
        let is_target = |value: f32| match classes {
            Some(classes) => value >= 0.0 && value < classes && value.fract() == 0.0,
            None => value.is_finite(),
        };
        let weights = self.weights.as_deref().unwrap_or_default();
        let first_wrong = [
            (
                &self.features[..],
                "feature",
                self.features.iter().position(|x| !x.is_finite()),
            ),
            (
                &self.targets[..],
                "target",
                self.targets.iter().position(|&x| !is_target(x)),
            ),
            (
                weights,
                "weight",
                weights.iter().position(|x| !x.is_finite() || *x < 0.0),
            ),
        ];
        if !weights.is_empty() && weights.iter().all(|&weight| weight == 0.0) {
            return Err("has no row of a weight above 0".to_owned());
        }
        for (values, what, wrong) in first_wrong {
            if let Some(at) = wrong {
                let row = at / (values.len() / self.rows) + 1;
                return Err(format!(
                    "row {row} has the {what} {}, which cannot be",
                    values[at]
                ));
            }
        }
        Ok(())
    }

    /// A table of `rows` rows that has no numbers yet.
    pub fn empty(shape: Shape, target_kind: Targets, rows: usize) -> Self {
        Self {
            shape,
            features: Vec::new(),
            target_kind,
            targets: Vec::new(),
            weights: None,
            names: Vec::new(),
            rows,
            encoding: None,
        }
    }

    /// What it holds.
    pub fn description(&self) -> Description {
        Description {
            rows: self.rows,
            shape: self.shape.clone(),
            columns: self.names.clone(),
            targets: self.target_kind.clone(),
            encoding: self.encoding.clone(),
        }
    }

    /// Features of some rows, `[rows, shape]`.
    pub fn features(&self, rows: Range<usize>) -> &[f32] {
        let width = self.shape.elements();
        &self.features[rows.start * width..rows.end * width]
    }

    /// Targets of some rows, `[rows, target width]`.
    pub fn targets(&self, rows: Range<usize>) -> &[f32] {
        let width = self.target_kind.width();
        &self.targets[rows.start * width..rows.end * width]
    }

    /// SHA-256 of all numbers and what they mean: what ranks compare.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!(
            "{} {:?} {}",
            self.shape, self.target_kind, self.rows
        ));
        if let Some(encoding) = &self.encoding {
            hash.update(format!("{encoding:?}"));
        }
        for numbers in [&self.features, &self.targets]
            .into_iter()
            .chain(&self.weights)
        {
            hash.update(bytemuck::cast_slice(numbers));
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
