//! The optimizers' update rules on flat slices, and the block sums that norms are made of.
//!
//! All slices of a call have one length, but for block sums, which have one number for each
//! [`BLOCK`] elements, the last block being short where the length is no multiple. `p`, `g` and the
//! state arrays are read and set in one pass: 4 bytes an element for each array read, and for each
//! array written. Rules are `repr(C)`, as the kernels of a GPU read them.
//!
//! One call steps tensors of both kinds, those that weight decay concerns and those that it spares, and with
//! LARS and LAMB those of every rate: tables with a number for each block say which are which.
//!
//! Where `p`, `g` and all state are zero, they stay zero: padding can be part of a call. A NaN in
//! the gradient reaches the parameter.

use bytemuck::NoUninit;

use super::{Memory, View, ViewMut};

/// Elements of a block: what one number of the block sums is made of.
pub const BLOCK: usize = 64;

/// Lanes in which a tensor's block sums are added.
pub const SUM_LANES: usize = 256;

/// What every rule starts with: `g = clamp(scale * g, -limit, limit)` and `p = decay * p`.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit)]
#[repr(C)]
pub struct Preparation {
    /// Factor of gradients.
    pub scale: f32,
    /// Largest magnitude of a scaled gradient; infinity for no limit.
    pub limit: f32,
    /// Factor of parameters that weight decay does not spare: one less the rate times the weight decay.
    pub decay: f32,
}

impl Preparation {
    /// Changes nothing.
    pub const NONE: Self = Self {
        scale: 1.0,
        limit: f32::INFINITY,
        decay: 1.0,
    };
}

/// Parameters that a rule steps, with their gradient.
pub struct Weights<'a, B: Memory> {
    /// The parameters.
    pub p: ViewMut<'a, B>,
    /// Their gradient.
    pub g: View<'a, B>,
    /// For each block 1 where weight decay spares it, else 0; where there is no table it spares none.
    pub spared: Option<B::View<'a, u32>>,
}

impl<'a, B: Memory> Weights<'a, B> {
    /// Parameters of which weight decay spares none.
    pub fn decayed(p: ViewMut<'a, B>, g: View<'a, B>) -> Self {
        Self { p, g, spared: None }
    }
}

/// `p -= rate * g`, or with momentum `v = momentum * v - rate * g; p += v`, or with Nesterov's
/// `p += momentum * v - rate * g` after that `v`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdRule {
    /// What comes first.
    pub preparation: Preparation,
    /// Learning rate.
    pub rate: f32,
    /// Share of the last change that is made again.
    pub momentum: f32,
    /// Looks ahead.
    pub nesterov: bool,
}

/// `m += (g - m) * mix_1; v += (g^2 - v) * mix_2; p -= rate * m / (sqrt(v) + epsilon)`.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit)]
#[repr(C)]
pub struct AdamRule {
    /// What comes first.
    pub preparation: Preparation,
    /// Learning rate with both corrections of bias.
    pub rate: f32,
    /// One less beta 1.
    pub mix_1: f32,
    /// One less beta 2.
    pub mix_2: f32,
    /// Added to the root.
    pub epsilon: f32,
}

/// `a += g^2; p -= rate * g / (sqrt(a) + epsilon)`.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit)]
#[repr(C)]
pub struct AdagradRule {
    /// What comes first.
    pub preparation: Preparation,
    /// Learning rate.
    pub rate: f32,
    /// Added to the root.
    pub epsilon: f32,
}

/// `s = rho * s + mix * g^2`, then `change = rate * g / (sqrt(s - a^2 + inner) + outer)`, where the
/// average gradient `a = rho * a + mix * g` is zero unless kept; with momentum
/// `v = momentum * v + change; p -= v`, else `p -= change`.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit)]
#[repr(C)]
pub struct RmsPropRule {
    /// What comes first.
    pub preparation: Preparation,
    /// Learning rate.
    pub rate: f32,
    /// Decay of the averages.
    pub rho: f32,
    /// One less rho.
    pub mix: f32,
    /// Added under the root.
    pub inner: f32,
    /// Added to the root.
    pub outer: f32,
    /// Share of the last change that is made again.
    pub momentum: f32,
}

/// With `r(n) = n ^ power`: `n' = n + g^2; z += g + shrinkage * p - (r(n') - r(n)) * slowness * p`,
/// then `p = 0` where `|z| <= l1`, else `p = (sign(z) * l1 - z) / (r(n') * slowness + ridge)`.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit)]
#[repr(C)]
pub struct FtrlRule {
    /// What comes first.
    pub preparation: Preparation,
    /// One over the learning rate.
    pub slowness: f32,
    /// Exponent of the sum of squares, at least 0; a half is a square root.
    pub power: f32,
    /// Strength of the absolute penalty.
    pub l1: f32,
    /// Twice the strength of the squared penalty, and beta over the learning rate.
    pub ridge: f32,
    /// Twice the strength of the shrinking penalty.
    pub shrinkage: f32,
}

/// `p -= rate * sign(beta_1 * m + mix_1 * g); m = beta_2 * m + mix_2 * g`, where `sign(0) = 0`.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit)]
#[repr(C)]
pub struct LionRule {
    /// What comes first.
    pub preparation: Preparation,
    /// Learning rate.
    pub rate: f32,
    /// Weight of the average in the direction.
    pub beta_1: f32,
    /// One less `beta_1`.
    pub mix_1: f32,
    /// Decay of the average.
    pub beta_2: f32,
    /// One less `beta_2`.
    pub mix_2: f32,
}

/// `v = momentum * v - rate * (g + weight_decay * p); p += v`.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit)]
#[repr(C)]
pub struct LarsRule {
    /// What comes first.
    pub preparation: Preparation,
    /// Share of the last change that is made again.
    pub momentum: f32,
    /// Share of the parameters in the direction, where it is not spared.
    pub weight_decay: f32,
}

/// `m += (g - m) * mix_1; v += (g^2 - v) * mix_2`, and the direction
/// `u = correction_1 * m / (sqrt(correction_2 * v) + epsilon) + weight_decay * p`.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit)]
#[repr(C)]
pub struct LambRule {
    /// What comes first.
    pub preparation: Preparation,
    /// One less beta 1.
    pub mix_1: f32,
    /// One less beta 2.
    pub mix_2: f32,
    /// Takes the bias off `m`.
    pub correction_1: f32,
    /// Takes the bias off `v`.
    pub correction_2: f32,
    /// Added to the root.
    pub epsilon: f32,
    /// Share of the parameters in the direction, where it is not spared.
    pub weight_decay: f32,
}

/// With the norm `|p|` of a tensor and that of its direction `|u|`, the tensor's rate is
/// `rate * trust * |p| / (|u| + weight_decay * |p| + epsilon)`; `rate` alone where weight decay spares the
/// tensor or one of the norms is 0.
#[derive(Debug, Clone, Copy, PartialEq, NoUninit)]
#[repr(C)]
pub struct TrustRule {
    /// Learning rate.
    pub rate: f64,
    /// Length of a step as a share of the weights' length.
    pub trust: f64,
    /// Share of the parameters that the direction has beside what its norm is taken of.
    pub weight_decay: f64,
    /// Added to the divisor.
    pub epsilon: f64,
}

/// The optimizers' update rules on flat slices, and the block sums that norms are made of.
pub trait Update: Memory {
    /// [`SgdRule`] without momentum. `p`: `=`.
    fn sgd(&mut self, rule: SgdRule, weights: Weights<'_, Self>);

    /// [`SgdRule`] with momentum. `p`, `v`: `=`.
    fn sgd_momentum(&mut self, rule: SgdRule, weights: Weights<'_, Self>, v: ViewMut<'_, Self>);

    /// [`AdamRule`]. `p`, `m`, `v`: `=`.
    fn adam(
        &mut self,
        rule: AdamRule,
        weights: Weights<'_, Self>,
        m: ViewMut<'_, Self>,
        v: ViewMut<'_, Self>,
    );

    /// [`AdagradRule`]. `p`, `a`: `=`.
    fn adagrad(&mut self, rule: AdagradRule, weights: Weights<'_, Self>, a: ViewMut<'_, Self>);

    /// [`RmsPropRule`]; `a` is kept where it is centred, `v` where it has momentum. `p`, `s`, `a`,
    /// `v`: `=`.
    fn rms_prop(
        &mut self,
        rule: RmsPropRule,
        weights: Weights<'_, Self>,
        s: ViewMut<'_, Self>,
        a: Option<ViewMut<'_, Self>>,
        v: Option<ViewMut<'_, Self>>,
    );

    /// [`FtrlRule`]. `p`, `n`, `z`: `=`.
    fn ftrl(
        &mut self,
        rule: FtrlRule,
        weights: Weights<'_, Self>,
        n: ViewMut<'_, Self>,
        z: ViewMut<'_, Self>,
    );

    /// [`LionRule`]. `p`, `m`: `=`.
    fn lion(&mut self, rule: LionRule, weights: Weights<'_, Self>, m: ViewMut<'_, Self>);

    /// [`LarsRule`], with the rate of each block. `p`, `v`: `=`.
    fn lars(
        &mut self,
        rule: LarsRule,
        weights: Weights<'_, Self>,
        rates: View<'_, Self>,
        v: ViewMut<'_, Self>,
    );

    /// The averages of [`LambRule`], and the block sums of squares of `p`, which is only read, and of the
    /// direction. `m`, `v`, `p_sums`, `u_sums`: `=`.
    fn lamb_averages(
        &mut self,
        rule: LambRule,
        weights: Weights<'_, Self>,
        m: ViewMut<'_, Self>,
        v: ViewMut<'_, Self>,
        p_sums: Self::ViewMut<'_, f64>,
        u_sums: Self::ViewMut<'_, f64>,
    );

    /// `p -= rate * u` with the direction `u` of [`LambRule`] and the rate of each block; `g` is not read,
    /// and what the rule starts with is done already. `p`: `=`.
    fn lamb_step(
        &mut self,
        rule: LambRule,
        weights: Weights<'_, Self>,
        rates: View<'_, Self>,
        m: View<'_, Self>,
        v: View<'_, Self>,
    );

    /// The rates of [`TrustRule`], from block sums of squares of the parameters and of their direction. Of
    /// each tensor, `tensors` has its first block, the one behind its last, and 1 where weight decay spares
    /// it, else 0. Block sums are added in [`SUM_LANES`] lanes, one after another in turn, and then half of
    /// the lanes to the other half, until one is left. `rates` of the tensors' blocks: `=`.
    fn trust_rates(
        &mut self,
        rule: TrustRule,
        tensors: Self::View<'_, u32>,
        p_sums: Self::View<'_, f64>,
        u_sums: Self::View<'_, f64>,
        rates: ViewMut<'_, Self>,
    );

    /// Sums of squares of the blocks of `g` as prepared, each taken in double precision and in an
    /// order that does not depend on where the block lies. `sums`: `=`.
    fn block_sums_of_squares(
        &mut self,
        preparation: Preparation,
        g: View<'_, Self>,
        sums: Self::ViewMut<'_, f64>,
    );
}
