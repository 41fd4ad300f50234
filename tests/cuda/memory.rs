//! Buffers, copies and fills.

use half::bf16;
use ringstep::backend::cuda::Cuda;
use ringstep::backend::{BackendError, Element, Memory};

use crate::twins::{assert_same_bits, cuda, download, twins, upload};

#[test]
fn what_is_uploaded_comes_back() {
    let mut cuda = cuda();
    // More than one piece of the pinned memory, and no whole number of them.
    for len in [0, 1, 1023, 5 * (1 << 18) + 7] {
        let values: Vec<f32> = (0..len).map(|at| at as f32).collect();
        let buffer = upload(&mut cuda, &values);
        assert_same_bits(&values, &download(&mut cuda, &buffer));
    }
    cuda.synchronize().unwrap();
}

#[test]
fn slices_and_copies_are_those_of_the_cpu() {
    fn body<B: Memory, T: Element>(backend: &mut B, value: fn(i16) -> T) -> Vec<T> {
        let values: Vec<T> = (0..100).map(value).collect();
        let from = upload(backend, &values);
        let mut to = backend.allocate("test", 100).unwrap();
        let source = B::slice(B::view(&from), 10..60);
        {
            let (mut head, tail) = B::split_mut(B::view_mut(&mut to), 40);
            let part = B::slice_mut(B::reborrow(&mut head), 7..9);
            backend.copy(B::slice(source, 1..3), part);
            let part = B::slice(B::shared(&head), 7..9);
            backend.copy(part, B::slice_mut(tail, 58..60));
            backend.copy(B::slice(source, 5..5), B::slice_mut(head, 40..40));
        }
        download(backend, &to)
    }
    fn check<T: Element>(value: fn(i16) -> T) {
        let (expected, actual) = twins!(body, value);
        assert_same_bits(&expected, &actual);
        assert_eq!(actual[7], value(11));
    }
    check(|at| i64::from(at) * 1_000_000_007);
    check(|at| f32::from(at) * 0.1);
    check(|at| bf16::from_f32(at.into()));
}

#[test]
fn fills_are_those_of_the_cpu() {
    fn body<B: Memory, T: Element>(backend: &mut B, value: T) -> Vec<T> {
        let mut buffer = backend.allocate("test", 1000).unwrap();
        backend.fill(B::slice_mut(B::view_mut(&mut buffer), 3..997), value);
        download(backend, &buffer)
    }
    fn check<T: Element>(value: T) {
        let (expected, actual) = twins!(body, value);
        assert_same_bits(&expected, &actual);
    }
    check(1.5f32);
    check(bf16::from_f32(-2.5));
    check(0x0123_4567_89ab_cdef_i64);
    check(f64::MIN_POSITIVE);
    check(u32::MAX);
}

#[test]
fn memory_that_is_not_there_is_named() {
    let mut cuda = cuda();
    let asked = cuda.allocate::<f32>("parameters", 1 << 40);
    let error = asked.err().unwrap();
    assert!(matches!(error, BackendError::OutOfDeviceMemory { bytes, .. } if bytes == 1 << 42));
    assert!(
        error
            .to_string()
            .contains("no memory for parameters on GPU 0: 4398046511104 bytes")
    );
    // The device goes on.
    let buffer = upload(&mut cuda, &[1.0f32]);
    assert_eq!(download(&mut cuda, &buffer), [1.0]);
    cuda.synchronize().unwrap();
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let error = Cuda::new(99).err().unwrap().to_string();
    assert!(error.contains("no GPU 99: there"), "{error}");
}
