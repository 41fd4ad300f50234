//! Limits on gradients, with Keras's meaning.

use super::norms::{BlockSums, norm};
use super::segments::runs;
use super::{BlockExchange, Segment, StepError};
use crate::backend::{Backend, BackendError, Preparation, View};
use crate::params::Layout;

/// How gradients are limited before the update.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipSpec {
    /// Every element to `[-value, value]`.
    Value(f64),
    /// All gradients by one factor, so that their common norm is at most this.
    GlobalNorm(f64),
}

impl ClipSpec {
    /// Whether the limit is a positive number.
    pub fn is_valid(&self) -> bool {
        let (Self::Value(limit) | Self::GlobalNorm(limit)) = self;
        limit.is_finite() && *limit > 0.0
    }

    /// What applies it to gradients laid out like `layout`.
    pub fn build<B: Backend>(
        self,
        backend: &mut B,
        layout: &Layout,
    ) -> Result<Clip<B>, BackendError> {
        Ok(match self {
            Self::Value(limit) => Clip(Kind::Value(limit as f32)),
            Self::GlobalNorm(limit) => Clip(Kind::GlobalNorm {
                limit,
                sums: BlockSums::new(backend, layout)?,
            }),
        })
    }
}

/// A [`ClipSpec`] with its memory.
pub struct Clip<B: Backend>(Kind<B>);

enum Kind<B: Backend> {
    Value(f32),
    GlobalNorm { limit: f64, sums: BlockSums<B> },
}

/// What a step does to gradients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clipped {
    /// Factor of gradients, for [`Step::gradient_scale`](super::Step::gradient_scale).
    pub scale: f64,
    /// For [`Step::gradient_limit`](super::Step::gradient_limit).
    pub limit: f32,
    /// Norm of the gradients times the factor they came with, before clipping, if it was needed.
    pub norm: Option<f64>,
}

impl<B: Backend> Clip<B> {
    /// What to do to `gradients` that are to be multiplied by `scale` and of which this rank has
    /// `segments`. Collective where `exchange` is.
    ///
    /// A norm that is not a number gives a factor that is not one, so that it cannot pass unseen.
    pub fn scale(
        &mut self,
        backend: &mut B,
        gradients: View<'_, B>,
        segments: &[Segment],
        scale: f64,
        exchange: &mut dyn BlockExchange,
    ) -> Result<Clipped, StepError> {
        let (limit, sums) = match &mut self.0 {
            Kind::Value(limit) => {
                return Ok(Clipped {
                    scale,
                    limit: *limit,
                    norm: None,
                });
            }
            Kind::GlobalNorm { limit, sums } => (*limit, sums),
        };
        for run in runs(segments) {
            let blocks = sums.blocks(run.blocks.clone());
            let gradients = B::slice(gradients, run.arena);
            backend.block_sums_of_squares(Preparation::NONE, gradients, blocks);
        }
        sums.complete(backend, exchange)?;
        let norm = norm(sums.all()) * scale.abs();
        Ok(Clipped {
            // Written so that NaN takes the division.
            scale: if norm <= limit {
                scale
            } else {
                scale * (limit / norm)
            },
            limit: f32::INFINITY,
            norm: Some(norm),
        })
    }
}
