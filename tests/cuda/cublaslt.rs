//! Products by cuBLASLt: the CPU's, for every form, precision and epilogue.

use std::process::Command;

use ringstep::backend::cpu::Cpu;
use ringstep::backend::cuda::{self, Cuda};
use ringstep::backend::{
    Accumulate, Activation, BackendError, Form, Matmul, MatmulChoice, MatmulShape, Memory,
    Precision,
};

use crate::matmul::{ACTIVATIONS, FORMS, multiply, operands, reference};
use crate::twins::{
    F32_ERROR, Inset, alone, assert_close, assert_same_bits, cuda, download, is_emulated, normals,
    upload,
};

/// GPU 0 with products by cuBLASLt.
fn library() -> Cuda {
    cuda().with_matmul(MatmulChoice::Cublaslt).unwrap()
}

/// What cuBLASLt's products of operands that it rounds may differ from ours: it rounds as it likes.
const ROUNDED_ERROR: f64 = 1e-2;

fn error(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => F32_ERROR,
        Precision::Tf32 | Precision::Bf16 | Precision::F16 => ROUNDED_ERROR,
    }
}

/// Extents, odd ones among them; slices of sums, and none.
const EXTENTS: [[usize; 3]; 5] = [
    [1, 1, 1],
    [7, 13, 31],
    [36, 40, 20],
    [65, 68, 600],
    [64, 10, 257],
];

#[test]
fn forms_and_ways_to_write_are_those_of_f64() {
    for precision in Precision::ALL {
        let mut cuda = library().with_precision(precision).unwrap();
        for form in FORMS {
            for [m, n, k] in EXTENTS {
                let shape = MatmulShape { form, m, n, k };
                let (a, b) = operands(7, shape);
                let start = normals(9, m * n);
                for (write, before) in [
                    (Accumulate::Set, vec![0.0; m * n]),
                    (Accumulate::Add, start.clone()),
                ] {
                    let expected = reference(shape, (&a, &b), &before);
                    // What was there is not read where it is not added.
                    let start = match write {
                        Accumulate::Set => vec![f32::NAN; m * n],
                        Accumulate::Add => start.clone(),
                    };
                    let actual = multiply(&mut cuda, shape, (&a, &b), &start, write);
                    assert_close(&expected, &actual, error(precision));
                }
            }
        }
    }
}

#[test]
fn epilogues_are_those_of_the_cpu() {
    fn body<B: Matmul>(
        backend: &mut B,
        shape: MatmulShape,
        has_bias: bool,
        activation: Activation,
    ) -> Vec<f32> {
        let (a, b) = operands(11, shape);
        let scale = 1.0 / (shape.k as f32).sqrt();
        let a: Vec<f32> = a.iter().map(|a| a * scale).collect();
        let (a, b) = (upload(backend, &a), upload(backend, &b));
        let bias = upload(backend, &normals(13, shape.n));
        let mut c = upload(backend, &vec![f32::NAN; shape.m * shape.n]);
        let bias = has_bias.then(|| B::view(&bias));
        let (a, b) = (B::view(&a), B::view(&b));
        backend.matmul_bias_activation(shape, a, b, bias, activation, B::view_mut(&mut c));
        download(backend, &c)
    }
    for precision in Precision::ALL {
        let mut cpu = Cpu::new().with_precision(precision);
        let mut cuda = library().with_precision(precision).unwrap();
        for activation in ACTIVATIONS {
            for [m, n, k] in [[35, 44, 20], [9, 7, 261]] {
                for has_bias in [false, true] {
                    let shape = MatmulShape::nn(m, n, k);
                    let expected = body(&mut cpu, shape, has_bias, activation);
                    let actual = body(&mut cuda, shape, has_bias, activation);
                    assert_close(&expected, &actual, error(precision));
                }
            }
        }
        cuda.synchronize().unwrap();
    }
}

#[test]
fn products_of_halves_are_those_of_f64_of_rounded_operands() {
    for precision in [Precision::Bf16, Precision::F16] {
        let mut cuda = library().with_precision(precision).unwrap();
        let round = |x: f32| match precision {
            Precision::Bf16 => half::bf16::from_f32(x).to_f32(),
            _ => half::f16::from_f32(x).to_f32(),
        };
        for form in FORMS {
            for [m, n, k] in EXTENTS {
                let shape = MatmulShape { form, m, n, k };
                let (a, b) = operands(7, shape);
                let bias = normals(9, n);
                let rounded = [&a, &b].map(|values| values.iter().copied().map(round).collect());
                let [rounded_a, rounded_b]: [Vec<f32>; 2] = rounded;
                let start: Vec<f32> = bias.iter().copied().cycle().take(m * n).collect();
                let expected = reference(shape, (&rounded_a, &rounded_b), &start);
                let (a, b) = (upload(&mut cuda, &a), upload(&mut cuda, &b));
                let bias = upload(&mut cuda, &bias);
                let halves = cuda.halves(shape, Cuda::view(&a), Cuda::view(&b)).unwrap();
                for activation in [Activation::Linear, Activation::Relu, Activation::Tanh] {
                    let mut c = upload(&mut cuda, &vec![f32::NAN; m * n]);
                    let (bias, c_view) = (Some(Cuda::view(&bias)), Cuda::view_mut(&mut c));
                    assert!(cuda.multiply_halves(&halves, bias, activation, c_view));
                    let finish = |&x: &f32| match activation {
                        Activation::Relu => x.max(0.0),
                        Activation::Tanh => x.tanh(),
                        _ => x,
                    };
                    let expected: Vec<f32> = expected.iter().map(finish).collect();
                    // Sums alone are rounded here, which is why the error is that of `f32`.
                    assert_close(&expected, &download(&mut cuda, &c), F32_ERROR);
                }
            }
        }
        cuda.synchronize().unwrap();
    }
}

#[test]
fn each_call_adds_the_bias_that_it_is_given() {
    let mut cuda = library();
    let shape = MatmulShape::nn(3, 4, 1);
    let zeros = upload(&mut cuda, &[0.0; 4]);
    for value in [1.0, 2.0, 3.0] {
        let bias = upload(&mut cuda, &[value; 4]);
        let mut c = upload(&mut cuda, &[f32::NAN; 12]);
        let a = Cuda::slice(Cuda::view(&zeros), 0..3);
        let (b, bias) = (Cuda::view(&zeros), Some(Cuda::view(&bias)));
        let c_view = Cuda::view_mut(&mut c);
        cuda.matmul_bias_activation(shape, a, b, bias, Activation::Linear, c_view);
        assert_eq!(download(&mut cuda, &c), [value; 12]);
    }
}

#[test]
fn what_is_not_finite_reaches_every_element_it_takes_part_in_here_too() {
    let mut cuda = library();
    for activation in ACTIVATIONS {
        let (a, b) = (
            upload(&mut cuda, &[f32::NAN, 1.0]),
            upload(&mut cuda, &[1.0f32; 2]),
        );
        let mut c = upload(&mut cuda, &[0.0f32; 4]);
        let (a, b) = (Cuda::view(&a), Cuda::view(&b));
        let shape = MatmulShape::nn(2, 2, 1);
        cuda.matmul_bias_activation(shape, a, b, None, activation, Cuda::view_mut(&mut c));
        let c = download(&mut cuda, &c);
        assert!(c[0].is_nan() && c[1].is_nan(), "{activation:?}: {c:?}");
        assert!(
            c[2].is_finite() && c[3].is_finite(),
            "{activation:?}: {c:?}"
        );
    }
}

#[test]
fn what_it_does_not_take_is_own_kernels() {
    let (mut own, mut cuda) = (cuda(), library());
    for form in FORMS {
        // No terms, no rows.
        for [m, n, k] in [[5, 3, 0], [0, 3, 4]] {
            let shape = MatmulShape { form, m, n, k };
            let (a, b) = operands(1, shape);
            let start = normals(2, m * n);
            let added = multiply(&mut cuda, shape, (&a, &b), &start, Accumulate::Add);
            assert_same_bits(&start, &added);
        }
    }
    // Addresses that no algorithm may count on.
    let shape = MatmulShape::nn(12, 8, 20);
    let body = |cuda: &mut Cuda, before: [usize; 3]| {
        let (a, b) = operands(3, shape);
        let a = Inset::new(cuda, before[0], &a);
        let b = Inset::new(cuda, before[1], &b);
        let mut c = Inset::room(cuda, before[2], 96);
        cuda.matmul(shape, a.view(), b.view(), c.view_mut(), Accumulate::Set);
        c.download(cuda)
    };
    for before in [[1, 0, 0], [0, 2, 0], [0, 0, 3]] {
        let (own, actual) = (body(&mut own, before), body(&mut cuda, before));
        assert_same_bits(&own, &actual);
    }
    body(&mut cuda, [4, 8, 4]);
    cuda.synchronize().unwrap();
}

#[test]
fn nobody_keeps_anything_in_its_workspace() {
    // Own kernels keep slices' tables there, whose sums are over when the library begins, and behind.
    let (mut own, mut cuda) = (cuda(), library());
    let shape = MatmulShape::nn(5, 12, 300);
    let (a, b) = operands(5, shape);
    let start = vec![0.0; 60];
    let expected = multiply(&mut own, shape, (&a, &b), &start, Accumulate::Set);
    let ours = [&[f32::NAN][..], &a].concat();
    let moved = upload(&mut cuda, &ours);
    let b_buffer = upload(&mut cuda, &b);
    let mut c = [upload(&mut cuda, &start), upload(&mut cuda, &start)];
    let aligned = upload(&mut cuda, &a);
    for c in &mut c {
        let a = Cuda::slice(Cuda::view(&moved), 1..ours.len());
        let (b, c) = (Cuda::view(&b_buffer), Cuda::view_mut(c));
        cuda.matmul(shape, a, b, c, Accumulate::Set);
        let mut other = upload(&mut cuda, &start);
        let other = Cuda::view_mut(&mut other);
        cuda.matmul(shape, Cuda::view(&aligned), b, other, Accumulate::Set);
    }
    for c in &c {
        assert_same_bits(&expected, &download(&mut cuda, c));
    }
}

#[test]
fn the_fingerprint_names_it_only_where_it_is_asked_for() {
    let version = &cuda::cublaslt().unwrap().version;
    let named = format!(" cuBLASLt {version}");
    assert!(library().fingerprint().contains(&named));
    for choice in [MatmulChoice::Auto, MatmulChoice::Kernels] {
        let fingerprint = cuda().with_matmul(choice).unwrap().fingerprint();
        assert_eq!(fingerprint, cuda().fingerprint());
    }
}

#[test]
fn products_that_are_timed_are_computed_by_what_was_chosen() {
    let mut cuda = cuda().with_matmul(MatmulChoice::Auto).unwrap();
    let shape = MatmulShape::nn(9, 12, 40);
    let (a, b) = operands(3, shape);
    let start = normals(4, 9 * 12);
    let run = |cuda: &mut Cuda| multiply(cuda, shape, (&a, &b), &start, Accumulate::Add);
    let by_kernels = run(&mut cuda);
    assert_eq!(run(&mut cuda), by_kernels);
    let mut timed = cuda.time_products().unwrap();
    let [product] = &mut timed[..] else {
        panic!("one product was asked for twice: {timed:?}");
    };
    assert_eq!((product.call.shape, product.call.bias), (shape, false));
    assert_eq!(product.call.write, Accumulate::Add);
    let quicker = match product.cublaslt_us.unwrap() < product.kernels_us {
        true => MatmulChoice::Cublaslt,
        false => MatmulChoice::Kernels,
    };
    assert_eq!(product.chosen, quicker);
    let [mut own, mut by_library] = [self::cuda(), library()];
    let expected = [run(&mut own), run(&mut by_library)];
    // The two differ, so that it can be told which it was; on hardware they may be the same sums.
    assert!(expected[0] != expected[1] || !is_emulated());
    for (choice, expected) in [MatmulChoice::Kernels, MatmulChoice::Cublaslt]
        .into_iter()
        .zip(expected)
    {
        timed[0].chosen = choice;
        cuda.choose_products(&timed);
        assert_same_bits(&expected, &run(&mut cuda));
    }
    // What was never seen is own kernels'.
    let other = MatmulShape { m: 8, ..shape };
    let (start, expected) = (&start[..8 * 12], &by_kernels[..8 * 12]);
    let actual = multiply(&mut cuda, other, (&a[..8 * 40], &b), start, Accumulate::Add);
    assert_same_bits(expected, &actual);
    assert!(cuda.time_products().unwrap().is_empty());
}

#[test]
#[ignore = "a process that another test starts"]
fn without_the_library() {
    let error = cuda().with_matmul(MatmulChoice::Cublaslt).unwrap_err();
    assert!(matches!(error, BackendError::NoDevice { .. }));
    let error = error.to_string();
    for part in [
        "cuBLASLt was not found; `pip install nvidia-cublas`",
        "LD_LIBRARY_PATH; or use `--matmul kernels`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let mut auto = cuda().with_matmul(MatmulChoice::Auto).unwrap();
    assert!(!auto.has_library());
    let shape = MatmulShape {
        form: Form::NN,
        m: 2,
        n: 2,
        k: 1,
    };
    let c = multiply(
        &mut auto,
        shape,
        (&[1.0, 2.0], &[3.0, 4.0]),
        &[0.0; 4],
        Accumulate::Set,
    );
    assert_eq!(c, [3.0, 4.0, 6.0, 8.0]);
}

/// A folder with the libraries of `LD_LIBRARY_PATH` but cuBLASLt.
fn libraries_without_it() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let paths = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let files = paths
        .split(':')
        .filter_map(|path| std::fs::read_dir(path).ok())
        .flatten()
        .flatten();
    for file in files {
        let name = file.file_name();
        let link = folder.path().join(&name);
        if !name.to_string_lossy().starts_with("libcublasLt") && !link.exists() {
            std::os::unix::fs::symlink(file.path(), link).unwrap();
        }
    }
    folder
}

#[test]
fn a_missing_library_is_an_error_only_where_it_is_asked_for_by_faults() {
    let folder = libraries_without_it();
    let path = folder.path().to_str().unwrap();
    let output = alone(
        "cublaslt::without_the_library",
        &[("LD_LIBRARY_PATH", path)],
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_run_without_the_library_says_that_own_kernels_multiply_by_faults() {
    let (data, folder) = (crate::training::folder(), libraries_without_it());
    let run = |matmul: &str| {
        let output = Command::new(crate::twins::program())
            .args(["train", "run.toml", "--device", "cuda", "--overwrite"])
            .args(["--matmul", matmul])
            .current_dir(data.path())
            .env("LD_LIBRARY_PATH", folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    let (succeeded, said) = run("auto");
    assert!(succeeded, "{said}");
    for part in [
        "own kernels multiply: cuBLASLt was not found",
        "matmul: own kernels, for rank 0 has no cuBLASLt",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    let (succeeded, said) = run("cublaslt");
    assert!(
        !succeeded && said.contains("pip install nvidia-cublas"),
        "{said}"
    );
    let (succeeded, said) = run("kernels");
    assert!(succeeded && !said.contains("cuBLASLt"), "{said}");
}

#[test]
fn a_library_of_another_kind_is_named_by_faults() {
    let folder = libraries_without_it();
    let other = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.ends_with("libnccl.so.2"))
        .unwrap();
    let link = folder.path().join("libcublasLt.so.13");
    std::os::unix::fs::symlink(other, link).unwrap();
    let output = Command::new(crate::twins::program())
        .arg("doctor")
        .env("LD_LIBRARY_PATH", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("is no usable cuBLASLt: it has no cublasLtCreate"),
        "{said}"
    );
}
