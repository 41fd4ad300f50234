//! A fence that is missing between the two streams of a GPU is found where streams do not run at once.

use std::sync::Arc;

use ringstep::backend::cuda::Cuda;
use ringstep::comm::{Fault, Faulty, Options, ReduceMode, Staged};
use ringstep::data::{Prefetch, Sampler, Table, Targets};
use ringstep::layers::{Build, LayerSpec};
use ringstep::models::{LossSpec, Sequential};
use ringstep::optim::Adam;
use ringstep::train::{Reducer, TrainError, Trainer, TrainerOptions, connect_threads, run_threads};

use crate::twins::{alone, is_emulated};

const LAYERS: &str = r#"[
    {"kind": "dense", "units": 16, "activation": "relu"},
    {"kind": "dense", "units": 3}
]"#;

const STEPS: u64 = 4;

/// Set for the process that runs with other streams: the emulator reads that once.
const CHILD: &str = "RINGSTEP_TEST_FENCES";

/// The weights after a few steps of two ranks, each on a GPU of its own where there are two, whose collectives have the fault at every call.
fn train(fault: Option<Fault>) -> Result<Vec<f32>, TrainError> {
    let rows = 64;
    let classes = (0..3).map(|class| class.to_string()).collect();
    let table = Arc::new(Table {
        features: (0..rows * 8).map(|i| (i as f32 * 0.7).sin()).collect(),
        targets: (0..rows).map(|row| (row % 3) as f32).collect(),
        ..Table::empty([8].into(), Targets::Classes(classes), rows)
    });
    let body = |mut reducer: Reducer| -> Result<Vec<f32>, TrainError> {
        let mut cuda = Cuda::new(reducer.rank() % Cuda::count()?)?;
        let of_reducer = cuda.clone();
        reducer.wrap(Box::new(move |host| {
            let staged = Box::new(Staged::new(of_reducer, host));
            let script = fault
                .into_iter()
                .flat_map(|fault| (0..1000).map(move |at| (at, fault)));
            Ok(Box::new(Faulty::new(staged, script.collect())))
        }))?;
        let layers: Vec<LayerSpec> = serde_json::from_str(LAYERS).unwrap();
        let loss = LossSpec::SoftmaxCrossEntropy(Default::default());
        let build = Build::new(&mut cuda, 4);
        let model = Sequential::new(build, &layers, &table.description(), &loss)?;
        let options = TrainerOptions {
            reduce: ReduceMode::F32,
            bucket_bytes: 256,
            ..TrainerOptions::new(4, 4, Adam::default())
        };
        let rank = (reducer.rank(), reducer.world());
        let mut trainer = Trainer::new(cuda, model, options, reducer)?;
        let sampler = Sampler {
            rows,
            global_batch: 16,
            micro_batch: 4,
            seed: 0,
            shuffle: true,
            ..Sampler::default()
        };
        let mut shares = Prefetch::start(Arc::clone(&table), sampler, rank, 0..STEPS).unwrap();
        while let Some(share) = shares.next_share() {
            trainer.step(&share, 0.01)?;
            shares.recycle(share);
        }
        let tensors = trainer.tensors().into_iter();
        Ok(tensors.flat_map(|(_, _, values)| values).collect())
    };
    let options = Options {
        overlap: Some(true),
        ..Options::default()
    };
    let mut weights = run_threads(connect_threads(2, &options).unwrap(), body)?;
    Ok(weights.swap_remove(0))
}

#[test]
#[ignore = "a process that another test starts"]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let fenced = train(None).unwrap();
    assert_eq!(fenced, train(None).unwrap(), "with all fences");
    // What was summed is not what backward wrote: other weights, or no finite ones.
    match train(Some(Fault::Unfenced)) {
        Ok(weights) => assert_ne!(weights, fenced, "the missing fence was not seen"),
        Err(TrainError::NotFinite { .. }) => {}
        Err(error) => panic!("something else than the missing fence was seen: {error}"),
    }
}

#[test]
fn a_removed_fence_is_found_by_streams_that_do_not_run_at_once() {
    let emulated = is_emulated();
    for streams in ["ahead", "deferred"] {
        for seed in ["forward", "5", "6"] {
            let variables = [
                ("FAKE_CUDA_STREAMS", streams),
                ("PTX_EMU_ORDER", seed),
                (CHILD, "1"),
            ];
            let output = alone("fences::child", &variables);
            let said = String::from_utf8_lossy(&output.stderr);
            // On hardware a race may go well.
            let found = output.status.success() || !emulated;
            assert!(found, "streams {streams}, order {seed}: {said}");
        }
    }
}
