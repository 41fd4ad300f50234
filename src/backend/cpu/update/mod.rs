//! The optimizers' update rules on flat slices, and the block sums that norms are made of.

mod rules;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::rules::{
    Sparing, adagrad, adam, block_sums, ftrl_power, ftrl_root, lamb_averages, lamb_step, lars,
    lion, momentum, nesterov, rms_prop_centered, rms_prop_centered_momentum, rms_prop_momentum,
    rms_prop_plain, sgd,
};
use super::Cpu;
use crate::backend::{
    AdagradRule, AdamRule, BLOCK, FtrlRule, LambRule, LarsRule, LionRule, Preparation, RmsPropRule,
    SUM_LANES, SgdRule, TrustRule, Update, Weights,
};

impl TrustRule {
    /// The rate of a tensor that weight decay does not spare, from both norms.
    fn rate(self, weights: f64, direction: f64) -> f64 {
        if weights == 0.0 || direction == 0.0 {
            return self.rate;
        }
        let divisor = direction + self.weight_decay * weights + self.epsilon;
        self.rate * (self.trust * weights / divisor)
    }
}

/// Sum of a tensor's block sums.
fn sum_of_blocks(sums: &[f64]) -> f64 {
    let mut lanes = [0.0; SUM_LANES];
    for part in sums.chunks(SUM_LANES) {
        for (lane, &sum) in lanes.iter_mut().zip(part) {
            *lane += sum;
        }
    }
    let mut half = SUM_LANES / 2;
    while half > 0 {
        let (lanes, others) = lanes[..2 * half].split_at_mut(half);
        for (lane, &other) in lanes.iter_mut().zip(&*others) {
            *lane += other;
        }
        half /= 2;
    }
    lanes[0]
}

/// Runs of blocks of `len` elements that have one `kind`, with the elements that they are.
fn runs<K: PartialEq>(
    len: usize,
    kind: impl Fn(usize) -> K,
) -> impl Iterator<Item = (K, Range<usize>)> {
    let (mut first, blocks) = (0, len.div_ceil(BLOCK));
    std::iter::from_fn(move || {
        let of = (first < blocks).then(|| kind(first))?;
        let end = (first..blocks).find(|&block| kind(block) != of);
        let end = end.unwrap_or(blocks);
        let run = first * BLOCK..len.min(end * BLOCK);
        first = end;
        Some((of, run))
    })
}

/// The same of parameters under one rule, by whether weight decay spares them.
fn runs_of<R: Sparing>(
    rule: R,
    kernel: &str,
    len: usize,
    spared: Option<&[u32]>,
) -> impl Iterator<Item = (R, Range<usize>)> {
    if let Some(spared) = spared {
        same_lengths(kernel, len.div_ceil(BLOCK), [spared.len()]);
    }
    let is_spared = move |block| spared.is_some_and(|spared: &[u32]| spared[block] != 0);
    runs(len, is_spared).map(move |(is_spared, run)| match is_spared {
        true => (rule.sparing(), run),
        false => (rule, run),
    })
}

impl Update for Cpu {
    fn sgd(&mut self, rule: SgdRule, Weights { p, g, spared }: Weights<'_, Self>) {
        assert_eq!(p.len(), g.len(), "sgd: lengths differ");
        for (rule, run) in runs_of(rule, "sgd", p.len(), spared) {
            sgd(rule, &mut p[run.clone()], &g[run]);
        }
    }

    fn sgd_momentum(
        &mut self,
        rule: SgdRule,
        Weights { p, g, spared }: Weights<'_, Self>,
        v: &mut [f32],
    ) {
        same_lengths("sgd_momentum", p.len(), [g.len(), v.len()]);
        for (rule, run) in runs_of(rule, "sgd_momentum", p.len(), spared) {
            let (p, g) = (&mut p[run.clone()], &g[run.clone()]);
            match rule.nesterov {
                true => nesterov(rule, p, g, &mut v[run]),
                false => momentum(rule, p, g, &mut v[run]),
            }
        }
    }

    fn adam(
        &mut self,
        rule: AdamRule,
        Weights { p, g, spared }: Weights<'_, Self>,
        m: &mut [f32],
        v: &mut [f32],
    ) {
        same_lengths("adam", p.len(), [g.len(), m.len(), v.len()]);
        for (rule, run) in runs_of(rule, "adam", p.len(), spared) {
            let (p, g) = (&mut p[run.clone()], &g[run.clone()]);
            adam(rule, p, g, &mut m[run.clone()], &mut v[run]);
        }
    }

    fn adagrad(
        &mut self,
        rule: AdagradRule,
        Weights { p, g, spared }: Weights<'_, Self>,
        a: &mut [f32],
    ) {
        same_lengths("adagrad", p.len(), [g.len(), a.len()]);
        for (rule, run) in runs_of(rule, "adagrad", p.len(), spared) {
            let (p, g) = (&mut p[run.clone()], &g[run.clone()]);
            adagrad(rule, p, g, &mut a[run]);
        }
    }

    fn rms_prop(
        &mut self,
        rule: RmsPropRule,
        Weights { p, g, spared }: Weights<'_, Self>,
        s: &mut [f32],
        mut a: Option<&mut [f32]>,
        mut v: Option<&mut [f32]>,
    ) {
        let optional = |state: &Option<&mut [f32]>| state.as_ref().map_or(p.len(), |s| s.len());
        let lengths = [g.len(), s.len(), optional(&a), optional(&v)];
        same_lengths("rms_prop", p.len(), lengths);
        for (rule, run) in runs_of(rule, "rms_prop", p.len(), spared) {
            let (p, g) = (&mut p[run.clone()], &g[run.clone()]);
            let s = &mut s[run.clone()];
            let a = a.as_mut().map(|a| &mut a[run.clone()]);
            let v = v.as_mut().map(|v| &mut v[run]);
            match (a, v) {
                (None, None) => rms_prop_plain(rule, p, g, s),
                (None, Some(v)) => rms_prop_momentum(rule, p, g, s, v),
                (Some(a), None) => rms_prop_centered(rule, p, g, s, a),
                (Some(a), Some(v)) => rms_prop_centered_momentum(rule, p, g, s, a, v),
            }
        }
    }

    fn ftrl(
        &mut self,
        rule: FtrlRule,
        Weights { p, g, spared }: Weights<'_, Self>,
        n: &mut [f32],
        z: &mut [f32],
    ) {
        same_lengths("ftrl", p.len(), [g.len(), n.len(), z.len()]);
        for (rule, run) in runs_of(rule, "ftrl", p.len(), spared) {
            let (p, g) = (&mut p[run.clone()], &g[run.clone()]);
            let (n, z) = (&mut n[run.clone()], &mut z[run]);
            match rule.power == 0.5 {
                true => ftrl_root(rule, p, g, n, z),
                false => ftrl_power(rule, p, g, n, z),
            }
        }
    }

    fn lion(&mut self, rule: LionRule, Weights { p, g, spared }: Weights<'_, Self>, m: &mut [f32]) {
        same_lengths("lion", p.len(), [g.len(), m.len()]);
        for (rule, run) in runs_of(rule, "lion", p.len(), spared) {
            let (p, g) = (&mut p[run.clone()], &g[run.clone()]);
            lion(rule, p, g, &mut m[run]);
        }
    }

    fn lars(
        &mut self,
        rule: LarsRule,
        Weights { p, g, spared }: Weights<'_, Self>,
        rates: &[f32],
        v: &mut [f32],
    ) {
        same_lengths("lars", p.len(), [g.len(), v.len()]);
        same_lengths("lars' rates", p.len().div_ceil(BLOCK), [rates.len()]);
        for (rule, run) in runs_of(rule, "lars", p.len(), spared) {
            let rates = &rates[run.start / BLOCK..run.end.div_ceil(BLOCK)];
            let (p, g) = (&mut p[run.clone()], &g[run.clone()]);
            let v = &mut v[run];
            for (rate, run) in runs(p.len(), |block| rates[block].to_bits()) {
                let (p, g, v) = (&mut p[run.clone()], &g[run.clone()], &mut v[run]);
                lars(rule, f32::from_bits(rate), p, g, v);
            }
        }
    }

    fn lamb_averages(
        &mut self,
        rule: LambRule,
        Weights { p, g, spared }: Weights<'_, Self>,
        m: &mut [f32],
        v: &mut [f32],
        p_sums: &mut [f64],
        u_sums: &mut [f64],
    ) {
        same_lengths("lamb_averages", p.len(), [g.len(), m.len(), v.len()]);
        let blocks = p.len().div_ceil(BLOCK);
        same_lengths("lamb_averages' sums", blocks, [p_sums.len(), u_sums.len()]);
        for (rule, run) in runs_of(rule, "lamb_averages", p.len(), spared) {
            let blocks = run.start / BLOCK..run.end.div_ceil(BLOCK);
            lamb_averages(
                rule,
                &p[run.clone()],
                &g[run.clone()],
                &mut m[run.clone()],
                &mut v[run],
                &mut p_sums[blocks.clone()],
                &mut u_sums[blocks],
            );
        }
    }

    fn lamb_step(
        &mut self,
        rule: LambRule,
        Weights { p, spared, .. }: Weights<'_, Self>,
        rates: &[f32],
        m: &[f32],
        v: &[f32],
    ) {
        same_lengths("lamb_step", p.len(), [m.len(), v.len()]);
        same_lengths("lamb_step's rates", p.len().div_ceil(BLOCK), [rates.len()]);
        for (rule, run) in runs_of(rule, "lamb_step", p.len(), spared) {
            let rates = &rates[run.start / BLOCK..run.end.div_ceil(BLOCK)];
            let (p, m, v) = (&mut p[run.clone()], &m[run.clone()], &v[run]);
            for (rate, run) in runs(p.len(), |block| rates[block].to_bits()) {
                let (m, v) = (&m[run.clone()], &v[run.clone()]);
                lamb_step(rule, f32::from_bits(rate), &mut p[run], m, v);
            }
        }
    }

    fn trust_rates(
        &mut self,
        rule: TrustRule,
        tensors: &[u32],
        p_sums: &[f64],
        u_sums: &[f64],
        rates: &mut [f32],
    ) {
        same_lengths("trust_rates", rates.len(), [p_sums.len(), u_sums.len()]);
        for &[first, end, is_spared] in tensors.as_chunks().0 {
            let blocks = first as usize..end as usize;
            let norm = |sums: &[f64]| sum_of_blocks(&sums[blocks.clone()]).sqrt();
            let rate = match is_spared {
                0 => rule.rate(norm(p_sums), norm(u_sums)),
                _ => rule.rate,
            };
            rates[blocks].fill(rate as f32);
        }
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
