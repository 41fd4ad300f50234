//! Matrix products, the heart of dense and convolution layers.

use super::Cpu;
use crate::backend::{Accumulate, Activation, Form, Matmul, MatmulShape};

impl Matmul for Cpu {
    fn matmul(
        &mut self,
        shape: MatmulShape,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        write: Accumulate,
    ) {
        if write == Accumulate::Set {
            c.fill(0.0);
        }
        add_product(shape, a, b, c);
    }

    fn matmul_bias_activation(
        &mut self,
        shape: MatmulShape,
        a: &[f32],
        b: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
        c: &mut [f32],
    ) {
        self.matmul(shape, a, b, c, Accumulate::Set);
        for row in c.chunks_exact_mut(shape.n.max(1)) {
            for (value, bias) in row.iter_mut().zip(bias.into_iter().flatten()) {
                *value += bias;
            }
        }
        match activation {
            Activation::Linear => {}
            Activation::Relu => c
                .iter_mut()
                .for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x }),
            other => unimplemented!("{other:?} is not an element-wise kernel yet"),
        }
    }
}

fn add_product(shape: MatmulShape, a: &[f32], b: &[f32], c: &mut [f32]) {
    let MatmulShape { form, m, n, k } = shape;
    assert_eq!(
        (a.len(), b.len(), c.len()),
        (m * k, k * n, m * n),
        "matmul: lengths of a, b and c differ from {shape:?}"
    );
    for i in 0..m {
        for p in 0..k {
            let left = if form == Form::TN {
                a[p * m + i]
            } else {
                a[i * k + p]
            };
            let row = &mut c[i * n..(i + 1) * n];
            if form == Form::NT {
                row.iter_mut()
                    .enumerate()
                    .for_each(|(j, c)| *c += left * b[j * k + p]);
            } else {
                row.iter_mut()
                    .zip(&b[p * n..])
                    .for_each(|(c, b)| *c += left * b);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_multiplies() {
        let mut cpu = Cpu::new();
        let (a, a_transposed) = ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0]);
        let (b, b_transposed) = ([5.0, 6.0, 7.0, 8.0], [5.0, 7.0, 6.0, 8.0]);
        for (shape, a, b) in [
            (MatmulShape::nn(2, 2, 2), a, b),
            (MatmulShape::nt(2, 2, 2), a, b_transposed),
            (MatmulShape::tn(2, 2, 2), a_transposed, b),
        ] {
            let mut c = [f32::NAN; 4];
            cpu.matmul(shape, &a, &b, &mut c, Accumulate::Set);
            assert_eq!(c, [19.0, 22.0, 43.0, 50.0]);
        }
    }
}
