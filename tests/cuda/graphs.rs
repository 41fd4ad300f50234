//! Kernels in CUDA graphs: what is computed is what is computed without.

use ringstep::backend::cuda::{Cuda, GraphCounts, cublaslt};
use ringstep::backend::{
    Accumulate, Activate, Activation, Matmul, MatmulChoice, MatmulShape, Memory,
};

use crate::training::{BUCKETS, CNN, CUDA, NCCL, STAGED, can_sum, folder, model, train};
use crate::twins::{alone, cuda, download, upload};

/// Set for the process whose driver launches no graph.
const CHILD: &str = "RINGSTEP_TEST_GRAPHS";

/// Five rounds of the same four kernels, with other numbers or other memory in some; in one round one more.
fn rounds(mut cuda: Cuda) -> (Vec<f32>, GraphCounts) {
    let values: Vec<f32> = (0..1000).map(|at| at as f32 * 0.01 - 5.0).collect();
    let x = upload(&mut cuda, &values);
    let [mut y, mut z] = [0; 2].map(|_| cuda.allocate("test", 1000).unwrap());
    let mut sum = cuda.allocate("test", 1000).unwrap();
    let mut seen = Vec::new();
    for round in 0..5 {
        let number = [1.0, 1.0, 2.0, 2.0, 3.0][round];
        cuda.fill(Cuda::view_mut(&mut y), number);
        cuda.copy(Cuda::view(&x), Cuda::view_mut(&mut z));
        if round == 3 {
            cuda.activate_in_place(Activation::Relu, Cuda::view_mut(&mut z));
        }
        cuda.add_assign(Cuda::view(&y), Cuda::view_mut(&mut z));
        let from = if round < 4 { &z } else { &x };
        cuda.add_assign(Cuda::view(from), Cuda::view_mut(&mut sum));
        cuda.release();
        seen.extend(download(&mut cuda, &sum));
    }
    cuda.synchronize().unwrap();
    (seen, cuda.graph_counts())
}

#[test]
fn what_differs_between_launches_of_a_graph_is_set_anew() {
    let (plain, none) = rounds(cuda());
    assert_eq!(none, GraphCounts::default());
    let (together, counts) = rounds(cuda().with_graphs());
    assert_eq!(plain, together);
    // Rounds 0 and 3 are new; 1, 2 and 4 the graph of 0, in which 2 changes a number, and 4 a number and an
    // address.
    let expected = GraphCounts {
        graphs: 1,
        launches: 3,
        updates: 3,
    };
    assert_eq!(counts, expected);
}

#[test]
fn kernels_do_not_wait_for_ever() {
    let mut cuda = cuda().with_graphs();
    let mut y = cuda.allocate::<f32>("test", 1).unwrap();
    for _ in 0..2 {
        for number in 0..1000 {
            cuda.fill(Cuda::view_mut(&mut y), number as f32);
        }
        assert_eq!(download(&mut cuda, &y), [999.0]);
    }
    // 1000 are three times 256, which are like each other, and some.
    let counts = cuda.graph_counts();
    assert_eq!((counts.graphs, counts.launches), (2, 6));
}

#[test]
fn products_go_in_graphs_by_cublaslt() {
    let shape = MatmulShape::nn(16, 8, 4);
    let run = |cuda: Cuda| {
        let mut cuda = cuda.with_matmul(MatmulChoice::Cublaslt).unwrap();
        let [a, b] = [64, 32].map(|len| {
            let values: Vec<f32> = (0..len).map(|at| at as f32 * 0.1 - 2.0).collect();
            upload(&mut cuda, &values)
        });
        let mut c = cuda.allocate("test", 128).unwrap();
        let mut seen = Vec::new();
        for round in 0..4 {
            cuda.fill(Cuda::view_mut(&mut c), round as f32);
            let (a, b) = (Cuda::view(&a), Cuda::view(&b));
            cuda.matmul(shape, a, b, Cuda::view_mut(&mut c), Accumulate::Add);
            cuda.activate_in_place(Activation::Relu, Cuda::view_mut(&mut c));
            seen.extend(download(&mut cuda, &c));
        }
        cuda.synchronize().unwrap();
        (seen, cuda.graph_counts())
    };
    let ((plain, none), (together, counts)) = (run(cuda()), run(cuda().with_graphs()));
    assert_eq!(plain, together);
    assert_eq!(none.launches, 0);
    // Round 1 makes the graph; 2 and 3 change a number.
    let expected = GraphCounts {
        graphs: 1,
        launches: 3,
        updates: 2,
    };
    assert_eq!(counts, expected);
}

const F16: &str = "train.precision=f16";
const KERNELS: &str = "train.matmul=kernels";
const CUBLASLT: &str = "train.matmul=cublaslt";

/// Twenty steps with a schedule; two micro-batches that are not as long as one another, and in every tenth
/// step one.
const STEPS: [&str; 4] = [
    CUDA,
    "train.micro_batch=5",
    "train.schedule={kind=\"cosine\",decay_steps=20}",
    "train.evaluate_every=5",
];

#[test]
fn runs_have_the_same_bits_with_graphs_and_without() {
    let folder = folder();
    let folder = folder.path();
    let model = &*model(CNN);
    for (ranks, more) in [
        // Which product is whose is said: two runs may find other things quicker.
        (1, &[STAGED, F16, KERNELS][..]),
        (1, &[STAGED, CUBLASLT]),
        (2, &[STAGED, BUCKETS, "train.reduce=exact"]),
        (2, &[NCCL, BUCKETS, F16, CUBLASLT]),
    ] {
        let no_library = more.contains(&CUBLASLT) && cublaslt().is_err();
        if no_library || !can_sum(ranks, more[0]) {
            continue;
        }
        let run = |graphs| {
            train(
                folder,
                ranks,
                &[&STEPS[..], &[model, graphs], more].concat(),
            )
        };
        let (plain, together) = (run("train.graphs=false"), run("train.graphs=true"));
        assert_eq!(plain.losses.len(), 20);
        assert_eq!(plain, together, "{ranks} ranks, {more:?}");
    }
}

#[test]
#[ignore = "a process that another test starts"]
fn child() {
    if std::env::var_os(CHILD).is_some() {
        let folder = folder();
        train(
            folder.path(),
            1,
            &[&STEPS[..], &["train.graphs=false"]].concat(),
        );
        eprintln!("trained without graphs");
        train(folder.path(), 1, &STEPS);
    }
}

#[test]
fn training_uses_graphs_unless_told_not_to_by_faults() {
    let output = alone(
        "graphs::child",
        &[("FAKE_CUDA_FAIL", "cuGraphLaunch:20"), (CHILD, "1")],
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("trained without graphs"), "{said}");
    assert!(said.contains(r#"operation: "cuGraphLaunch""#), "{said}");
}
