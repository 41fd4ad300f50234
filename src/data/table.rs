//! A data set in memory.

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
    /// Number of rows.
    pub rows: usize,
}
