//! The kernels: which file holds which, and the functions they become on a device.

use std::ffi::CString;
use std::sync::OnceLock;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::compile::{Source, load};
use super::device::{Capability, Device, describe};
use super::hopper::{self, HOPPER};
use super::packed;
use crate::backend::{BackendError, Precision};

/// A kernel file and what is in it.
pub(super) struct File {
    pub(super) source: Source,
    pub(super) variants: Variants,
    pub(super) kernels: &'static [Kernel],
}

/// How often a file is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variants {
    /// Once.
    One,
    /// For each precision: it makes products.
    Precisions,
    /// For each precision of 16 bits: it rounds operands, and multiplies nothing.
    Operands,
    /// For each of these precisions: it makes products.
    Halves,
    /// The same for compute capability 9.0 alone.
    HopperHalves,
}

impl Variants {
    /// Whether the file's kernels make products, and do nothing else.
    pub(super) fn makes_products(self) -> bool {
        !matches!(self, Self::One | Self::Operands)
    }

    /// What the file's products are rounded to in each of its variants for GPUs of this capability.
    pub(super) fn on(self, capability: Capability) -> Vec<Option<Precision>> {
        let precisions = capability.precisions().map(Some);
        match self {
            Self::One => vec![None],
            Self::Precisions => precisions.collect(),
            Self::HopperHalves if capability != HOPPER => Vec::new(),
            Self::Operands | Self::Halves | Self::HopperHalves => {
                let halves = [Some(Precision::Bf16), Some(Precision::F16)];
                precisions.filter(|of| halves.contains(of)).collect()
            }
        }
    }
}

/// Makes [`Kernel`] and [`FILES`] from `"file" => { Variant = "function", .. }`, where a file that is not
/// built once for all GPUs has a mark of `variants!`: `"file" by precision => { .. }`.
macro_rules! kernels {
    ($($file:literal $(by $variants:ident)? => { $($kernel:ident = $name:literal),* $(,)? })*) => {
        /// A `__global__` function.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Kernel { $($($kernel),*),* }

        impl Kernel {
            /// The function's name in its file.
            pub(super) fn name(self) -> &'static str {
                match self { $($(Self::$kernel => $name),*),* }
            }
        }

        /// Every kernel, in the order of their numbers.
        const KERNELS: &[Kernel] = &[$($(Kernel::$kernel),*),*];

        /// Every file.
        pub(super) const FILES: &[File] = &[$(File {
            source: source!($file),
            variants: variants!($($variants)?),
            kernels: &[$(Kernel::$kernel),*],
        }),*];
    };
}

/// What a file's mark says.
macro_rules! variants {
    () => {
        Variants::One
    };
    (precision) => {
        Variants::Precisions
    };
    (operand) => {
        Variants::Operands
    };
    (half) => {
        Variants::Halves
    };
    (hopper_half) => {
        Variants::HopperHalves
    };
}

macro_rules! source {
    ($file:literal) => {
        Source {
            name: $file,
            text: include_str!(concat!("../../../kernels/", $file)),
        }
    };
}

/// What kernel files include.
pub(super) const HEADERS: &[Source] = &[
    source!("device.cuh"),
    source!("activation.cuh"),
    source!("staging.cuh"),
    source!("tile.cuh"),
    source!("product.cuh"),
    source!("random.cuh"),
];

/// Number of precisions.
const PRECISIONS: usize = Precision::ALL.len();

kernels! {
    "convolution.cu" by precision => {
        ConvolveLarge = "convolve_128x128",
        ConvolveTall = "convolve_128x32",
        ConvolveMedium = "convolve_64x64",
        ConvolveSmall = "convolve_32x32",
        ConvolveBackwardInputLarge = "convolve_backward_input_128x128",
        ConvolveBackwardInputTall = "convolve_backward_input_128x32",
        ConvolveBackwardInputMedium = "convolve_backward_input_64x64",
        ConvolveBackwardInputSmall = "convolve_backward_input_32x32",
        ConvolveBackwardKernelLarge = "convolve_backward_kernel_128x128",
        ConvolveBackwardKernelTall = "convolve_backward_kernel_128x32",
        ConvolveBackwardKernelMedium = "convolve_backward_kernel_64x64",
        ConvolveBackwardKernelSmall = "convolve_backward_kernel_32x32",
    }
    "elementwise.cu" => {
        Activate = "activate",
        ActivateBackward = "activate_backward",
        Add = "add",
        Scale = "scale",
        Dropout = "dropout",
    }
    "fixed_point.cu" => {
        Quantize = "quantize",
        Magnitude = "magnitude",
        Dequantize = "dequantize",
        Narrow = "narrow",
        Widen = "widen",
        MoveAverage = "move_average",
    }
    "fold.cu" => { Fold = "fold" }
    "hopper.cu" by hopper_half => {
        MatmulGrouped = "matmul_grouped_128x128",
        MultiplyAddGrouped = "multiply_add_grouped",
    }
    "lookup.cu" => {
        GatherBags = "gather_bags",
        ScatterBags = "scatter_bags",
        TakeRows = "take_rows",
        PutRows = "put_rows",
        Expand = "expand",
    }
    "loss.cu" => {
        SoftmaxCrossEntropy = "softmax_cross_entropy",
        ElementwiseLoss = "elementwise_loss",
        LossReport = "loss_report",
    }
    "matmul.cu" by precision => {
        MatmulNnLarge = "matmul_nn_128x128",
        MatmulNnTall = "matmul_nn_128x32",
        MatmulNnMedium = "matmul_nn_64x64",
        MatmulNnSmall = "matmul_nn_32x32",
        MatmulNtLarge = "matmul_nt_128x128",
        MatmulNtTall = "matmul_nt_128x32",
        MatmulNtMedium = "matmul_nt_64x64",
        MatmulNtSmall = "matmul_nt_32x32",
        MatmulTnLarge = "matmul_tn_128x128",
        MatmulTnTall = "matmul_tn_128x32",
        MatmulTnMedium = "matmul_tn_64x64",
        MatmulTnSmall = "matmul_tn_32x32",
    }
    "memory.cu" => {
        Fill16 = "fill_16",
        Fill32 = "fill_32",
        Fill64 = "fill_64",
        Copy16 = "copy_16",
        Copy32 = "copy_32",
        Copy64 = "copy_64",
    }
    "normalization.cu" => {
        ColumnMoments = "column_moments",
        ColumnMomentsFinish = "column_moments_finish",
        ColumnGradients = "column_gradients",
        RowGradients = "row_gradients",
        GradientsFinish = "gradients_finish",
        NormalizeColumns = "normalize_columns",
        NormalizeColumnsBackward = "normalize_columns_backward",
        NormalizeRows = "normalize_rows",
        NormalizeRowsBackward = "normalize_rows_backward",
    }
    "pack.cu" by operand => { Pack = "pack" }
    "packed.cu" by half => { MatmulPacked = "matmul_packed_128x128" }
    "peak.cu" by precision => { MultiplyAdd = "multiply_add" }
    "pooling.cu" => {
        MaxPool = "max_pool",
        MaxPoolBackward = "max_pool_backward",
        AveragePool = "average_pool",
        AveragePoolBackward = "average_pool_backward",
    }
    "reduce.cu" => { SumGroups = "sum_groups" }
    "softmax.cu" => { Softmax = "softmax", SoftmaxBackward = "softmax_backward" }
    "update.cu" => {
        Sgd = "sgd",
        SgdMomentum = "sgd_momentum",
        Adam = "adam",
        Adagrad = "adagrad",
        RmsProp = "rms_prop",
        RmsPropMomentum = "rms_prop_momentum",
        RmsPropCentered = "rms_prop_centered",
        RmsPropCenteredMomentum = "rms_prop_centered_momentum",
        Ftrl = "ftrl",
        Lion = "lion",
        Lars = "lars",
        LambAverages = "lamb_averages",
        LambStep = "lamb_step",
        TrustRates = "trust_rates",
        BlockSumsOfSquares = "block_sums_of_squares",
    }
}

/// A device's functions, made when the first kernel of their file is launched.
pub(super) struct Functions {
    /// By precision and the kernel's number; `None` where its file could not be built.
    functions: [[OnceLock<Option<Function>>; KERNELS.len()]; PRECISIONS],
    /// By precision and the file's number.
    modules: [[OnceLock<Option<Module>>; FILES.len()]; PRECISIONS],
}

#[derive(Clone, Copy)]
struct Function(sys::CUfunction);

#[derive(Clone, Copy)]
struct Module(sys::CUmodule);

// SAFETY: handles, used as `Device` says.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}
// SAFETY: as above.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Kernel {
    /// Shared memory of a block beside what the kernel declares, which is at most 48 KiB; in bytes.
    pub(super) fn dynamic_shared_bytes(self) -> u32 {
        match self {
            Self::MatmulGrouped => hopper::RING_BYTES,
            Self::MatmulPacked => packed::RING_BYTES,
            _ => 0,
        }
    }
}

impl Functions {
    pub(super) fn new() -> Self {
        Self {
            functions: [const { [const { OnceLock::new() }; KERNELS.len()] }; PRECISIONS],
            modules: [const { [const { OnceLock::new() }; FILES.len()] }; PRECISIONS],
        }
    }

    /// The function of `kernel`, whose operands are rounded to `precision` where it makes products;
    /// `None`, and a failure kept, where it cannot be had.
    pub(super) fn get(
        &self,
        device: &Device,
        kernel: Kernel,
        precision: Precision,
    ) -> Option<sys::CUfunction> {
        let function = &self.functions[precision as usize][kernel as usize];
        let function = function.get_or_init(|| self.make(device, kernel, precision));
        function.map(|Function(function)| function)
    }

    fn make(&self, device: &Device, kernel: Kernel, precision: Precision) -> Option<Function> {
        device.bind();
        let number = FILES.iter().position(|file| file.kernels.contains(&kernel));
        let number = number.expect("every kernel is in a file");
        let File {
            source, variants, ..
        } = &FILES[number];
        let precision = (*variants != Variants::One).then_some(precision);
        let module = &self.modules[precision.unwrap_or_default() as usize][number];
        let module = module.get_or_init(|| match load(device, source, precision) {
            Ok(module) => Some(Module(module)),
            Err(failure) => {
                device.fail(failure);
                None
            }
        });
        let Module(module) = (*module)?;
        let name = CString::new(kernel.name()).expect("names have no zero byte");
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(module, name) };
        let function = function.and_then(|function| {
            allow_shared(function, kernel.dynamic_shared_bytes())?;
            Ok(function)
        });
        match function {
            Ok(function) => Some(Function(function)),
            Err(error) => {
                device.fail(BackendError::Kernels {
                    device: device.ordinal,
                    file: source.name,
                    problem: format!("{}: {}", kernel.name(), describe(error)),
                });
                None
            }
        }
    }

    /// Unloads everything.
    ///
    /// # Safety
    /// The device's context is bound, and nobody launches any more.
    pub(super) unsafe fn unload(&mut self) {
        for module in self.modules.iter_mut().flatten() {
            if let Some(Module(module)) = module.take().flatten() {
                // SAFETY: loaded once, unloaded here.
                let _ = unsafe { result::module::unload(module) };
            }
        }
    }
}

/// Lets blocks of a kernel have so much dynamic shared memory.
fn allow_shared(function: sys::CUfunction, bytes: u32) -> Result<(), DriverError> {
    if bytes == 0 {
        return Ok(());
    }
    let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the function is loaded; the bytes are those of a constant, far below 2^31.
    unsafe { result::function::set_function_attribute(function, attribute, bytes as i32) }
}
