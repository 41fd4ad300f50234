//! The optimizers' update rules and the block sums of norms: the bits of the CPU, but for FTRL with a
//! power that is no root.

use super::kernels::Kernel;
use super::launch::{Argument, Grid, same_lengths};
use super::{Cuda, View, ViewMut};
use crate::backend::{
    AdagradRule, AdamRule, BLOCK, FtrlRule, LambRule, LarsRule, LionRule, Preparation, RmsPropRule,
    SgdRule, Update,
};

/// Threads that share a block of the block sums.
const BLOCK_THREADS: usize = 8;

// As `update.cu` has it.
const _: () = assert!(BLOCK == 64);

impl Update for Cuda {
    fn sgd(&mut self, rule: SgdRule, p: ViewMut<'_, f32>, g: View<'_, f32>) {
        self.update(Kernel::Sgd, (&Sgd::from(rule)).into(), g, [p]);
    }

    fn sgd_momentum(
        &mut self,
        rule: SgdRule,
        p: ViewMut<'_, f32>,
        g: View<'_, f32>,
        v: ViewMut<'_, f32>,
    ) {
        let rule = Sgd::from(rule);
        self.update(Kernel::SgdMomentum, (&rule).into(), g, [p, v]);
    }

    fn adam(
        &mut self,
        rule: AdamRule,
        p: ViewMut<'_, f32>,
        g: View<'_, f32>,
        m: ViewMut<'_, f32>,
        v: ViewMut<'_, f32>,
    ) {
        self.update(Kernel::Adam, (&rule).into(), g, [p, m, v]);
    }

    fn adagrad(
        &mut self,
        rule: AdagradRule,
        p: ViewMut<'_, f32>,
        g: View<'_, f32>,
        a: ViewMut<'_, f32>,
    ) {
        self.update(Kernel::Adagrad, (&rule).into(), g, [p, a]);
    }

    fn rms_prop(
        &mut self,
        rule: RmsPropRule,
        p: ViewMut<'_, f32>,
        g: View<'_, f32>,
        s: ViewMut<'_, f32>,
        a: Option<ViewMut<'_, f32>>,
        v: Option<ViewMut<'_, f32>>,
    ) {
        let rule = (&rule).into();
        match (a, v) {
            (None, None) => self.update(Kernel::RmsProp, rule, g, [p, s]),
            (None, Some(v)) => self.update(Kernel::RmsPropMomentum, rule, g, [p, s, v]),
            (Some(a), None) => self.update(Kernel::RmsPropCentered, rule, g, [p, s, a]),
            (Some(a), Some(v)) => {
                self.update(Kernel::RmsPropCenteredMomentum, rule, g, [p, s, a, v]);
            }
        }
    }

    fn ftrl(
        &mut self,
        rule: FtrlRule,
        p: ViewMut<'_, f32>,
        g: View<'_, f32>,
        n: ViewMut<'_, f32>,
        z: ViewMut<'_, f32>,
    ) {
        self.update(Kernel::Ftrl, (&rule).into(), g, [p, n, z]);
    }

    fn lion(&mut self, rule: LionRule, p: ViewMut<'_, f32>, g: View<'_, f32>, m: ViewMut<'_, f32>) {
        self.update(Kernel::Lion, (&rule).into(), g, [p, m]);
    }

    fn lars(&mut self, rule: LarsRule, p: ViewMut<'_, f32>, g: View<'_, f32>, v: ViewMut<'_, f32>) {
        self.update(Kernel::Lars, (&rule).into(), g, [p, v]);
    }

    fn lamb_averages(
        &mut self,
        rule: LambRule,
        p: View<'_, f32>,
        g: View<'_, f32>,
        m: ViewMut<'_, f32>,
        v: ViewMut<'_, f32>,
        p_sums: ViewMut<'_, f64>,
        u_sums: ViewMut<'_, f64>,
    ) {
        let len = p.len;
        same_lengths("lamb_averages", len, [g.len, m.len, v.len]);
        let blocks = len.div_ceil(BLOCK);
        same_lengths("lamb_averages' sums", blocks, [p_sums.len, u_sums.len]);
        let arguments = [
            (&rule).into(),
            (&len).into(),
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
        rate: f32,
        p: ViewMut<'_, f32>,
        m: View<'_, f32>,
        v: View<'_, f32>,
    ) {
        let len = p.len;
        same_lengths("lamb_step", len, [m.len, v.len]);
        let arguments = [
            (&rule).into(),
            (&rate).into(),
            (&len).into(),
            (&m).into(),
            (&v).into(),
            (&p).into(),
        ];
        self.launch(Kernel::LambStep, Grid::quads(len), &arguments);
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
    /// Queues a kernel that reads `g` and changes `arrays`, the parameters and up to three of state.
    fn update<const N: usize>(
        &self,
        kernel: Kernel,
        rule: Argument<'_>,
        g: View<'_, f32>,
        arrays: [ViewMut<'_, f32>; N],
    ) {
        let len = g.len;
        same_lengths(kernel.name(), len, arrays.each_ref().map(|array| array.len));
        let mut arguments = [rule; 7];
        arguments[1] = (&len).into();
        arguments[2] = (&g).into();
        for (argument, array) in arguments[3..].iter_mut().zip(&arrays) {
            *argument = array.into();
        }
        self.launch(kernel, Grid::quads(len), &arguments[..3 + N]);
    }
}

fn block_grid(len: usize) -> Grid {
    Grid::elements(len.div_ceil(BLOCK) * BLOCK_THREADS)
}
