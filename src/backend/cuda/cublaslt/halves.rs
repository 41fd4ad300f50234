//! Products of operands of 16 bits, as programs have them that store nothing wider. Training here stores
//! `f32`; this is what its products are compared with.

use super::plan::Operands;
use crate::backend::cuda::packed::{self, Packed};
use crate::backend::cuda::{Buffer, Cuda, View, ViewMut};
use crate::backend::{
    Accumulate, Activation, BackendError, MatmulCall, MatmulShape, Memory, Precision,
};

/// Operands of a product that were rounded to 16 bits.
#[derive(Debug)]
pub struct Halves {
    shape: MatmulShape,
    precision: Precision,
    operands: [Packed; 2],
    /// Where they lie.
    _memory: Buffer<half::bf16>,
}

impl Cuda {
    /// Rounds A and B of a product to the precision, which is `bf16` or `f16`, for
    /// [`Cuda::multiply_halves`].
    ///
    /// # Errors
    /// Where there is no memory for them.
    ///
    /// # Panics
    /// If the precision has more than 16 bits, or lengths differ from the shape.
    pub fn halves(
        &mut self,
        shape: MatmulShape,
        a: View<'_, f32>,
        b: View<'_, f32>,
    ) -> Result<Halves, BackendError> {
        let MatmulShape { m, n, k, .. } = shape;
        assert_eq!(
            (a.len, b.len),
            (m * k, k * n),
            "lengths differ from {shape:?}"
        );
        let mut memory = self.allocate("halves of operands", packed::len(shape))?;
        let operands = self.pack_into(memory.view_mut().pointer, shape, a, b);
        Ok(Halves {
            shape,
            precision: self.precision,
            operands,
            _memory: memory,
        })
    }

    /// `c = activation(a · b + bias)` by cuBLASLt, where [`Cuda::with_matmul`] asked for it; a relu may lose
    /// NaNs. Whether it has a way to do it; nothing happens where it has none. `c`: `=`.
    ///
    /// # Panics
    /// If the precision is not the one that operands were rounded to, or lengths differ from the shape.
    pub fn multiply_halves(
        &mut self,
        halves: &Halves,
        bias: Option<View<'_, f32>>,
        activation: Activation,
        c: ViewMut<'_, f32>,
    ) -> bool {
        let MatmulShape { m, n, .. } = halves.shape;
        assert_eq!(self.precision, halves.precision, "of another precision");
        assert!(
            c.len == m * n && bias.is_none_or(|bias| bias.len == n),
            "lengths differ from {:?}",
            halves.shape
        );
        let Some(products) = &self.library else {
            return false;
        };
        let call = MatmulCall {
            shape: halves.shape,
            write: Accumulate::Set,
            bias: bias.is_some(),
            activation,
        };
        let operands = (
            Operands::Halves,
            halves.operands.map(|operand| operand.pointer),
        );
        self.hand_over(products, call, operands, bias, &c)
            .unwrap_or_else(|problem| {
                self.device.fail_library(problem);
                false
            })
    }
}
