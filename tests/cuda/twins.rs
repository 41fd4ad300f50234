//! One body on both backends, and the comparison of what came out; tests in processes of their own.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output};

use ringstep::backend::cuda::Cuda;
use ringstep::backend::{Element, Memory, View, ViewMut};
use ringstep::random::Stream;

/// Largest relative error of an `f32` kernel against its CPU twin.
pub(crate) const F32_ERROR: f64 = 1e-5;

/// What `body`, a generic `fn body<B: Memory + ..>(backend: &mut B, ..) -> R`, returns on the CPU and
/// on GPU 0, or on the one that is lent: `twins!(on gpu, body, ..)`. A failure there ends the test.
macro_rules! twins {
    (on $gpu:expr, $body:ident $(, $argument:expr)* $(,)?) => {{
        let on_cpu = $body(&mut ringstep::backend::cpu::Cpu::new() $(, $argument)*);
        let on_cuda = $body($gpu $(, $argument)*);
        ringstep::backend::Memory::synchronize($gpu).unwrap();
        (on_cpu, on_cuda)
    }};
    ($body:ident $(, $argument:expr)* $(,)?) => {{
        let mut cuda = $crate::twins::cuda();
        $crate::twins::twins!(on &mut cuda, $body $(, $argument)*)
    }};
}
pub(crate) use twins;

pub(crate) fn cuda() -> Cuda {
    Cuda::new(0).unwrap()
}

/// The program that the tests belong to; RINGSTEP names it where cargo did not build it.
pub(crate) fn program() -> OsString {
    let named = std::env::var_os("RINGSTEP");
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_ringstep").into())
}

/// Whether GPUs are the emulator's: it may be told to fail, and rounds what a GPU does in one go.
pub(crate) fn is_emulated() -> bool {
    cuda().name().starts_with("Emulated")
}

/// What becomes of an ignored test, `module::name`, in a process of its own with these environment
/// variables: the emulator reads its own once. It ran, but may have failed.
pub(crate) fn alone(test: &str, variables: &[(&str, &str)]) -> Output {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        printed.contains("1 passed") || printed.contains("1 failed"),
        "{test} did not run: {output:?}"
    );
    output
}

/// A buffer with these values.
pub(crate) fn upload<B: Memory, T: Element>(backend: &mut B, values: &[T]) -> B::Buffer<T> {
    let mut buffer = backend.allocate("test", values.len()).unwrap();
    backend.upload(values, B::view_mut(&mut buffer));
    buffer
}

/// The values of a buffer.
pub(crate) fn download<B: Memory, T: Element>(backend: &mut B, buffer: &B::Buffer<T>) -> Vec<T> {
    let view = B::view(buffer);
    let mut values = vec![T::default(); B::len(view)];
    backend.download(view, &mut values);
    values
}

/// NaNs behind the values of an [`Inset`].
const BEHIND: usize = 3;

/// Values in the middle of a buffer, between NaNs that nothing may overwrite.
pub(crate) struct Inset<B: Memory> {
    buffer: B::Buffer<f32>,
    before: usize,
    len: usize,
}

impl<B: Memory> Inset<B> {
    /// These values behind `before` NaNs.
    pub(crate) fn new(backend: &mut B, before: usize, values: &[f32]) -> Self {
        let all = [&vec![f32::NAN; before], values, &[f32::NAN; BEHIND]].concat();
        Self {
            buffer: upload(backend, &all),
            before,
            len: values.len(),
        }
    }

    /// Room for `len` values.
    pub(crate) fn room(backend: &mut B, before: usize, len: usize) -> Self {
        Self::new(backend, before, &vec![f32::NAN; len])
    }

    pub(crate) fn view(&self) -> View<'_, B> {
        B::slice(B::view(&self.buffer), self.before..self.before + self.len)
    }

    pub(crate) fn view_mut(&mut self) -> ViewMut<'_, B> {
        let range = self.before..self.before + self.len;
        B::slice_mut(B::view_mut(&mut self.buffer), range)
    }

    /// The values, once it is seen that those around them are what they were.
    pub(crate) fn download(&self, backend: &mut B) -> Vec<f32> {
        let all = download(backend, &self.buffer);
        let (before, values) = all.split_at(self.before);
        let (values, behind) = values.split_at(self.len);
        assert!(before.iter().chain(behind).all(|x| x.is_nan()));
        values.to_vec()
    }
}

/// Calls `body` with `count` random sizes, each from 1 to its own of `most`, the same for the same `seed`. Where
/// it panics, the sizes are told.
#[track_caller]
pub(crate) fn for_random_sizes<const N: usize>(
    seed: u64,
    count: usize,
    most: [usize; N],
    mut body: impl FnMut([usize; N]),
) {
    let mut stream = Stream::new(seed, "sizes");
    for _ in 0..count {
        let sizes = most.map(|most| 1 + stream.below(most as u32) as usize);
        let outcome = catch_unwind(AssertUnwindSafe(|| body(sizes)));
        assert!(outcome.is_ok(), "failed, see above, with sizes {sizes:?}");
    }
}

/// `len` normal numbers, the same for the same `seed`.
pub(crate) fn normals(seed: u64, len: usize) -> Vec<f32> {
    let mut stream = Stream::new(seed, "twins");
    (0..len).map(|_| stream.normal() as f32).collect()
}

/// Whether `actual` is `expected` up to `error`: the norm of the difference by that of `expected`.
#[track_caller]
pub(crate) fn assert_close(expected: &[f32], actual: &[f32], error: f64) {
    assert_eq!(expected.len(), actual.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let (expected, actual) = (wide(expected), wide(actual));
    let difference = norm(&mut expected.iter().zip(&actual).map(|(a, b)| a - b));
    let size = norm(&mut expected.iter().copied());
    // Written so that a NaN fails.
    let close = difference <= error * size;
    assert!(
        close,
        "relative error {:.2e}, at most {error:.0e}",
        difference / size
    );
}

/// Whether both are NaN in the same places, infinite with the same sign in the same places, and
/// elsewhere within `error` of the CPU's value, or of 0.1 where that is less.
#[track_caller]
pub(crate) fn assert_alike(expected: &[f32], actual: &[f32], error: f32) {
    assert_eq!(expected.len(), actual.len());
    for (at, (&a, &b)) in expected.iter().zip(actual).enumerate() {
        let alike = match a.is_finite() {
            true => (a - b).abs() <= error * a.abs().max(0.1),
            false => a == b || (a.is_nan() && b.is_nan()),
        };
        assert!(alike, "element {at}: {a:?} on the CPU, {b:?} on the GPU");
    }
}

/// Whether both hold the same bits.
#[track_caller]
pub(crate) fn assert_same_bits<T: Element>(expected: &[T], actual: &[T]) {
    assert_eq!(expected.len(), actual.len());
    let differs = |(a, b): (&T, &T)| bytemuck::bytes_of(a) != bytemuck::bytes_of(b);
    if let Some(at) = expected.iter().zip(actual).position(differs) {
        panic!(
            "element {at}: {:?} on the CPU, {:?} on the GPU",
            expected[at], actual[at]
        );
    }
}
