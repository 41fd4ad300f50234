//! Properties that every rule has.

use super::*;

const PREPARATION: Preparation = Preparation {
    scale: 0.7,
    limit: 0.5,
    decay: 0.99,
};

/// Every kernel, on `p`, `g` and three arrays of state.
type Kernel = fn(&mut [f32], &[f32], [&mut [f32]; 3]);

const KERNELS: &[(&str, Kernel)] = &[
    ("sgd", |p, g, _| {
        Cpu::new().sgd(sgd_rule(false), Weights::decayed(p, g))
    }),
    ("momentum", |p, g, [v, ..]| {
        Cpu::new().sgd_momentum(sgd_rule(false), Weights::decayed(p, g), v);
    }),
    ("nesterov", |p, g, [v, ..]| {
        Cpu::new().sgd_momentum(sgd_rule(true), Weights::decayed(p, g), v);
    }),
    ("adam", |p, g, [m, v, _]| {
        let rule = AdamRule {
            preparation: PREPARATION,
            rate: 0.01,
            mix_1: 0.1,
            mix_2: 0.001,
            epsilon: 1e-7,
        };
        Cpu::new().adam(rule, Weights::decayed(p, g), m, v);
    }),
    ("adagrad", |p, g, [a, ..]| {
        let rule = AdagradRule {
            preparation: PREPARATION,
            rate: 0.01,
            epsilon: 1e-7,
        };
        Cpu::new().adagrad(rule, Weights::decayed(p, g), a);
    }),
    ("rms_prop", |p, g, [s, a, v]| {
        Cpu::new().rms_prop(RMS_PROP, Weights::decayed(p, g), s, Some(a), Some(v));
    }),
    ("ftrl", |p, g, [n, z, _]| {
        Cpu::new().ftrl(ftrl_rule(0.5), Weights::decayed(p, g), n, z)
    }),
    ("ftrl, other power", |p, g, [n, z, _]| {
        Cpu::new().ftrl(ftrl_rule(0.7), Weights::decayed(p, g), n, z);
    }),
    ("lion", |p, g, [m, ..]| {
        let rule = LionRule {
            preparation: PREPARATION,
            rate: 0.01,
            beta_1: 0.9,
            mix_1: 0.1,
            beta_2: 0.99,
            mix_2: 0.01,
        };
        Cpu::new().lion(rule, Weights::decayed(p, g), m);
    }),
    ("lars", |p, g, [v, ..]| {
        let rule = LarsRule {
            preparation: PREPARATION,
            momentum: 0.9,
            weight_decay: 0.1,
        };
        let rates = vec![0.01; p.len().div_ceil(BLOCK)];
        Cpu::new().lars(rule, Weights::decayed(p, g), &rates, v);
    }),
    ("lamb", |p, g, [m, v, _]| {
        let rule = LambRule {
            preparation: PREPARATION,
            mix_1: 0.1,
            mix_2: 0.001,
            correction_1: 10.0,
            correction_2: 1000.0,
            epsilon: 1e-6,
            weight_decay: 0.1,
        };
        let blocks = p.len().div_ceil(BLOCK);
        let (mut p_sums, mut u_sums) = (vec![0.0; blocks], vec![0.0; blocks]);
        let rates = vec![0.01; blocks];
        let weights = Weights::decayed(&mut *p, g);
        Cpu::new().lamb_averages(rule, weights, m, v, &mut p_sums, &mut u_sums);
        Cpu::new().lamb_step(rule, Weights::decayed(p, g), &rates, m, v);
    }),
];

const RMS_PROP: RmsPropRule = RmsPropRule {
    preparation: PREPARATION,
    rate: 0.01,
    rho: 0.9,
    mix: 0.1,
    inner: 1e-3,
    outer: 1e-7,
    momentum: 0.5,
};

const fn sgd_rule(nesterov: bool) -> SgdRule {
    SgdRule {
        preparation: PREPARATION,
        rate: 0.01,
        momentum: 0.9,
        nesterov,
    }
}

const fn ftrl_rule(power: f32) -> FtrlRule {
    FtrlRule {
        preparation: PREPARATION,
        slowness: 10.0,
        power,
        l1: 0.1,
        ridge: 0.2,
        shrinkage: 0.1,
    }
}

/// `p`, `g` and state whose squares are positive.
fn arrays(len: usize) -> [Vec<f32>; 5] {
    let array = |a: f32| (0..len).map(|i| (i as f32 * a).sin()).collect::<Vec<_>>();
    let squares = |a: f32| array(a).iter().map(|x| x * x).collect::<Vec<_>>();
    [
        array(1.1),
        array(0.7),
        squares(0.3),
        squares(1.9),
        array(2.3),
    ]
}

#[test]
fn bits_do_not_depend_on_the_place_in_a_slice() {
    for (name, kernel) in KERNELS {
        let [mut p, g, mut a, mut b, mut c] = arrays(200);
        let before = p.clone();
        kernel(&mut p, &g, [&mut a, &mut b, &mut c]);
        assert!(
            p.iter().zip(&before).skip(1).all(|(p, before)| p != before),
            "{name}"
        );
        for offset in 0..64 {
            let [mut q, g, mut d, mut e, mut f] = arrays(200);
            let part = offset..200 - offset / 2;
            kernel(
                &mut q[part.clone()],
                &g[part.clone()],
                [
                    &mut d[part.clone()],
                    &mut e[part.clone()],
                    &mut f[part.clone()],
                ],
            );
            for (whole, cut) in [(&p, &q), (&a, &d), (&b, &e), (&c, &f)] {
                let equal = whole[part.clone()] == cut[part.clone()];
                assert!(equal, "{name} at offset {offset}");
            }
        }
    }
}

#[test]
fn a_gradient_that_is_not_a_number_reaches_the_parameter() {
    for (name, kernel) in KERNELS {
        let [mut p, mut g, mut a, mut b, mut c] = arrays(40);
        g[17] = f32::NAN;
        kernel(&mut p, &g, [&mut a, &mut b, &mut c]);
        let lost: Vec<_> = (0..40).filter(|&i| p[i].is_nan()).collect();
        assert_eq!(lost, [17], "{name}");
    }
}

#[test]
fn zeros_stay_zero() {
    for (name, kernel) in KERNELS {
        let [mut p, g, mut a, mut b, mut c] = [(); 5].map(|()| vec![0.0; 40]);
        kernel(&mut p, &g, [&mut a, &mut b, &mut c]);
        assert!([p, a, b, c].iter().flatten().all(|&x| x == 0.0), "{name}");
    }
}
