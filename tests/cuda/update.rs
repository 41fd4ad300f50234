//! Optimizer rules: the bits of the CPU over several steps, but for FTRL with a power that is no root.

use ringstep::backend::{
    AdagradRule, AdamRule, BLOCK, FtrlRule, LambRule, LarsRule, LionRule, Preparation, RmsPropRule,
    SgdRule, TrustRule, Update, View, ViewMut, Weights,
};

use crate::twins::{
    assert_close, assert_same_bits, cuda, download, for_random_sizes, normals, twins, upload,
};

/// Largest relative error where `powf` takes part.
const POWER_ERROR: f64 = 1e-6;

/// The last one is more than the threads of one block take, in groups of four.
const LENGTHS: [usize; 9] = [0, 1, 3, 31, 33, 64, 257, 1024, 1099];

/// Where `p`, `g` and the arrays of state begin: alike, alike and odd, and each elsewhere.
const OFFSETS: [[usize; 5]; 4] = [[0; 5], [3; 5], [1, 2, 3, 0, 1], [0, 0, 0, 1, 0]];

/// Elements after what a kernel may touch.
const MARGIN: usize = 5;

const PREPARATIONS: [Preparation; 4] = [
    Preparation::NONE,
    Preparation {
        scale: 0.7,
        limit: 0.5,
        decay: 0.99,
    },
    Preparation {
        scale: -1.5,
        limit: f32::INFINITY,
        decay: 1.0,
    },
    Preparation {
        scale: 1.0,
        limit: 0.0,
        decay: 0.5,
    },
];

/// A rule with what it keeps.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Sgd(SgdRule),
    SgdMomentum(SgdRule),
    Adam(AdamRule),
    Adagrad(AdagradRule),
    RmsProp(RmsPropRule, Averages, Momentum),
    Ftrl(FtrlRule),
    Lion(LionRule),
    Lars(LarsRule),
    Lamb(LambRule),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Averages {
    OfSquares,
    Centered,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Momentum {
    None,
    Kept,
}

/// Every rule with every option, after `preparation`.
fn rules(preparation: Preparation) -> Vec<Rule> {
    rules_with(preparation, 1e-7)
}

/// As [`rules`]; `epsilon` is what is added to roots.
fn rules_with(preparation: Preparation, epsilon: f32) -> Vec<Rule> {
    let sgd = |momentum, nesterov| SgdRule {
        preparation,
        rate: 0.03,
        momentum,
        nesterov,
    };
    let rms_prop = RmsPropRule {
        preparation,
        rate: 0.01,
        rho: 0.9,
        mix: 0.1,
        inner: 1e4 * epsilon,
        outer: epsilon,
        momentum: 0.5,
    };
    let mut rules = vec![
        Rule::Sgd(sgd(0.0, false)),
        Rule::SgdMomentum(sgd(0.9, false)),
        Rule::SgdMomentum(sgd(0.9, true)),
        Rule::Adam(AdamRule {
            preparation,
            rate: 0.01,
            mix_1: 0.1,
            mix_2: 0.001,
            epsilon,
        }),
        Rule::Adagrad(AdagradRule {
            preparation,
            rate: 0.01,
            epsilon,
        }),
        Rule::Lion(LionRule {
            preparation,
            rate: 0.01,
            beta_1: 0.9,
            mix_1: 0.1,
            beta_2: 0.99,
            mix_2: 0.01,
        }),
    ];
    for averages in [Averages::OfSquares, Averages::Centered] {
        for momentum in [Momentum::None, Momentum::Kept] {
            rules.push(Rule::RmsProp(rms_prop, averages, momentum));
        }
    }
    for power in [0.5, 0.7] {
        rules.push(Rule::Ftrl(FtrlRule {
            preparation,
            slowness: 10.0,
            power,
            l1: 0.1,
            ridge: 0.2,
            shrinkage: 0.1,
        }));
    }
    for weight_decay in [0.0, 0.1] {
        rules.push(Rule::Lars(LarsRule {
            preparation,
            momentum: 0.9,
            weight_decay,
        }));
        rules.push(Rule::Lamb(LambRule {
            preparation,
            mix_1: 0.1,
            mix_2: 0.001,
            correction_1: 10.0,
            correction_2: 1000.0,
            epsilon,
            weight_decay,
        }));
    }
    rules
}

/// Whether the twins have the same bits.
fn is_exact(rule: Rule) -> bool {
    !matches!(rule, Rule::Ftrl(FtrlRule { power, .. }) if power != 0.5)
}

/// Block sums of `x` as prepared.
fn sums_of<B: Update>(backend: &mut B, preparation: Preparation, x: View<'_, B>) -> B::Buffer<f64> {
    let blocks = B::len(x).div_ceil(BLOCK);
    let mut sums = upload(backend, &vec![f64::NAN; blocks]);
    backend.block_sums_of_squares(preparation, x, B::view_mut(&mut sums));
    sums
}

/// The rate of each block of a tensor, from block sums of its parameters and of their direction.
fn rates<B: Update>(
    backend: &mut B,
    [weight_decay, epsilon]: [f64; 2],
    [p_sums, u_sums]: &[B::Buffer<f64>; 2],
) -> B::Buffer<f32> {
    let rule = TrustRule {
        rate: 0.01,
        trust: 1.0,
        weight_decay,
        epsilon,
    };
    let blocks = B::len(B::view(p_sums));
    let tensor = upload(backend, &[0, blocks as u32, 0]);
    let mut rates = upload(backend, &vec![f32::NAN; blocks]);
    backend.trust_rates(
        rule,
        B::view(&tensor),
        B::view(p_sums),
        B::view(u_sums),
        B::view_mut(&mut rates),
    );
    rates
}

/// One step of `rule`; LARS and LAMB with the ratio of trust that their optimizers give them.
fn apply<B: Update>(
    backend: &mut B,
    rule: Rule,
    mut p: ViewMut<'_, B>,
    g: View<'_, B>,
    state: [ViewMut<'_, B>; 3],
) {
    let [a, b, c] = state;
    // Of the blocks, every other one.
    let spared: Vec<u32> = (0..B::len(g).div_ceil(BLOCK) as u32)
        .map(|at| at % 2)
        .collect();
    let table = upload(backend, &spared);
    let lars_sums = match rule {
        Rule::Lars(rule) => Some([
            sums_of(backend, Preparation::NONE, B::shared(&p)),
            sums_of(backend, rule.preparation, g),
        ]),
        _ => None,
    };
    let all = 0..B::len(g);
    let weights = Weights {
        p: B::reborrow(&mut p),
        g: B::slice(g, all.clone()),
        spared: Some(B::view(&table)),
    };
    match rule {
        Rule::Sgd(rule) => backend.sgd(rule, weights),
        Rule::SgdMomentum(rule) => backend.sgd_momentum(rule, weights, a),
        Rule::Adam(rule) => backend.adam(rule, weights, a, b),
        Rule::Adagrad(rule) => backend.adagrad(rule, weights, a),
        Rule::RmsProp(rule, averages, momentum) => {
            let b = (averages == Averages::Centered).then_some(b);
            let c = (momentum == Momentum::Kept).then_some(c);
            backend.rms_prop(rule, weights, a, b, c);
        }
        Rule::Ftrl(rule) => backend.ftrl(rule, weights, a, b),
        Rule::Lion(rule) => backend.lion(rule, weights, a),
        Rule::Lars(rule) => {
            let settings = [f64::from(rule.weight_decay), 1e-3];
            let sums = lars_sums.unwrap();
            let rates = rates(backend, settings, &sums);
            backend.lars(rule, weights, B::view(&rates), a);
        }
        Rule::Lamb(rule) => {
            let (mut m, mut v) = (a, b);
            let blocks = B::len(g).div_ceil(BLOCK);
            let mut sums = [(); 2].map(|()| upload(backend, &vec![f64::NAN; blocks]));
            let [p_sums, u_sums] = &mut sums;
            backend.lamb_averages(
                rule,
                weights,
                B::reborrow(&mut m),
                B::reborrow(&mut v),
                B::view_mut(p_sums),
                B::view_mut(u_sums),
            );
            let rates = rates(backend, [0.0; 2], &sums);
            let weights = Weights {
                p: B::reborrow(&mut p),
                g: B::slice(g, all),
                spared: Some(B::view(&table)),
            };
            backend.lamb_step(rule, weights, B::view(&rates), B::shared(&m), B::shared(&v));
        }
    }
}

/// A step for each of `gradients`, from parameters and state that are the same for all rules. All
/// arrays after it, and what lies around them.
fn train<B: Update>(
    backend: &mut B,
    rule: Rule,
    gradients: &[Vec<f32>],
    offsets: [usize; 5],
) -> [Vec<f32>; 4] {
    let len = gradients[0].len();
    let squares = |seed| normals(seed, len).iter().map(|x| x * x).collect();
    let start = [normals(1, len), squares(2), squares(3), normals(4, len)];
    train_from(backend, rule, start, gradients, offsets)
}

/// As [`train`], from `start`: parameters and three arrays of state.
fn train_from<B: Update>(
    backend: &mut B,
    rule: Rule,
    start: [Vec<f32>; 4],
    gradients: &[Vec<f32>],
    [p_offset, g_offset, offsets @ ..]: [usize; 5],
) -> [Vec<f32>; 4] {
    let len = gradients[0].len();
    // Around them lies what would be seen in every sum and every maximum.
    let place = |offset: usize, values: &[f32]| {
        [&vec![f32::MAX; offset], values, &[f32::MAX; MARGIN]].concat()
    };
    let [p, state @ ..] = start;
    let mut p = upload(backend, &place(p_offset, &p));
    let mut place_state = |i: usize| upload(backend, &place(offsets[i], &state[i]));
    let mut state = [place_state(0), place_state(1), place_state(2)];
    let mut g = upload(backend, &place(g_offset, &vec![0.0; len]));
    for gradient in gradients {
        backend.upload(&place(g_offset, gradient), B::view_mut(&mut g));
        let part = |offset| offset..offset + len;
        let mut offsets = offsets.iter();
        let state = state.each_mut().map(|state| {
            let offset = *offsets.next().unwrap();
            B::slice_mut(B::view_mut(state), part(offset))
        });
        let p = B::slice_mut(B::view_mut(&mut p), part(p_offset));
        let g = B::slice(B::view(&g), part(g_offset));
        apply(backend, rule, p, g, state);
    }
    let [a, b, c] = &state;
    [&p, a, b, c].map(|array| download(backend, array))
}

/// `steps` gradients, which are not the same.
fn gradients(len: usize, steps: u64) -> Vec<Vec<f32>> {
    (0..steps).map(|step| normals(100 + step, len)).collect()
}

#[track_caller]
fn assert_twins(rule: Rule, (cpu, cuda): ([Vec<f32>; 4], [Vec<f32>; 4])) {
    // Arithmetic on a GPU has one NaN, that of a CPU many.
    let one_nan = |values: &Vec<f32>| -> Vec<f32> {
        let one = |x: &f32| if x.is_nan() { f32::NAN } else { *x };
        values.iter().map(one).collect()
    };
    for (cpu, cuda) in cpu.iter().zip(&cuda) {
        if is_exact(rule) {
            assert_same_bits(&one_nan(cpu), &one_nan(cuda));
        } else {
            // What lies around is too large to compare with a relative error.
            let finite = |x: f32| {
                if x == f32::MAX || !x.is_finite() {
                    0.0
                } else {
                    x
                }
            };
            let finite = |values: &[f32]| values.iter().map(|&x| finite(x)).collect::<Vec<_>>();
            assert_close(&finite(cpu), &finite(cuda), POWER_ERROR);
            let kind = |values: &[f32]| -> Vec<_> {
                let kind = |x: &f32| (x.is_nan(), x.is_infinite(), *x == f32::MAX);
                values.iter().map(kind).collect()
            };
            assert_eq!(kind(cpu), kind(cuda));
        }
    }
}

#[test]
fn every_rule_at_every_length_and_offset() {
    let gpu = &mut cuda();
    for rule in rules(PREPARATIONS[1]) {
        for len in LENGTHS {
            let offsets = OFFSETS[len % OFFSETS.len()];
            for offsets in [[0; 5], offsets] {
                let twins = twins!(on gpu, train, rule, &gradients(len, 2), offsets);
                assert_twins(rule, twins);
            }
        }
        for offsets in OFFSETS {
            let twins = twins!(on gpu, train, rule, &gradients(257, 3), offsets);
            assert_twins(rule, twins);
        }
    }
}

#[test]
fn every_rule_at_random_lengths_and_offsets() {
    let gpu = &mut cuda();
    for_random_sizes(9, 4, [900, 8, 8, 8, 8, 8], |[len, offsets @ ..]| {
        for rule in rules(PREPARATIONS[1]) {
            let twins = twins!(on gpu, train, rule, &gradients(len, 2), offsets);
            assert_twins(rule, twins);
        }
    });
}

#[test]
fn every_rule_after_every_preparation() {
    let gpu = &mut cuda();
    for preparation in PREPARATIONS {
        for rule in rules(preparation) {
            let twins = twins!(on gpu, train, rule, &gradients(157, 7), [0; 5]);
            assert_twins(rule, twins);
        }
    }
}

#[test]
fn gradients_that_are_not_finite_or_of_any_size() {
    let gpu = &mut cuda();
    let special = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        -1e30,
        1e-30,
        f32::MIN_POSITIVE / 8.0,
        -f32::MIN_POSITIVE / 3.0,
        0.0,
        -0.0,
    ];
    for preparation in PREPARATIONS {
        for rule in rules(preparation) {
            for special in special {
                let mut gradients = gradients(7, 3);
                gradients[1][5] = special;
                let twins = twins!(on gpu, train, rule, &gradients, [0; 5]);
                assert_eq!(twins.1[0][5].is_nan(), twins.0[0][5].is_nan(), "{rule:?}");
                assert!(twins.1[0][5].is_nan() || !special.is_nan(), "{rule:?}");
                assert_twins(rule, twins);
            }
        }
    }
}

#[test]
fn zeros_stay_zero() {
    let gpu = &mut cuda();
    // Where nothing is added to roots they are zero, and divided by.
    for rule in rules_with(PREPARATIONS[1], 0.0) {
        let zeros = || vec![0.0; 37];
        let start = [(); 4].map(|()| zeros());
        for array in train_from(gpu, rule, start, &[zeros(), zeros()], [0; 5]) {
            assert_eq!(array[..37], [0.0; 37], "{rule:?}");
        }
    }
}

#[test]
fn neighbours_in_an_arena_take_their_own_rules() {
    fn body<B: Update>(backend: &mut B, rules: [Rule; 2], middle: usize) -> [Vec<f32>; 4] {
        let mut arrays = [1, 2, 3, 4].map(|seed| {
            let squares: Vec<f32> = normals(seed, 200).iter().map(|x| x * x).collect();
            upload(backend, &squares)
        });
        let g = upload(backend, &normals(5, 200));
        for _ in 0..3 {
            let halves = arrays
                .each_mut()
                .map(|a| B::split_mut(B::view_mut(a), middle));
            let [p, a, b, c] = halves;
            let g = B::view(&g);
            let (decayed, others) = (B::slice(g, 0..middle), B::slice(g, middle..200));
            apply(backend, rules[0], p.0, decayed, [a.0, b.0, c.0]);
            apply(backend, rules[1], p.1, others, [a.1, b.1, c.1]);
        }
        arrays.map(|array| download(backend, &array))
    }
    let gpu = &mut cuda();
    let (decayed, others) = (rules(PREPARATIONS[1]), rules(PREPARATIONS[2]));
    for (decayed, other) in decayed.into_iter().zip(others) {
        for middle in [0, 64, 99] {
            let twins = twins!(on gpu, body, [decayed, other], middle);
            assert_twins(decayed, twins);
        }
    }
}
