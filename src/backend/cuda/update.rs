//! The optimizers' update rules and the block sums of norms: the bits of the CPU, but for FTRL with a
//! power that is no root.

use super::kernels::Kernel;
use super::launch::{Argument, Grid, same_lengths};
use super::{Cuda, View, ViewMut};
use crate::backend::{
    AdagradRule, AdamRule, BLOCK, FtrlRule, LambRule, LarsRule, LionRule, Preparation, RmsPropRule,
    SUM_LANES, SgdRule, TrustRule, Update, Weights,
};

/// Threads that share a block of the block sums.
const BLOCK_THREADS: usize = 8;

// As `update.cu` has them.
const _: () = assert!(BLOCK == 64 && SUM_LANES == 256);

impl Update for Cuda {
    fn sgd(&mut self, rule: SgdRule, weights: Weights<'_, Self>) {
        self.update(Kernel::Sgd, (&Sgd::from(rule)).into(), weights, []);
    }

    fn sgd_momentum(&mut self, rule: SgdRule, weights: Weights<'_, Self>, v: ViewMut<'_, f32>) {
        let rule = Sgd::from(rule);
        self.update(Kernel::SgdMomentum, (&rule).into(), weights, [v]);
    }

    fn adam(
        &mut self,
        rule: AdamRule,
        weights: Weights<'_, Self>,
        m: ViewMut<'_, f32>,
        v: ViewMut<'_, f32>,
    ) {
        self.update(Kernel::Adam, (&rule).into(), weights, [m, v]);
    }

    fn adagrad(&mut self, rule: AdagradRule, weights: Weights<'_, Self>, a: ViewMut<'_, f32>) {
        self.update(Kernel::Adagrad, (&rule).into(), weights, [a]);
    }

    fn rms_prop(
        &mut self,
        rule: RmsPropRule,
        weights: Weights<'_, Self>,
        s: ViewMut<'_, f32>,
        a: Option<ViewMut<'_, f32>>,
        v: Option<ViewMut<'_, f32>>,
    ) {
        let rule = (&rule).into();
        match (a, v) {
            (None, None) => self.update(Kernel::RmsProp, rule, weights, [s]),
            (None, Some(v)) => self.update(Kernel::RmsPropMomentum, rule, weights, [s, v]),
            (Some(a), None) => self.update(Kernel::RmsPropCentered, rule, weights, [s, a]),
            (Some(a), Some(v)) => {
                self.update(Kernel::RmsPropCenteredMomentum, rule, weights, [s, a, v]);
            }
        }
    }

    fn ftrl(
        &mut self,
        rule: FtrlRule,
        weights: Weights<'_, Self>,
        n: ViewMut<'_, f32>,
        z: ViewMut<'_, f32>,
    ) {
        self.update(Kernel::Ftrl, (&rule).into(), weights, [n, z]);
    }

    fn lion(&mut self, rule: LionRule, weights: Weights<'_, Self>, m: ViewMut<'_, f32>) {
        self.update(Kernel::Lion, (&rule).into(), weights, [m]);
    }

    fn lars(
        &mut self,
        rule: LarsRule,
        weights: Weights<'_, Self>,
        rates: View<'_, f32>,
        v: ViewMut<'_, f32>,
    ) {
        let Weights { p, g, spared } = weights;
        let len = p.len;
        same_lengths("lars", len, [g.len, v.len]);
        same_lengths("lars' rates", len.div_ceil(BLOCK), [rates.len]);
        let spared = table(len, spared);
        let arguments = [
            (&rule).into(),
            (&len).into(),
            (&spared).into(),
            (&rates).into(),
            (&g).into(),
            (&p).into(),
            (&v).into(),
        ];
        self.launch(Kernel::Lars, Grid::quads(len), &arguments);
    }

    fn lamb_averages(
        &mut self,
        rule: LambRule,
        weights: Weights<'_, Self>,
        m: ViewMut<'_, f32>,
        v: ViewMut<'_, f32>,
        p_sums: ViewMut<'_, f64>,
        u_sums: ViewMut<'_, f64>,
    ) {
        let Weights { p, g, spared } = weights;
        let len = p.len;
        same_lengths("lamb_averages", len, [g.len, m.len, v.len]);
        let blocks = len.div_ceil(BLOCK);
        same_lengths("lamb_averages' sums", blocks, [p_sums.len, u_sums.len]);
        let spared = table(len, spared);
        let arguments = [
            (&rule).into(),
            (&len).into(),
            (&spared).into(),
            (&g).into(),
            (&p).into(),
            (&m).into(),
            (&v).into(),
            (&p_sums).into(),
            (&u_sums).into(),
        ];
        self.launch(Kernel::LambAverages, block_grid(len), &arguments);
    }

    fn lamb_step(
        &mut self,
        rule: LambRule,
        weights: Weights<'_, Self>,
        rates: View<'_, f32>,
        m: View<'_, f32>,
        v: View<'_, f32>,
    ) {
        let Weights { p, spared, .. } = weights;
        let len = p.len;
        same_lengths("lamb_step", len, [m.len, v.len]);
        same_lengths("lamb_step's rates", len.div_ceil(BLOCK), [rates.len]);
        let spared = table(len, spared);
        let arguments = [
            (&rule).into(),
            (&len).into(),
            (&spared).into(),
            (&rates).into(),
            (&m).into(),
            (&v).into(),
            (&p).into(),
        ];
        self.launch(Kernel::LambStep, Grid::quads(len), &arguments);
    }

    fn trust_rates(
        &mut self,
        rule: TrustRule,
        tensors: View<'_, u32>,
        p_sums: View<'_, f64>,
        u_sums: View<'_, f64>,
        rates: ViewMut<'_, f32>,
    ) {
        same_lengths("trust_rates", rates.len, [p_sums.len, u_sums.len]);
        let arguments = [
            (&rule).into(),
            (&tensors).into(),
            (&p_sums).into(),
            (&u_sums).into(),
            (&rates).into(),
        ];
        let count = u32::try_from(tensors.len / 3).expect("a model has fewer than 2^32 tensors");
        let grid = Grid::new([count, 1, 1], [SUM_LANES as u32, 1, 1]);
        self.launch(Kernel::TrustRates, grid, &arguments);
    }

    fn block_sums_of_squares(
        &mut self,
        preparation: Preparation,
        g: View<'_, f32>,
        sums: ViewMut<'_, f64>,
    ) {
        let len = g.len;
        same_lengths("block_sums_of_squares", len.div_ceil(BLOCK), [sums.len]);
        let arguments = [
            (&preparation).into(),
            (&len).into(),
            (&g).into(),
            (&sums).into(),
        ];
        self.launch(Kernel::BlockSumsOfSquares, block_grid(len), &arguments);
    }
}

/// [`SgdRule`] as kernels read it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Sgd {
    preparation: Preparation,
    rate: f32,
    momentum: f32,
    is_nesterov: u32,
}

impl From<SgdRule> for Sgd {
    fn from(rule: SgdRule) -> Self {
        Self {
            preparation: rule.preparation,
            rate: rule.rate,
            momentum: rule.momentum,
            is_nesterov: rule.nesterov.into(),
        }
    }
}

impl Cuda {
    /// Queues a kernel that reads `g` and changes `p` and up to three arrays of state.
    fn update<const N: usize>(
        &self,
        kernel: Kernel,
        rule: Argument<'_>,
        Weights { p, g, spared }: Weights<'_, Self>,
        state: [ViewMut<'_, f32>; N],
    ) {
        let len = p.len;
        same_lengths(kernel.name(), len, [g.len]);
        same_lengths(kernel.name(), len, state.each_ref().map(|array| array.len));
        let spared = table(len, spared);
        let mut arguments = [rule; 8];
        arguments[1] = (&len).into();
        arguments[2] = (&spared).into();
        arguments[3] = (&g).into();
        arguments[4] = (&p).into();
        for (argument, array) in arguments[5..].iter_mut().zip(&state) {
            *argument = array.into();
        }
        self.launch(kernel, Grid::quads(len), &arguments[..5 + N]);
    }
}

/// The table of what weight decay spares among `len` elements; null where there is none.
fn table(len: usize, spared: Option<View<'_, u32>>) -> View<'_, u32> {
    if let Some(spared) = spared {
        same_lengths("a table of blocks", len.div_ceil(BLOCK), [spared.len]);
    }
    View::or_null(spared)
}

fn block_grid(len: usize) -> Grid {
    Grid::elements(len.div_ceil(BLOCK) * BLOCK_THREADS)
}
