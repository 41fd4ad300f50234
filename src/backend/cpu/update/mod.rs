//! The optimizers' update rules on flat slices, and the block sums that norms are made of.

#[cfg(test)]
mod tests;

use super::Cpu;
use super::simd::vectorized;
use crate::backend::{
    AdagradRule, AdamRule, BLOCK, FtrlRule, LambRule, LarsRule, LionRule, Preparation, RmsPropRule,
    SgdRule, Update,
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
    fn sgd(rule: SgdRule, p: &mut [f32], g: &[f32]) {
        for (p, &g) in p.iter_mut().zip(g) {
            *p = rule.preparation.parameter(*p) - rule.rate * rule.preparation.gradient(g);
        }
    }

    fn momentum(rule: SgdRule, p: &mut [f32], g: &[f32], v: &mut [f32]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let change = rule.rate * rule.preparation.gradient(g);
            *v = rule.momentum * *v - change;
            *p = rule.preparation.parameter(*p) + *v;
        }
    }

    fn nesterov(rule: SgdRule, p: &mut [f32], g: &[f32], v: &mut [f32]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let change = rule.rate * rule.preparation.gradient(g);
            *v = rule.momentum * *v - change;
            *p = rule.preparation.parameter(*p) + (rule.momentum * *v - change);
        }
    }

    fn adam(rule: AdamRule, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = rule.preparation.gradient(g);
            *m += (g - *m) * rule.mix_1;
            *v += (g * g - *v) * rule.mix_2;
            let change = rule.rate * *m / positive(v.sqrt() + rule.epsilon);
            *p = rule.preparation.parameter(*p) - change;
        }
    }

    fn adagrad(rule: AdagradRule, p: &mut [f32], g: &[f32], a: &mut [f32]) {
        for ((p, &g), a) in p.iter_mut().zip(g).zip(a) {
            let g = rule.preparation.gradient(g);
            *a += g * g;
            let change = rule.rate * g / positive(a.sqrt() + rule.epsilon);
            *p = rule.preparation.parameter(*p) - change;
        }
    }

    fn rms_prop_plain(rule: RmsPropRule, p: &mut [f32], g: &[f32], s: &mut [f32]) {
        for ((p, &g), s) in p.iter_mut().zip(g).zip(s) {
            *p = rule.preparation.parameter(*p) - rule.change(g, s);
        }
    }

    fn rms_prop_momentum(
        rule: RmsPropRule, p: &mut [f32], g: &[f32], s: &mut [f32], v: &mut [f32],
    ) {
        for (((p, &g), s), v) in p.iter_mut().zip(g).zip(s).zip(v) {
            *v = rule.momentum * *v + rule.change(g, s);
            *p = rule.preparation.parameter(*p) - *v;
        }
    }

    fn rms_prop_centered(
        rule: RmsPropRule, p: &mut [f32], g: &[f32], s: &mut [f32], a: &mut [f32],
    ) {
        for (((p, &g), s), a) in p.iter_mut().zip(g).zip(s).zip(a) {
            *p = rule.preparation.parameter(*p) - rule.centered_change(g, s, a);
        }
    }

    fn rms_prop_centered_momentum(
        rule: RmsPropRule, p: &mut [f32], g: &[f32], s: &mut [f32], a: &mut [f32], v: &mut [f32],
    ) {
        for ((((p, &g), s), a), v) in p.iter_mut().zip(g).zip(s).zip(a).zip(v) {
            *v = rule.momentum * *v + rule.centered_change(g, s, a);
            *p = rule.preparation.parameter(*p) - *v;
        }
    }

    fn ftrl_root(rule: FtrlRule, p: &mut [f32], g: &[f32], n: &mut [f32], z: &mut [f32]) {
        for (((p, &g), n), z) in p.iter_mut().zip(g).zip(n).zip(z) {
            rule.apply(p, g, n, z, f32::sqrt);
        }
    }

    fn ftrl_power(rule: FtrlRule, p: &mut [f32], g: &[f32], n: &mut [f32], z: &mut [f32]) {
        for (((p, &g), n), z) in p.iter_mut().zip(g).zip(n).zip(z) {
            rule.apply(p, g, n, z, |n| n.powf(rule.power));
        }
    }

    fn lion(rule: LionRule, p: &mut [f32], g: &[f32], m: &mut [f32]) {
        for ((p, &g), m) in p.iter_mut().zip(g).zip(m) {
            let g = rule.preparation.gradient(g);
            let direction = sign(rule.beta_1 * *m + rule.mix_1 * g);
            *p = rule.preparation.parameter(*p) - rule.rate * direction;
            *m = rule.beta_2 * *m + rule.mix_2 * g;
        }
    }

    fn lars(rule: LarsRule, p: &mut [f32], g: &[f32], v: &mut [f32]) {
        for ((p, &g), v) in p.iter_mut().zip(g).zip(v) {
            let decayed = rule.preparation.parameter(*p);
            let direction = rule.preparation.gradient(g) + rule.weight_decay * decayed;
            *v = rule.momentum * *v - rule.rate * direction;
            *p = decayed + *v;
        }
    }

    fn lamb_averages(
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

    fn lamb_step(rule: LambRule, rate: f32, p: &mut [f32], m: &[f32], v: &[f32]) {
        for ((p, &m), &v) in p.iter_mut().zip(m).zip(v) {
            *p -= rate * rule.direction(*p, m, v);
        }
    }

    fn block_sums(preparation: Preparation, g: &[f32], sums: &mut [f64]) {
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

impl Update for Cpu {
    fn sgd(&mut self, rule: SgdRule, p: &mut [f32], g: &[f32]) {
        assert_eq!(p.len(), g.len(), "sgd: lengths differ");
        sgd(rule, p, g);
    }

    fn sgd_momentum(&mut self, rule: SgdRule, p: &mut [f32], g: &[f32], v: &mut [f32]) {
        same_lengths("sgd_momentum", p.len(), [g.len(), v.len()]);
        match rule.nesterov {
            true => nesterov(rule, p, g, v),
            false => momentum(rule, p, g, v),
        }
    }

    fn adam(&mut self, rule: AdamRule, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        same_lengths("adam", p.len(), [g.len(), m.len(), v.len()]);
        adam(rule, p, g, m, v);
    }

    fn adagrad(&mut self, rule: AdagradRule, p: &mut [f32], g: &[f32], a: &mut [f32]) {
        same_lengths("adagrad", p.len(), [g.len(), a.len()]);
        adagrad(rule, p, g, a);
    }

    fn rms_prop(
        &mut self,
        rule: RmsPropRule,
        p: &mut [f32],
        g: &[f32],
        s: &mut [f32],
        a: Option<&mut [f32]>,
        v: Option<&mut [f32]>,
    ) {
        let optional = |state: &Option<&mut [f32]>| state.as_ref().map_or(p.len(), |s| s.len());
        let lengths = [g.len(), s.len(), optional(&a), optional(&v)];
        same_lengths("rms_prop", p.len(), lengths);
        match (a, v) {
            (None, None) => rms_prop_plain(rule, p, g, s),
            (None, Some(v)) => rms_prop_momentum(rule, p, g, s, v),
            (Some(a), None) => rms_prop_centered(rule, p, g, s, a),
            (Some(a), Some(v)) => rms_prop_centered_momentum(rule, p, g, s, a, v),
        }
    }

    fn ftrl(&mut self, rule: FtrlRule, p: &mut [f32], g: &[f32], n: &mut [f32], z: &mut [f32]) {
        same_lengths("ftrl", p.len(), [g.len(), n.len(), z.len()]);
        match rule.power == 0.5 {
            true => ftrl_root(rule, p, g, n, z),
            false => ftrl_power(rule, p, g, n, z),
        }
    }

    fn lion(&mut self, rule: LionRule, p: &mut [f32], g: &[f32], m: &mut [f32]) {
        same_lengths("lion", p.len(), [g.len(), m.len()]);
        lion(rule, p, g, m);
    }

    fn lars(&mut self, rule: LarsRule, p: &mut [f32], g: &[f32], v: &mut [f32]) {
        same_lengths("lars", p.len(), [g.len(), v.len()]);
        lars(rule, p, g, v);
    }

    fn lamb_averages(
        &mut self,
        rule: LambRule,
        p: &[f32],
        g: &[f32],
        m: &mut [f32],
        v: &mut [f32],
        p_sums: &mut [f64],
        u_sums: &mut [f64],
    ) {
        same_lengths("lamb_averages", p.len(), [g.len(), m.len(), v.len()]);
        let blocks = p.len().div_ceil(BLOCK);
        same_lengths("lamb_averages' sums", blocks, [p_sums.len(), u_sums.len()]);
        lamb_averages(rule, p, g, m, v, p_sums, u_sums);
    }

    fn lamb_step(&mut self, rule: LambRule, rate: f32, p: &mut [f32], m: &[f32], v: &[f32]) {
        same_lengths("lamb_step", p.len(), [m.len(), v.len()]);
        lamb_step(rule, rate, p, m, v);
    }

    fn block_sums_of_squares(&mut self, preparation: Preparation, g: &[f32], sums: &mut [f64]) {
        same_lengths(
            "block_sums_of_squares",
            g.len().div_ceil(BLOCK),
            [sums.len()],
        );
        block_sums(preparation, g, sums);
    }
}

fn same_lengths<const N: usize>(kernel: &str, len: usize, others: [usize; N]) {
    assert_eq!([len; N], others, "{kernel}: lengths differ");
}
