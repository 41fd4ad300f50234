//! Nothing is allocated inside a step. In a program of its own, because it counts what the whole
//! program allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use ringstep::backend::Precision;
use ringstep::backend::cpu::Cpu;
use ringstep::comm::{CollectiveChoice, Options, ReduceMode};
use ringstep::data::{Prefetch, Sampler, Table, Targets};
use ringstep::layers::{Build, LayerSpec};
use ringstep::models::{LossSpec, Sequential};
use ringstep::optim::{Adam, ClipSpec, LossScale};
use ringstep::train::{Reducer, TrainError, Trainer, TrainerOptions, connect_threads, run_threads};

struct Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTING.load(Ordering::Relaxed) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A convolutional network with every kind of layer that keeps something between passes.
const LAYERS: &str = r#"[
    {"kind": "conv2d", "filters": 8, "kernel_size": 3, "activation": "relu"},
    "batch_normalization",
    "max_pooling2d",
    "flatten",
    {"kind": "dense", "units": 32, "activation": "gelu"},
    {"kind": "residual", "layers": [{"kind": "dense", "units": 32, "activation": "tanh"}]},
    {"kind": "dropout", "rate": 0.2},
    {"kind": "dense", "units": 10, "activation": "softmax"}
]"#;

/// Epochs of 41 steps of which the last is short: forty steps from number 1040 on see one end.
fn table() -> Arc<Table> {
    let rows = 1300;
    let classes = (0..10).map(|class| class.to_string()).collect();
    Arc::new(Table {
        features: (0..rows * 64).map(|i| (i as f32 * 0.7).sin()).collect(),
        targets: (0..rows).map(|i| (i % 10) as f32).collect(),
        ..Table::empty([8, 8, 1].into(), Targets::Classes(classes), rows)
    })
}

#[test]
fn a_step_of_two_ranks_allocates_nothing() {
    use CollectiveChoice::{Direct, Hierarchical, Ring};
    use ReduceMode::{Bf16, Exact, F32};
    let table = table();
    // Rows of a micro-batch: 16 for one a rank, 8 for two.
    for (collective, overlap, reduce, sharded, micro_batch, precision) in [
        (Direct, true, Exact, false, 8, Precision::F32),
        (Direct, false, Exact, false, 8, Precision::F32),
        (Direct, false, Exact, false, 16, Precision::F32),
        (Direct, true, Exact, true, 16, Precision::F32),
        (Direct, false, Exact, true, 8, Precision::F32),
        (Direct, true, F32, false, 8, Precision::F32),
        (Direct, false, F32, false, 8, Precision::F32),
        (Direct, false, Bf16, true, 8, Precision::F32),
        (Hierarchical, true, Exact, false, 8, Precision::F32),
        (Hierarchical, true, F32, true, 16, Precision::F32),
        (Ring, true, Exact, false, 8, Precision::F32),
        (Ring, true, Exact, false, 16, Precision::F32),
        (Ring, true, Bf16, false, 8, Precision::F32),
        (Ring, true, F32, true, 8, Precision::F32),
        (Direct, true, Exact, false, 8, Precision::F16),
        (Ring, false, Bf16, false, 16, Precision::Tf32),
    ] {
        let barrier = Barrier::new(2);
        let body = |reducer: Reducer| -> Result<(), TrainError> {
            let layers: Vec<LayerSpec> =
                serde_json::from_str(LAYERS).expect("the layers above are valid");
            let loss = LossSpec::SoftmaxCrossEntropy(Default::default());
            let mut backend = Cpu::new().with_precision(precision);
            let build = Build::new(&mut backend, micro_batch);
            let model = Sequential::new(build, &layers, &table.description(), &loss)?;
            let options = TrainerOptions {
                reduce,
                bucket_bytes: 4096,
                sharded,
                clip: Some(ClipSpec::GlobalNorm(1.0)),
                loss_scale: (precision == Precision::F16).then(LossScale::default),
                ..TrainerOptions::new(micro_batch, 32 / micro_batch, Adam::default())
            };
            let rank = (reducer.rank(), reducer.world());
            let mut trainer = Trainer::new(backend, model, options, reducer)?;
            let sampler = Sampler {
                rows: table.rows,
                global_batch: 32,
                micro_batch,
                seed: 0,
                shuffle: true,
                ..Sampler::default()
            };
            let mut shares = Prefetch::start(Arc::clone(&table), sampler, rank, 0..1100)
                .expect("a thread can be started");
            // A channel allocates once, when somebody first waits at it, and training may not wait
            // for data before its fortieth step: take a thousand shares faster than they are made.
            for _ in 0..1000 {
                let share = shares.next_share().expect("more shares were asked for");
                shares.recycle(share);
            }
            for step in 0..90 {
                if step == 40 || step == 80 {
                    barrier.wait();
                    COUNTING.store(step == 40, Ordering::SeqCst);
                    barrier.wait();
                }
                let share = shares.next_share().expect("more shares were asked for");
                trainer.step(&share, 1e-3)?;
                shares.recycle(share);
            }
            Ok(())
        };
        let options = Options {
            collective,
            overlap: Some(overlap),
            ..Options::default()
        };
        let connects = connect_threads(2, &options).expect("two threads are a world");
        ALLOCATIONS.store(0, Ordering::SeqCst);
        run_threads(connects, body).expect("training works");
        let allocations = ALLOCATIONS.load(Ordering::SeqCst);
        assert_eq!(
            allocations, 0,
            "in forty steps with {collective:?}, overlap: {overlap}, {reduce:?}, sharded: {sharded}, \
             micro-batches of {micro_batch}, {precision}"
        );
    }
}
