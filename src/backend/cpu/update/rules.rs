//! What each rule makes of a run of elements.

use crate::backend::cpu::simd::vectorized;
use crate::backend::{
    AdagradRule, AdamRule, BLOCK, FtrlRule, LambRule, LarsRule, LionRule, Preparation, RmsPropRule,
    SgdRule,
};

impl Preparation {
    #[inline(always)]
    fn gradient(self, g: f32) -> f32 {
        // Not `clamp`: comparisons that fail for NaN let it through, and compile to two blends.
        let g = self.scale * g;
        let g = if g > self.limit { self.limit } else { g };
        if g < -self.limit { -self.limit } else { g }
    }

    #[inline(always)]
    fn parameter(self, p: f32) -> f32 {
        self.decay * p
    }
}

/// What weight decay may spare.
pub(super) trait Sparing: Copy {
    /// The rule for parameters that weight decay spares.
    fn sparing(self) -> Self;
}

macro_rules! decay_as_prepared {
    ($($rule:ident),*) => {$(
        impl Sparing for $rule {
            fn sparing(mut self) -> Self {
                self.preparation.decay = 1.0;
                self
            }
        }
    )*};
}

decay_as_prepared!(
    SgdRule,
    AdamRule,
    AdagradRule,
    RmsPropRule,
    FtrlRule,
    LionRule
);

impl Sparing for LarsRule {
    fn sparing(mut self) -> Self {
        self.preparation.decay = 1.0;
        self.weight_decay = 0.0;
        self
    }
}

impl Sparing for LambRule {
    fn sparing(mut self) -> Self {
        self.weight_decay = 0.0;
        self
    }
}

/// A divisor that is never zero, so that where all is zero (padding) the quotient is zero.
#[inline(always)]
fn positive(divisor: f32) -> f32 {
    if divisor < f32::MIN_POSITIVE {
        f32::MIN_POSITIVE
    } else {
        divisor
    }
}

#[inline(always)]
fn sign(x: f32) -> f32 {
    // Zero stays zero and NaN stays NaN.
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }
}

impl LambRule {
    #[inline(always)]
    fn direction(self, p: f32, m: f32, v: f32) -> f32 {
        let divisor = positive((self.correction_2 * v).sqrt() + self.epsilon);
        self.correction_1 * m / divisor + self.weight_decay * p
    }
}

/// Lanes that a block's squares are added in, before the lanes are added.
const LANES: usize = 8;

/// Sum of squares of up to one block: lane `l` adds elements `l`, `l + 8`, ... in order. Missing
/// elements count as zero, which changes no bit.
#[inline(always)]
fn sum_of_squares(block: &[f32]) -> f64 {
    let mut whole = [0.0; BLOCK];
    whole[..block.len()].copy_from_slice(block);
    let mut lanes = [0.0; LANES];
    for part in whole.chunks_exact(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(part) {
            *lane += f64::from(x) * f64::from(x);
        }
    }
    lanes.iter().sum()
}

vectorized! {
    pub(super) fn sgd(rule: SgdRule, p: &mut [f32], g: &[f32]) {
        for (p, &g) in p.iter_mut().zip(g) {
            *p = rule.preparation.parameter(*p) - rule.rate * rule.preparation.gradient(g);
        }
    }

    pub(super) fn momentum(rule: SgdRule, p: &mut [f32], g: &[f32], v: &mut [f32]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let change = rule.rate * rule.preparation.gradient(g);
            *v = rule.momentum * *v - change;
            *p = rule.preparation.parameter(*p) + *v;
        }
    }

    pub(super) fn nesterov(rule: SgdRule, p: &mut [f32], g: &[f32], v: &mut [f32]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let change = rule.rate * rule.preparation.gradient(g);
            *v = rule.momentum * *v - change;
            *p = rule.preparation.parameter(*p) + (rule.momentum * *v - change);
        }
    }

    pub(super) fn adam(rule: AdamRule, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = rule.preparation.gradient(g);
            *m += (g - *m) * rule.mix_1;
            *v += (g * g - *v) * rule.mix_2;
            let change = rule.rate * *m / positive(v.sqrt() + rule.epsilon);
            *p = rule.preparation.parameter(*p) - change;
        }
    }

    pub(super) fn adagrad(rule: AdagradRule, p: &mut [f32], g: &[f32], a: &mut [f32]) {
        for ((p, &g), a) in p.iter_mut().zip(g).zip(a) {
            let g = rule.preparation.gradient(g);
            *a += g * g;
            let change = rule.rate * g / positive(a.sqrt() + rule.epsilon);
            *p = rule.preparation.parameter(*p) - change;
        }
    }

    pub(super) fn rms_prop_plain(rule: RmsPropRule, p: &mut [f32], g: &[f32], s: &mut [f32]) {
        for ((p, &g), s) in p.iter_mut().zip(g).zip(s) {
            *p = rule.preparation.parameter(*p) - rule.change(g, s);
        }
    }

    pub(super) fn rms_prop_momentum(
        rule: RmsPropRule, p: &mut [f32], g: &[f32], s: &mut [f32], v: &mut [f32],
    ) {
        for (((p, &g), s), v) in p.iter_mut().zip(g).zip(s).zip(v) {
            *v = rule.momentum * *v + rule.change(g, s);
            *p = rule.preparation.parameter(*p) - *v;
        }
    }

    pub(super) fn rms_prop_centered(
        rule: RmsPropRule, p: &mut [f32], g: &[f32], s: &mut [f32], a: &mut [f32],
    ) {
        for (((p, &g), s), a) in p.iter_mut().zip(g).zip(s).zip(a) {
            *p = rule.preparation.parameter(*p) - rule.centered_change(g, s, a);
        }
    }

    pub(super) fn rms_prop_centered_momentum(
        rule: RmsPropRule, p: &mut [f32], g: &[f32], s: &mut [f32], a: &mut [f32], v: &mut [f32],
    ) {
        for ((((p, &g), s), a), v) in p.iter_mut().zip(g).zip(s).zip(a).zip(v) {
            *v = rule.momentum * *v + rule.centered_change(g, s, a);
            *p = rule.preparation.parameter(*p) - *v;
        }
    }

    pub(super) fn ftrl_root(rule: FtrlRule, p: &mut [f32], g: &[f32], n: &mut [f32], z: &mut [f32]) {
        for (((p, &g), n), z) in p.iter_mut().zip(g).zip(n).zip(z) {
            rule.apply(p, g, n, z, f32::sqrt);
        }
    }

    pub(super) fn ftrl_power(rule: FtrlRule, p: &mut [f32], g: &[f32], n: &mut [f32], z: &mut [f32]) {
        for (((p, &g), n), z) in p.iter_mut().zip(g).zip(n).zip(z) {
            rule.apply(p, g, n, z, |n| n.powf(rule.power));
        }
    }

    pub(super) fn lion(rule: LionRule, p: &mut [f32], g: &[f32], m: &mut [f32]) {
        for ((p, &g), m) in p.iter_mut().zip(g).zip(m) {
            let g = rule.preparation.gradient(g);
            let direction = sign(rule.beta_1 * *m + rule.mix_1 * g);
            *p = rule.preparation.parameter(*p) - rule.rate * direction;
            *m = rule.beta_2 * *m + rule.mix_2 * g;
        }
    }

    pub(super) fn lars(rule: LarsRule, rate: f32, p: &mut [f32], g: &[f32], v: &mut [f32]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let decayed = rule.preparation.parameter(*p);
            let direction = rule.preparation.gradient(g) + rule.weight_decay * decayed;
            *v = rule.momentum * *v - rate * direction;
            *p = decayed + *v;
        }
    }

    pub(super) fn lamb_averages(
        rule: LambRule, p: &[f32], g: &[f32], m: &mut [f32], v: &mut [f32],
        p_sums: &mut [f64], u_sums: &mut [f64],
    ) {
        let blocks = p.chunks(BLOCK).zip(g.chunks(BLOCK));
        let averages = m.chunks_mut(BLOCK).zip(v.chunks_mut(BLOCK));
        let sums = p_sums.iter_mut().zip(u_sums);
        for (((p, g), (m, v)), (p_sum, u_sum)) in blocks.zip(averages).zip(sums) {
            let mut direction = [0.0; BLOCK];
            let parts = direction.iter_mut().zip(p).zip(g).zip(m).zip(v);
            for ((((u, &p), &g), m), v) in parts {
                let g = rule.preparation.gradient(g);
                *m += (g - *m) * rule.mix_1;
                *v += (g * g - *v) * rule.mix_2;
                *u = rule.direction(p, *m, *v);
            }
            *p_sum = sum_of_squares(p);
            *u_sum = sum_of_squares(&direction);
        }
    }

    pub(super) fn lamb_step(rule: LambRule, rate: f32, p: &mut [f32], m: &[f32], v: &[f32]) {
        for ((p, &m), &v) in p.iter_mut().zip(m).zip(v) {
            *p -= rate * rule.direction(*p, m, v);
        }
    }

    pub(super) fn block_sums(preparation: Preparation, g: &[f32], sums: &mut [f64]) {
        for (sum, block) in sums.iter_mut().zip(g.chunks(BLOCK)) {
            let mut prepared = [0.0; BLOCK];
            for (prepared, &g) in prepared.iter_mut().zip(block) {
                *prepared = preparation.gradient(g);
            }
            *sum = sum_of_squares(&prepared);
        }
    }
}

impl RmsPropRule {
    #[inline(always)]
    fn change(self, g: f32, s: &mut f32) -> f32 {
        let g = self.preparation.gradient(g);
        *s = self.rho * *s + self.mix * (g * g);
        self.rate * g / positive((*s + self.inner).sqrt() + self.outer)
    }

    #[inline(always)]
    fn centered_change(self, g: f32, s: &mut f32, a: &mut f32) -> f32 {
        let g = self.preparation.gradient(g);
        *s = self.rho * *s + self.mix * (g * g);
        *a = self.rho * *a + self.mix * g;
        // A variance; rounding can leave it just below zero.
        let variance = *s - *a * *a;
        let variance = if variance < 0.0 { 0.0 } else { variance };
        self.rate * g / positive((variance + self.inner).sqrt() + self.outer)
    }
}

impl FtrlRule {
    #[inline(always)]
    fn apply(self, p: &mut f32, g: f32, n: &mut f32, z: &mut f32, root: impl Fn(f32) -> f32) {
        let g = self.preparation.gradient(g);
        let decayed = self.preparation.parameter(*p);
        let before = root(*n);
        *n += g * g;
        let after = root(*n);
        *z += g + self.shrinkage * decayed - (after - before) * self.slowness * decayed;
        let excess = if *z > 0.0 {
            self.l1 - *z
        } else {
            -self.l1 - *z
        };
        let moved = excess / (after * self.slowness + self.ridge);
        *p = if z.abs() <= self.l1 { 0.0 } else { moved };
    }
}
