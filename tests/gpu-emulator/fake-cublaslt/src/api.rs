//! The exported functions (cuBLASLt 13.0).

use std::ffi::{c_char, c_int, c_void};
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::driver::{driver, Stream};
use crate::plan::{Algorithm, Description, Layout, Preference, Problem};
use crate::product::Product;
use crate::status::{invalid, name, Failure, LtResult, Status};

/// What a handle points to.
const ALIVE: u64 = 0x6675_6c62_6c61_7300;

/// `cublasLtMatmulHeuristicResult_t`
#[repr(C)]
pub(crate) struct Heuristic {
    algorithm: Algorithm,
    workspace: usize,
    state: c_int,
    waves: f32,
    reserved: [c_int; 4],
}

/// Runs the body of an API function.
fn call(function: &str, body: impl FnOnce() -> LtResult) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(body));
    let panicked = |_| {
        Err(Failure {
            status: Status::InternalError,
            message: "internal error".to_owned(),
        })
    };
    match result.unwrap_or_else(panicked) {
        Ok(()) => 0,
        Err(Failure { status, message }) => {
            eprintln!("fake-cublaslt: {function}: {message}");
            status as c_int
        }
    }
}

unsafe fn get<'a, T>(pointer: *const T, what: &str) -> LtResult<&'a T> {
    pointer
        .as_ref()
        .ok_or_else(|| invalid(format!("no {what}: a null pointer")))
}

unsafe fn get_mut<'a, T>(pointer: *mut T, what: &str) -> LtResult<&'a mut T> {
    pointer
        .as_mut()
        .ok_or_else(|| invalid(format!("no {what}: a null pointer")))
}

/// Gives the caller something to destroy.
unsafe fn give<T>(to: *mut *mut T, value: T) -> LtResult {
    *get_mut(to, "place for what is made")? = Box::into_raw(Box::new(value));
    Ok(())
}

unsafe fn destroy<T>(pointer: *mut T, what: &str) -> LtResult {
    get(pointer, what)?;
    drop(Box::from_raw(pointer));
    Ok(())
}

unsafe fn bytes<'a>(value: *const c_void, size: usize) -> LtResult<&'a [u8]> {
    get(value, "value")?;
    Ok(std::slice::from_raw_parts(value.cast(), size))
}

unsafe fn check_handle(handle: *const u64) -> LtResult {
    match *get(handle, "handle")? {
        ALIVE => Ok(()),
        _ => Err(invalid("no handle of cuBLASLt")),
    }
}

macro_rules! lt_api {
    ($(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)*) => {$(
        #[no_mangle]
        pub(crate) unsafe extern "C" fn $name($($arg: $ty),*) -> c_int {
            call(stringify!($name), || -> LtResult { $body })
        }
    )*};
}

lt_api! {
    fn cublasLtCreate(handle: *mut *mut u64) {
        driver()?;
        give(handle, ALIVE)
    }

    fn cublasLtDestroy(handle: *mut u64) {
        check_handle(handle)?;
        destroy(handle, "handle")
    }

    fn cublasLtMatmulDescCreate(product: *mut *mut Description, compute: c_int, scale: c_int) {
        give(product, Description::new(compute, scale)?)
    }

    fn cublasLtMatmulDescDestroy(product: *mut Description) {
        destroy(product, "description")
    }

    fn cublasLtMatmulDescSetAttribute(
        product: *mut Description,
        attribute: u32,
        value: *const c_void,
        size: usize,
    ) {
        get_mut(product, "description")?.set(attribute, bytes(value, size)?)
    }

    fn cublasLtMatrixLayoutCreate(
        layout: *mut *mut Layout,
        kind: c_int,
        rows: u64,
        columns: u64,
        leading: i64,
    ) {
        give(layout, Layout::new(kind, rows, columns, leading)?)
    }

    fn cublasLtMatrixLayoutDestroy(layout: *mut Layout) {
        destroy(layout, "layout")
    }

    fn cublasLtMatrixLayoutSetAttribute(
        layout: *mut Layout,
        attribute: u32,
        value: *const c_void,
        size: usize,
    ) {
        get_mut(layout, "layout")?.set(attribute, bytes(value, size)?)
    }

    fn cublasLtMatmulPreferenceCreate(preference: *mut *mut Preference) {
        give(preference, Preference::default())
    }

    fn cublasLtMatmulPreferenceDestroy(preference: *mut Preference) {
        destroy(preference, "preference")
    }

    fn cublasLtMatmulPreferenceSetAttribute(
        preference: *mut Preference,
        attribute: u32,
        value: *const c_void,
        size: usize,
    ) {
        get_mut(preference, "preference")?.set(attribute, bytes(value, size)?)
    }

    fn cublasLtMatmulAlgoGetHeuristic(
        handle: *const u64,
        product: *const Description,
        a: *const Layout,
        b: *const Layout,
        c: *const Layout,
        d: *const Layout,
        preference: *const Preference,
        asked: c_int,
        results: *mut Heuristic,
        found: *mut c_int,
    ) {
        check_handle(handle)?;
        if asked < 1 {
            return Err(invalid(format!("{asked} algorithms asked for")));
        }
        let (problem, _) = problem(product, [a, b, c, d])?;
        let algorithm = Algorithm::choose(&problem, get(preference, "preference")?);
        results.write(Heuristic {
            workspace: algorithm.workspace(),
            algorithm,
            state: 0,
            waves: 1.0,
            reserved: [0; 4],
        });
        *get_mut(found, "count")? = 1;
        Ok(())
    }

    fn cublasLtMatmul(
        handle: *const u64,
        product: *const Description,
        alpha: *const f32,
        a: u64,
        a_layout: *const Layout,
        b: u64,
        b_layout: *const Layout,
        beta: *const f32,
        c: u64,
        c_layout: *const Layout,
        d: u64,
        d_layout: *const Layout,
        algorithm: *const Algorithm,
        workspace: u64,
        workspace_bytes: usize,
        stream: Stream,
    ) {
        check_handle(handle)?;
        let driver = driver()?;
        let (problem, bias) = problem(product, [a_layout, b_layout, c_layout, d_layout])?;
        // The library would ask its heuristic here, each time: who has no algorithm forgot to keep it.
        let algorithm = get(algorithm, "algorithm")?;
        algorithm.check(&problem, [a, b, c, d], workspace_bytes)?;
        let product = Product {
            problem,
            alpha: *get(alpha, "alpha")?,
            beta: *get(beta, "beta")?,
            a,
            b,
            bias,
            c,
            d,
            workspace,
            workspace_bytes: algorithm.workspace(),
        };
        driver.enqueue(stream, move || product.run(driver))
    }
}

unsafe fn problem(
    product: *const Description,
    layouts: [*const Layout; 4],
) -> LtResult<(Problem, u64)> {
    let [a, b, c, d] = layouts;
    let layout = |layout| get(layout, "layout").copied();
    let layouts = [layout(a)?, layout(b)?, layout(c)?, layout(d)?];
    Problem::new(get(product, "description")?, layouts)
}

#[no_mangle]
pub(crate) extern "C" fn cublasLtGetVersion() -> usize {
    130_002
}

#[no_mangle]
pub(crate) extern "C" fn cublasLtGetStatusName(status: c_int) -> *const c_char {
    name(status).as_ptr()
}

#[no_mangle]
pub(crate) extern "C" fn cublasLtGetStatusString(status: c_int) -> *const c_char {
    name(status).as_ptr()
}
