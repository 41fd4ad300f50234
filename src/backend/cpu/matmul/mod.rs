//! Matrix products, the heart of dense and convolution layers.
//!
//! Terms are summed in blocks whose length follows from `k` alone ([`plan::block_of_terms`]). In a
//! block each element is a chain of fused multiply-adds in order of the terms, starting from zero;
//! blocks are added to C in order. This is the same with every instruction set and at every place
//! of a tile, so the bits are too. Which operand fills vectors and which is broadcast, the tiles
//! and the packing are chosen for speed and change nothing.
//!
//! Where operands are rounded, both are packed, and rounded there: the result has the bits of a product
//! of operands that were rounded before.

mod operand;
mod plan;
mod product;
mod tile;
pub(super) mod vector;

use operand::{Columns, Scalars};
use product::Product;
use tile::Kernels;

use super::{Cpu, InstructionSet};
use crate::backend::{Accumulate, Activate, Activation, Form, Matmul, MatmulShape};

impl Matmul for Cpu {
    fn matmul(
        &mut self,
        shape: MatmulShape,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        write: Accumulate,
    ) {
        let finish = Epilogue {
            add: write == Accumulate::Add,
            bias: None,
            relu: false,
        };
        multiply(*self, shape, (a, b), c, finish);
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
        let finish = Epilogue {
            add: false,
            bias,
            relu: activation == Activation::Relu,
        };
        multiply(*self, shape, (a, b), c, finish);
        if !matches!(activation, Activation::Linear | Activation::Relu) {
            self.activate_in_place(activation, c);
        }
    }
}

/// What is done to the sums: `C = relu(C + sum + bias)`, each part if asked for.
#[derive(Clone, Copy)]
struct Epilogue<'a> {
    add: bool,
    bias: Option<&'a [f32]>,
    relu: bool,
}

fn multiply(
    cpu: Cpu,
    shape: MatmulShape,
    (a, b): (&[f32], &[f32]),
    c: &mut [f32],
    Epilogue { add, bias, relu }: Epilogue<'_>,
) {
    let MatmulShape { form, m, n, k } = shape;
    assert_eq!(
        (a.len(), b.len(), c.len()),
        (m * k, k * n, m * n),
        "matmul: lengths of a, b and c differ from {shape:?}"
    );
    let (row_major_a, row_major_b) = (form != Form::TN, form != Form::NT);
    let operand = |data, count, row_major: bool| {
        if row_major {
            Scalars::row_major(data, count, k)
        } else {
            Scalars::transposed(data, count, k)
        }
    };
    let straight = Product {
        scalars: operand(a, m, row_major_a),
        columns: if row_major_b {
            Columns::RowMajor(b)
        } else {
            Columns::Transposed(b)
        },
        precision: cpu.precision,
        width: n,
        transposed: false,
        add,
        bias,
        relu,
    };
    let swapped = Product {
        scalars: operand(b, n, !row_major_b),
        columns: if row_major_a {
            Columns::Transposed(a)
        } else {
            Columns::RowMajor(a)
        },
        width: m,
        transposed: true,
        ..straight
    };
    run(cpu.instructions, &[straight, swapped], c);
}

/// Computes the cheapest of `ways`, which must all mean the same.
fn run(instructions: InstructionSet, ways: &[Product<'_>], c: &mut [f32]) {
    fn cheapest<K: Kernels>(ways: &[Product<'_>], c: &mut [f32]) {
        let way = ways.iter().min_by_key(|way| way.cost::<K>());
        let way = way.expect("there is a way to compute every product");
        // SAFETY: a `Cpu` has only instructions that the machine has.
        unsafe { way.run::<K>(c) }
    }
    let Some(&way) = ways.first() else { return };
    if c.is_empty() {
        return;
    }
    if way.scalars.terms == 0 {
        return finish_nothing(&way, c);
    }
    match instructions {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => cheapest::<vector::Avx512>(ways, c),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => cheapest::<vector::Avx2>(ways, c),
        _ => cheapest::<vector::Portable>(ways, c),
    }
}

/// What a sum of no terms leaves in C, which is stored straight.
fn finish_nothing(product: &Product<'_>, c: &mut [f32]) {
    for row in c.chunks_exact_mut(product.width) {
        if !product.add {
            row.fill(0.0);
        }
        for (value, bias) in row.iter_mut().zip(product.bias.into_iter().flatten()) {
            *value += bias;
        }
        if product.relu {
            row.iter_mut()
                .for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x });
        }
    }
}

#[cfg(test)]
mod tests;
