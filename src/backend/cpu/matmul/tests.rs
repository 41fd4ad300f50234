//! Products against sums in `f64`, and bits against bits.

use super::*;

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        self.0 >> 33
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| self.next() as f32 / (1u64 << 30) as f32 - 1.0)
            .collect()
    }
}

fn backends() -> Vec<Cpu> {
    InstructionSet::ALL
        .into_iter()
        .filter_map(Cpu::with_instructions)
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// `a · b` in `f64`, and the sum of the terms' magnitudes.
fn reference(shape: MatmulShape, a: &[f32], b: &[f32]) -> Vec<(f64, f64)> {
    let MatmulShape { form, m, n, k } = shape;
    let mut sums = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let terms = (0..k).map(|p| {
                let left = if form == Form::TN {
                    a[p * m + i]
                } else {
                    a[i * k + p]
                };
                let right = if form == Form::NT {
                    b[j * k + p]
                } else {
                    b[p * n + j]
                };
                f64::from(left) * f64::from(right)
            });
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            sums.push((sum, size));
        }
    }
    sums
}

/// Shapes of every form whose extents lie around tiles, vectors and blocks.
fn shapes(numbers: &mut Numbers, count: usize) -> Vec<MatmulShape> {
    let extents = [
        1, 2, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100,
    ];
    let terms = [1, 2, 7, 8, 9, 15, 16, 17, 40, 100, 511, 512, 513, 800];
    let mut shapes = Vec::new();
    for _ in 0..count {
        for form in [Form::NN, Form::NT, Form::TN] {
            shapes.push(MatmulShape {
                form,
                m: extents[numbers.below(extents.len())],
                n: extents[numbers.below(extents.len())],
                k: terms[numbers.below(terms.len())],
            });
        }
    }
    shapes
}

#[test]
fn products_are_near_those_in_f64_and_equal_with_every_instruction_set() {
    let mut numbers = Numbers(1);
    for shape in shapes(&mut numbers, 60) {
        let MatmulShape { m, n, k, .. } = shape;
        let (a, b) = (numbers.values(m * k), numbers.values(k * n));
        let (bias, before) = (numbers.values(n), numbers.values(m * n));
        let sums = reference(shape, &a, &b);
        let mut first: Option<[Vec<u32>; 3]> = None;
        for mut cpu in backends() {
            let (mut set, mut added, mut relu) =
                (vec![f32::NAN; m * n], before.clone(), vec![f32::NAN; m * n]);
            cpu.matmul(shape, &a, &b, &mut set, Accumulate::Set);
            cpu.matmul(shape, &a, &b, &mut added, Accumulate::Add);
            cpu.matmul_bias_activation(shape, &a, &b, Some(&bias), Activation::Relu, &mut relu);
            for (i, &(sum, size)) in sums.iter().enumerate() {
                // Rounding grows with the square root of the terms in a block, then of blocks.
                let near = |got: f32, expected: f64| {
                    let error = (f64::from(got) - expected).abs();
                    assert!(error <= 1e-6 * (size + 1.0), "{shape:?} {got} {expected}");
                };
                near(set[i], sum);
                near(added[i], sum + f64::from(before[i]));
                near(relu[i], (sum + f64::from(bias[i % n])).max(0.0));
            }
            let all = [bits(&set), bits(&added), bits(&relu)];
            assert_eq!(
                first.get_or_insert_with(|| all.clone()),
                &all,
                "{cpu:?} {shape:?}"
            );
        }
    }
}

#[test]
fn sums_are_chains_of_fused_multiply_adds_block_by_block() {
    let mut numbers = Numbers(4);
    for shape in shapes(&mut numbers, 20) {
        let MatmulShape { form, m, n, k } = shape;
        let (a, b) = (numbers.values(m * k), numbers.values(k * n));
        let (i, j) = (numbers.below(m), numbers.below(n));
        let mut expected = 0.0;
        let block = plan::block_of_terms(k);
        for first in (0..k).step_by(block) {
            let chain = (first..k.min(first + block)).fold(0.0, |sum, p| {
                let left = if form == Form::TN {
                    a[p * m + i]
                } else {
                    a[i * k + p]
                };
                let right = if form == Form::NT {
                    b[j * k + p]
                } else {
                    b[p * n + j]
                };
                f32::mul_add(left, right, sum)
            });
            expected = if first == 0 { chain } else { expected + chain };
        }
        for mut cpu in backends() {
            let mut c = vec![0.0; m * n];
            cpu.matmul(shape, &a, &b, &mut c, Accumulate::Set);
            assert_eq!(
                c[i * n + j].to_bits(),
                f32::to_bits(expected),
                "{cpu:?} {shape:?}"
            );
        }
    }
}

#[test]
fn bits_do_not_depend_on_where_slices_start() {
    let mut numbers = Numbers(2);
    let (m, n, k) = (23, 37, 50);
    for form in [Form::NN, Form::NT, Form::TN] {
        let shape = MatmulShape { form, m, n, k };
        let (a, b) = (numbers.values(m * k), numbers.values(k * n));
        for mut cpu in backends() {
            let mut expected = vec![0.0; m * n];
            cpu.matmul(shape, &a, &b, &mut expected, Accumulate::Set);
            for offset in 0..64 {
                let shift = |values: &[f32]| [vec![9.0; offset], values.to_vec()].concat();
                let (a, b, mut c) = (shift(&a), shift(&b), vec![9.0; offset + m * n + 1]);
                let inside = &mut c[offset..offset + m * n];
                cpu.matmul(shape, &a[offset..], &b[offset..], inside, Accumulate::Set);
                assert_eq!(bits(&c[offset..offset + m * n]), bits(&expected));
                assert!(c[..offset].iter().all(|&x| x == 9.0) && c[offset + m * n] == 9.0);
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_place_in_c() {
    let mut numbers = Numbers(3);
    for (m, n, k) in [(80, 150, 40), (100, 70, 500), (7, 300, 900), (300, 10, 64)] {
        for mut cpu in backends() {
            // Row 0 of A and column 0 of B everywhere: every element is the same sum.
            let (row, column) = (numbers.values(k), numbers.values(k));
            let repeat = |values: &[f32], times: usize| values.repeat(times);
            let spread = |values: &[f32], times: usize| -> Vec<f32> {
                values
                    .iter()
                    .flat_map(|&value| vec![value; times])
                    .collect()
            };
            let mut seen = Vec::new();
            for (form, a, b) in [
                (Form::NN, repeat(&row, m), spread(&column, n)),
                (Form::NT, repeat(&row, m), repeat(&column, n)),
                (Form::TN, spread(&row, m), spread(&column, n)),
            ] {
                let mut c = vec![0.0; m * n];
                cpu.matmul(
                    MatmulShape { form, m, n, k },
                    &a,
                    &b,
                    &mut c,
                    Accumulate::Set,
                );
                seen.extend(bits(&c));
            }
            seen.dedup();
            assert_eq!(seen.len(), 1, "{cpu:?} {m} {n} {k}");
        }
    }
}

#[test]
fn empty_extents_leave_nothing_or_the_bias() {
    for mut cpu in backends() {
        for form in [Form::NN, Form::NT, Form::TN] {
            let no_terms = MatmulShape {
                form,
                m: 2,
                n: 2,
                k: 0,
            };
            let mut c = [1.0, -1.0, f32::NAN, 3.0];
            cpu.matmul(no_terms, &[], &[], &mut c, Accumulate::Set);
            assert_eq!(c, [0.0; 4]);
            c = [1.0; 4];
            cpu.matmul(no_terms, &[], &[], &mut c, Accumulate::Add);
            assert_eq!(c, [1.0; 4]);
            let bias = Some(&[2.0, -2.0][..]);
            cpu.matmul_bias_activation(no_terms, &[], &[], bias, Activation::Relu, &mut c);
            assert_eq!(c, [2.0, 0.0, 2.0, 0.0]);
            for (m, n) in [(0, 3), (3, 0), (0, 0)] {
                let shape = MatmulShape { form, m, n, k: 1 };
                cpu.matmul(
                    shape,
                    &[0.0; 3][..m],
                    &[0.0; 3][..n],
                    &mut [],
                    Accumulate::Set,
                );
            }
        }
    }
}

#[test]
fn what_is_not_finite_comes_through() {
    for mut cpu in backends() {
        for bad in [f32::NAN, f32::INFINITY] {
            for form in [Form::NN, Form::NT, Form::TN] {
                let (m, n, k) = (20, 20, 30);
                let shape = MatmulShape { form, m, n, k };
                let (mut a, b) = (vec![1.0; m * k], vec![0.0; k * n]);
                // Row 3, term 4: zero times this is not zero.
                a[if form == Form::TN {
                    4 * m + 3
                } else {
                    3 * k + 4
                }] = bad;
                let mut c = vec![0.0; m * n];
                cpu.matmul_bias_activation(shape, &a, &b, None, Activation::Relu, &mut c);
                for (i, value) in c.iter().enumerate() {
                    assert_eq!(value.is_nan(), i / n == 3, "{cpu:?} {form:?} {i}");
                }
            }
        }
    }
}

#[test]
fn the_dot_product_of_slide_32() {
    let golden = include_str!("../../../../tests/golden/slide32.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let expected = golden["exact_rounded_to_f32"].as_f64().unwrap() as f32;
    let a: Vec<f32> = (1..=256).map(|x| x as f32).collect();
    let b = [0.1f32; 256];
    for mut cpu in backends() {
        let mut sum = [0.0];
        cpu.matmul(
            MatmulShape::nn(1, 1, 256),
            &a,
            &b,
            &mut sum,
            Accumulate::Set,
        );
        assert_eq!(sum, [expected], "{:?}", cpu.instructions());
    }
}
