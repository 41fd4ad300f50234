//! Products by NVIDIA's cuBLASLt: which of them, and how they are handed over.

mod halves;
mod library;
mod plan;
mod timing;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use halves::Halves;
pub use library::{Library, find};

use cudarc::cublaslt::result::CublasError;
use cudarc::driver::sys::{CUdeviceptr, CUstream};

use self::library::{Handle, said};
use self::plan::{ALIGNMENT, Addresses, Operands, Plan};
use super::device::{Device, SCRATCH_BYTES};
use super::{Cuda, View, ViewMut};
use crate::backend::{
    Activation, BackendError, MatmulCall, MatmulChoice, MatmulShape, Precision, TimedMatmul,
};

/// What multiplies beside own kernels, for all clones of a handle on a GPU.
pub(super) struct Products {
    library: &'static Library,
    state: Mutex<State>,
    // Outlives the plans, which are fields before it.
    handle: Handle,
}

/// A product as the library is handed it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Planned {
    /// The number of its plan.
    plan: usize,
    addresses: Addresses,
}

struct State {
    rule: Rule,
    /// `None` where the library has no algorithm.
    plans: Vec<(MatmulCall, (Operands, Precision), Option<Plan>)>,
}

/// Which products the library computes.
enum Rule {
    /// All.
    All,
    /// None, while those that are asked for are noted.
    Seen(Vec<MatmulCall>),
    /// These.
    Chosen(Vec<MatmulCall>),
}

// SAFETY: a handle of cuBLASLt may be used from any thread; rule and plans are behind the mutex.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

impl Products {
    fn new(device: &Arc<Device>, rule: Rule) -> Result<Arc<Self>, String> {
        let library = find()?;
        device.bind();
        let handle = Handle::new().map_err(|problem| {
            format!(
                "{library} does not start on GPU {}: {problem}; it may be newer than the driver",
                device.ordinal
            )
        })?;
        let plans = Vec::new();
        Ok(Arc::new(Self {
            library,
            state: Mutex::new(State { rule, plans }),
            handle,
        }))
    }

    /// Its version, where it computes everything it can because it was asked for by name.
    pub(super) fn is_asked_for(&self) -> Option<&'static str> {
        matches!(self.state().rule, Rule::All).then_some(&self.library.version)
    }

    /// Whether the library is to compute a product; takes note of it where that is still open.
    fn takes(&self, call: MatmulCall) -> bool {
        match &mut self.state().rule {
            Rule::All => true,
            Rule::Chosen(calls) => calls.contains(&call),
            Rule::Seen(calls) => {
                if !calls.contains(&call) {
                    calls.push(call);
                }
                false
            }
        }
    }

    /// Queues a product on `stream` of the device whose context is bound.
    ///
    /// # Errors
    /// In the library's words.
    pub(super) fn run(&self, planned: &Planned, stream: CUstream) -> Result<(), String> {
        let (call, (_, precision), plan) = &self.state().plans[planned.plan];
        let plan = plan.as_ref().expect("it was planned");
        // SAFETY: `multiply` has compared the lengths; the scratch belongs to what is queued next.
        unsafe { plan.run(&self.handle, &planned.addresses, stream) }
            .map_err(|error| refused(*call, *precision, error))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number of the plan for a product, made where there is none yet, and what it leaves to be done.
    fn plan(
        &mut self,
        handle: &Handle,
        call: MatmulCall,
        operands: (Operands, Precision),
        addresses: &Addresses,
    ) -> Result<Option<(usize, Activation)>, String> {
        let known = |(of, given, _): &(MatmulCall, _, _)| *of == call && *given == operands;
        let at = match self.plans.iter().position(known) {
            Some(at) => at,
            None => {
                let plan = Plan::new(handle, call, operands, addresses)
                    .map_err(|error| refused(call, operands.1, error))?;
                self.plans.push((call, operands, plan));
                self.plans.len() - 1
            }
        };
        let (_, _, plan) = &self.plans[at];
        Ok(plan.as_ref().map(|plan| (at, plan.rest)))
    }
}

impl fmt::Debug for Products {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.library)
    }
}

/// What to say where the library does not do a product.
fn refused(call: MatmulCall, precision: Precision, error: CublasError) -> String {
    let MatmulShape { form, m, n, k } = call.shape;
    format!(
        "{} for {form:?}, m {m}, n {n}, k {k} in {precision}; `--matmul kernels` does without it",
        said(error)
    )
}

impl Cuda {
    /// The same GPU with products by `choice`. By `Auto` own kernels multiply, and what they are asked for
    /// is noted, until [`Cuda::choose_products`] is told what was quicker; without cuBLASLt they always do.
    /// Convolutions are always own kernels', and so are products without terms or with addresses that are
    /// not aligned to 16 bytes.
    ///
    /// # Errors
    /// [`BackendError::NoDevice`] where cuBLASLt is asked for and cannot be used.
    pub fn with_matmul(self, choice: MatmulChoice) -> Result<Self, BackendError> {
        let library = match choice {
            MatmulChoice::Kernels => None,
            MatmulChoice::Auto if find().is_err() => None,
            MatmulChoice::Auto => Products::new(&self.device, Rule::Seen(Vec::new()))
                .inspect_err(|problem| tracing::warn!("own kernels multiply: {problem}"))
                .ok(),
            MatmulChoice::Cublaslt => {
                let products = Products::new(&self.device, Rule::All);
                Some(products.map_err(|problem| BackendError::NoDevice {
                    problem,
                    remedy: "or use `--matmul kernels`",
                })?)
            }
        };
        Ok(Self { library, ..self })
    }

    /// Whether there is a cuBLASLt to choose, once it was asked for.
    pub fn has_library(&self) -> bool {
        self.library.is_some()
    }

    /// Fixes what computes each product: what was chosen for it, and own kernels for all others.
    pub fn choose_products(&mut self, timed: &[TimedMatmul]) {
        if let Some(products) = &self.library {
            let by_library = timed
                .iter()
                .filter(|timed| timed.chosen == MatmulChoice::Cublaslt);
            products.state().rule = Rule::Chosen(by_library.map(|timed| timed.call).collect());
        }
    }

    /// Hands a product to the library where it is the library's to compute; whether it did.
    pub(super) fn multiply_by_library(
        &self,
        call: MatmulCall,
        (a, b): (View<'_, f32>, View<'_, f32>),
        bias: Option<View<'_, f32>>,
        c: &ViewMut<'_, f32>,
    ) -> bool {
        let Some(products) = &self.library else {
            return false;
        };
        let stored = (Operands::Stored, [a.pointer, b.pointer]);
        products.takes(call)
            && self
                .hand_over(products, call, stored, bias, c)
                .unwrap_or_else(|problem| {
                    self.device.fail_library(problem);
                    false
                })
    }

    /// The same without asking whose it is.
    ///
    /// # Errors
    /// In the library's words, where it makes no plan.
    fn hand_over(
        &self,
        products: &Arc<Products>,
        call: MatmulCall,
        (operands, [a, b]): (Operands, [CUdeviceptr; 2]),
        bias: Option<View<'_, f32>>,
        c: &ViewMut<'_, f32>,
    ) -> Result<bool, String> {
        let addresses = Addresses {
            a,
            b,
            bias: View::or_null(bias).pointer,
            c: c.pointer,
            workspace: (self.device.scratch, SCRATCH_BYTES),
        };
        let pointers = [addresses.a, addresses.b, addresses.bias, addresses.c];
        let is_aligned = pointers
            .iter()
            .all(|pointer| pointer.is_multiple_of(ALIGNMENT as u64));
        let has_terms = ![call.shape.m, call.shape.n, call.shape.k].contains(&0);
        if !is_aligned || !has_terms {
            return Ok(false);
        }
        let device = &*self.device;
        device.bind();
        let planned = products.state().plan(
            &products.handle,
            call,
            (operands, self.precision),
            &addresses,
        )?;
        let Some((plan, rest)) = planned else {
            return Ok(false);
        };
        let planned = Planned { plan, addresses };
        device.queue().push_product(device, products, planned);
        self.apply_in_place(rest, c);
        Ok(true)
    }
}
