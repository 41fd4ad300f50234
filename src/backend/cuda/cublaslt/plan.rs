//! A product as cuBLASLt is asked for it.
//!
//! Its matrices are stored by columns. One of ours, stored by rows, is its transpose there, so that
//! `C = A · B` is asked for as `Cᵀ = Bᵀ · Aᵀ`: B is the first factor and A the second, and a bias, which
//! the library adds to each column of its result, is added to each row of C.

use std::ffi::c_void;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys;
use cudarc::driver::sys::{CUdeviceptr, CUstream};

use super::library::Handle;
use crate::backend::cuda::packed;
use crate::backend::{Accumulate, Activation, Form, MatmulCall, Precision};

/// Bytes of which every address is a multiple; what an algorithm may count on.
pub(super) const ALIGNMENT: usize = 16;

/// `cublasOperation_t`: an operand as it is, and transposed.
const AS_IT_IS: i32 = 0;
const TRANSPOSED: i32 = 1;

/// What the library is handed as A and B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operands {
    /// What training stores: `f32`, which the library may round.
    Stored,
    /// 16 bits of the precision, as [`packed::Packed`] has them, whatever the form.
    Halves,
}

/// All that the library is told of a product but addresses, and the algorithm that it chose.
pub(super) struct Plan {
    product: Description,
    b: Layout,
    a: Layout,
    c: Layout,
    algorithm: sys::cublasLtMatmulAlgo_t,
    write: Accumulate,
    /// What is left to do with the result.
    pub(super) rest: Activation,
}

/// Where a product's arrays lie.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Addresses {
    pub(super) a: CUdeviceptr,
    pub(super) b: CUdeviceptr,
    /// Null where there is none.
    pub(super) bias: CUdeviceptr,
    pub(super) c: CUdeviceptr,
    /// Memory that belongs to the product while it is computed, and how much.
    pub(super) workspace: (CUdeviceptr, usize),
}

impl Plan {
    /// Asks for an algorithm that computes `call` on arrays aligned as `addresses` are; `None` where there
    /// is none.
    pub(super) fn new(
        handle: &Handle,
        call: MatmulCall,
        (operands, precision): (Operands, Precision),
        addresses: &Addresses,
    ) -> Result<Option<Self>, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let [m, n, k] = [call.shape.m, call.shape.n, call.shape.k].map(|extent| extent as u64);
        let (epilogue, rest) = epilogue(call, operands);
        let product = Description::new(compute_type(operands, precision))?;
        let dense = |rows, columns| Layout::new(sys::cudaDataType::CUDA_R_32F, rows, columns, rows);
        let (form, element, row) = match operands {
            Operands::Stored => (call.shape.form, sys::cudaDataType::CUDA_R_32F, k),
            Operands::Halves => (Form::NT, half(precision), packed::row(call.shape.k) as u64),
        };
        let (b, a) = match form {
            Form::NN => (dense(n, k)?, dense(k, m)?),
            Form::NT => {
                product.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, TRANSPOSED)?;
                let rows = |count| Layout::new(element, k, count, row);
                (rows(n)?, rows(m)?)
            }
            Form::TN => {
                product.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, TRANSPOSED)?;
                (dense(n, k)?, dense(m, k)?)
            }
        };
        product.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
        if call.bias {
            product.set_bias(addresses.bias)?;
        }
        let c = dense(n, m)?;
        let preference = Preference::new(addresses.workspace.1)?;
        // SAFETY: all of them exist.
        let found = unsafe {
            result::get_matmul_algo_heuristic(handle.0, product.0, b.0, a.0, c.0, c.0, preference.0)
        };
        match found {
            Ok(found) => Ok(Some(Self {
                product,
                b,
                a,
                c,
                algorithm: found.algo,
                write: call.write,
                rest,
            })),
            Err(CublasError(sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Queues the product.
    ///
    /// # Safety
    /// The arrays have the lengths of the call that the plan was made for, the workspace the size, and
    /// their addresses are aligned as was said then.
    pub(super) unsafe fn run(
        &self,
        handle: &Handle,
        addresses: &Addresses,
        stream: CUstream,
    ) -> Result<(), CublasError> {
        if addresses.bias != 0 {
            self.product.set_bias(addresses.bias)?;
        }
        let one = 1.0f32;
        let before: f32 = match self.write {
            Accumulate::Set => 0.0,
            Accumulate::Add => 1.0,
        };
        let (workspace, bytes) = addresses.workspace;
        // SAFETY: the caller's promise; both factors are read before this returns.
        unsafe {
            result::matmul(
                handle.0,
                self.product.0,
                (&raw const one).cast(),
                (&raw const before).cast(),
                addresses.b as *const c_void,
                self.b.0,
                addresses.a as *const c_void,
                self.a.0,
                addresses.c as *const c_void,
                self.c.0,
                addresses.c as *mut c_void,
                self.c.0,
                &self.algorithm,
                workspace as *mut c_void,
                bytes,
                stream.cast(),
            )
        }
    }
}

// SAFETY: what the library was told lies in memory of its own, and a plan is used by one thread at a time.
unsafe impl Send for Plan {}

/// What the library does with operands before it multiplies them.
fn compute_type(operands: Operands, precision: Precision) -> sys::cublasComputeType_t {
    use sys::cublasComputeType_t as Type;
    match (operands, precision) {
        (Operands::Halves, _) | (_, Precision::F32) => Type::CUBLAS_COMPUTE_32F,
        (_, Precision::Tf32) => Type::CUBLAS_COMPUTE_32F_FAST_TF32,
        (_, Precision::Bf16) => Type::CUBLAS_COMPUTE_32F_FAST_16BF,
        (_, Precision::F16) => Type::CUBLAS_COMPUTE_32F_FAST_16F,
    }
}

/// What numbers of 16 bits are called.
fn half(precision: Precision) -> sys::cudaDataType {
    match precision {
        Precision::F16 => sys::cudaDataType::CUDA_R_16F,
        _ => sys::cudaDataType::CUDA_R_16BF,
    }
}

/// What the library does with sums before it writes them, and what is left to be done: of our functions it
/// has the gelu by tanh. Its relu may be a maximum, which makes a NaN zero, so that nobody would see it: it is
/// for products of halves, which nobody trains with.
fn epilogue(call: MatmulCall, operands: Operands) -> (sys::cublasLtEpilogue_t, Activation) {
    use sys::cublasLtEpilogue_t as Epilogue;
    match (call.activation, call.bias) {
        (Activation::Relu, bias) if operands == Operands::Halves => {
            let epilogue = match bias {
                false => Epilogue::CUBLASLT_EPILOGUE_RELU,
                true => Epilogue::CUBLASLT_EPILOGUE_RELU_BIAS,
            };
            (epilogue, Activation::Linear)
        }
        (Activation::GeluTanh, false) => (Epilogue::CUBLASLT_EPILOGUE_GELU, Activation::Linear),
        (Activation::GeluTanh, true) => (Epilogue::CUBLASLT_EPILOGUE_GELU_BIAS, Activation::Linear),
        (rest, false) => (Epilogue::CUBLASLT_EPILOGUE_DEFAULT, rest),
        (rest, true) => (Epilogue::CUBLASLT_EPILOGUE_BIAS, rest),
    }
}

/// What is computed.
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn new(compute: sys::cublasComputeType_t) -> Result<Self, CublasError> {
        let product = Self(result::create_matmul_desc(
            compute,
            sys::cudaDataType::CUDA_R_32F,
        )?);
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        product.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, AS_IT_IS)?;
        product.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, AS_IT_IS)?;
        Ok(product)
    }

    fn set<T: Copy>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: T,
    ) -> Result<(), CublasError> {
        // SAFETY: the description exists, and the value is copied.
        unsafe {
            result::set_matmul_desc_attribute(
                self.0,
                attribute,
                (&raw const value).cast(),
                size_of::<T>(),
            )
        }
    }

    fn set_bias(&self, bias: CUdeviceptr) -> Result<(), CublasError> {
        use sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        self.set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// A matrix stored by columns.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    /// `leading`: elements from one column to the next.
    fn new(
        element: sys::cudaDataType,
        rows: u64,
        columns: u64,
        leading: u64,
    ) -> Result<Self, CublasError> {
        result::create_matrix_layout(element, rows, columns, leading as i64).map(Self)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What an algorithm may count on.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(workspace: usize) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Self(result::create_matmul_pref()?);
        preference.set(
            Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
            workspace as u64,
        )?;
        for operand in [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            preference.set(operand, ALIGNMENT as u32)?;
        }
        Ok(preference)
    }

    fn set<T: Copy>(
        &self,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: T,
    ) -> Result<(), CublasError> {
        // SAFETY: the preference exists, and the value is copied.
        unsafe {
            result::set_matmul_pref_attribute(
                self.0,
                attribute,
                (&raw const value).cast(),
                size_of::<T>(),
            )
        }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made once, destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}
