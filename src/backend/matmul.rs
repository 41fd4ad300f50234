//! Matrix products, the heart of dense and convolution layers.

use std::fmt;

use super::{Accumulate, Activation, Memory, View, ViewMut};
use crate::named::choices;

/// Which operand of a product is stored transposed. All matrices are row-major and dense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// `C[m, n] = A[m, k] · B[k, n]`: forward.
    NN,
    /// `C[m, n] = A[m, k] · B[n, k]ᵀ`: the input's gradient.
    NT,
    /// `C[m, n] = A[k, m]ᵀ · B[k, n]`: the weights' gradient.
    TN,
}

/// The extents of a product; each may be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MatmulShape {
    /// How A and B are stored.
    pub form: Form,
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

impl MatmulShape {
    /// `C[m, n] = A[m, k] · B[k, n]`.
    pub fn nn(m: usize, n: usize, k: usize) -> Self {
        let form = Form::NN;
        Self { form, m, n, k }
    }

    /// `C[m, n] = A[m, k] · B[n, k]ᵀ`.
    pub fn nt(m: usize, n: usize, k: usize) -> Self {
        let form = Form::NT;
        Self { form, m, n, k }
    }

    /// `C[m, n] = A[k, m]ᵀ · B[k, n]`.
    pub fn tn(m: usize, n: usize, k: usize) -> Self {
        let form = Form::TN;
        Self { form, m, n, k }
    }
}

choices! {
    /// What multiplies matrices on a GPU; the CPU has its own kernels only.
    #[derive(Default)]
    pub enum MatmulChoice ("matmul") {
        /// For each product of a model whatever is quicker; where sums are exact, own kernels.
        #[default]
        Auto = "auto",
        /// Own kernels.
        Kernels = "kernels",
        /// NVIDIA's cuBLASLt, for all that it takes.
        Cublaslt = "cublaslt",
    }
}

/// A product as a model asks for it: all but the numbers and where they lie.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MatmulCall {
    /// Form and extents.
    #[serde(flatten)]
    pub shape: MatmulShape,
    /// How C is written.
    pub write: Accumulate,
    /// Whether a bias is added.
    pub bias: bool,
    /// What becomes of the sums.
    pub activation: Activation,
}

/// A product that was timed, and what computes it from then on.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TimedMatmul {
    /// The product.
    #[serde(flatten)]
    pub call: MatmulCall,
    /// Microseconds by own kernels.
    pub kernels_us: f64,
    /// Microseconds by cuBLASLt; nothing where it has no algorithm for it.
    pub cublaslt_us: Option<f64>,
    /// What computes it.
    pub chosen: MatmulChoice,
}

/// `tn 36 x 16 x 8, added: 10.2 us by kernels, 8.1 us by cublaslt`; the extents are `m`, `n` and `k`.
impl fmt::Display for TimedMatmul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MatmulShape { form, m, n, k } = self.call.shape;
        let form = match form {
            Form::NN => "nn",
            Form::NT => "nt",
            Form::TN => "tn",
        };
        write!(f, "{form} {m} x {n} x {k}")?;
        if self.call.write == Accumulate::Add {
            f.write_str(", added")?;
        }
        if self.call.bias {
            f.write_str(", with a bias")?;
        }
        if self.call.activation != Activation::Linear {
            write!(f, ", {:?}", self.call.activation)?;
        }
        write!(f, ": {:.1} us by kernels, ", self.kernels_us)?;
        match self.cublaslt_us {
            Some(us) => write!(f, "{us:.1} us by cublaslt"),
            None => f.write_str("none by cublaslt"),
        }
    }
}

/// Matrix products, the heart of dense and convolution layers.
///
/// An element's bits depend on its row of A, its column of B and `k` alone, not on where in C it
/// lies, on `m`, on `n` or on the addresses. Nothing is skipped: a NaN or an infinity in A or B
/// reaches every element it takes part in. Views must have exactly the lengths that the shape says.
///
/// Where cuBLASLt multiplies ([`MatmulChoice`]), bits may depend on `m`, `n`, alignment and the library's
/// version, too: not on the rank, for ranks ask for the same products. Exact sums use it only where it is
/// asked for by name.
pub trait Matmul: Memory {
    /// `c[m, n] = a · b` or `c[m, n] += a · b`; `k = 0` is a product of zeros.
    fn matmul(
        &mut self,
        shape: MatmulShape,
        a: View<'_, Self>,
        b: View<'_, Self>,
        c: ViewMut<'_, Self>,
        write: Accumulate,
    );

    /// `c[m, n] = activation(a · b + bias)`, `bias[n]` added to every row.
    fn matmul_bias_activation(
        &mut self,
        shape: MatmulShape,
        a: View<'_, Self>,
        b: View<'_, Self>,
        bias: Option<View<'_, Self>>,
        activation: Activation,
        c: ViewMut<'_, Self>,
    );
}
