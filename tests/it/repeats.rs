//! Steps that are computed again because gradients outgrew what was made ready for their exact sums,
//! and where that ends.

use std::sync::Arc;

use ringstep::backend::cpu::Cpu;
use ringstep::comm::{CollectiveChoice, Options};
use ringstep::data::{Prefetch, Sampler, Table, Targets};
use ringstep::layers::{Build, Context, LayerSpec};
use ringstep::models::{LossSpec, MicroBatch, Model, Sequential, SquaredError, Structure};
use ringstep::optim::Sgd;
use ringstep::params::GradSink;
use ringstep::train::{
    Reducer, StepReport, TrainError, Trainer, TrainerOptions, connect_threads, run_threads,
};

/// By how much the gradient grows: more than exact sums leave room for.
const GROWTH: f32 = 1024.0;

/// How often a step is computed again, at most.
const MOST_REPEATS: usize = 4;

const ROWS: usize = 4;
const MICRO_BATCH: usize = 2;

/// A line through the origin whose inputs, and with them its gradient, grow the first times that it is
/// computed.
struct Growing {
    line: Sequential<Cpu>,
    growths: usize,
    computed: usize,
    features: Vec<f32>,
}

impl Model<Cpu> for Growing {
    fn structure(&self) -> &Structure {
        self.line.structure()
    }

    fn forward(
        &mut self,
        cx: &mut Context<'_, Cpu>,
        parameters: &[f32],
        batch: &MicroBatch<'_, Cpu>,
        report: &mut [f64],
    ) {
        self.computed += 1;
        let factor = GROWTH.powi(self.computed.min(self.growths) as i32);
        self.features = batch.features.iter().map(|x| factor * x).collect();
        let batch = MicroBatch {
            features: &self.features[..],
            targets: batch.targets,
            weights: batch.weights,
        };
        self.line.forward(cx, parameters, &batch, report);
    }

    fn backward(
        &mut self,
        cx: &mut Context<'_, Cpu>,
        parameters: &[f32],
        batch: &MicroBatch<'_, Cpu>,
        sink: &mut dyn GradSink<Cpu>,
    ) {
        let batch = MicroBatch {
            features: &self.features[..],
            targets: batch.targets,
            weights: batch.weights,
        };
        self.line.backward(cx, parameters, &batch, sink);
    }

    fn predict(
        &mut self,
        cx: &mut Context<'_, Cpu>,
        parameters: &[f32],
        features: &[f32],
        out: &mut [f32],
    ) {
        self.line.predict(cx, parameters, features, out);
    }
}

/// What became of one step.
struct Stepped {
    report: Result<StepReport, TrainError>,
    /// How often the model was computed.
    computed: usize,
    steps: u64,
    weight: f32,
}

/// One step of a model that grows so often, on two ranks with a micro-batch each.
fn step(growths: usize, collective: CollectiveChoice) -> Vec<Stepped> {
    let table = Arc::new(Table {
        features: vec![1.0; ROWS],
        targets: vec![1.0; ROWS],
        ..Table::empty([1].into(), Targets::Numbers(1), ROWS)
    });
    let line =
        r#"[{"kind": "dense", "units": 1, "use_bias": false, "kernel_initializer": "zeros"}]"#;
    let line: Vec<LayerSpec> = serde_json::from_str(line).unwrap();
    let body = |reducer: Reducer| -> Result<Stepped, TrainError> {
        let mut backend = Cpu::new();
        let build = Build::new(&mut backend, MICRO_BATCH);
        let loss = LossSpec::from(SquaredError {});
        let model = Growing {
            line: Sequential::new(build, &line, &table.description(), &loss)?,
            growths,
            computed: 0,
            features: Vec::new(),
        };
        let options = TrainerOptions {
            bucket_bytes: 1 << 10,
            ..TrainerOptions::new(MICRO_BATCH, ROWS / MICRO_BATCH, Sgd::default())
        };
        let rank = (reducer.rank(), reducer.world());
        let mut trainer = Trainer::new(backend, model, options, reducer)?;
        let sampler = Sampler {
            rows: ROWS,
            global_batch: ROWS,
            micro_batch: MICRO_BATCH,
            seed: 0,
            shuffle: false,
            ..Sampler::default()
        };
        let mut shares = Prefetch::start(Arc::clone(&table), sampler, rank, 0..1).unwrap();
        let report = trainer.step(&shares.next_share().unwrap(), 1e-3);
        Ok(Stepped {
            report,
            computed: trainer.model().computed,
            steps: trainer.global_step(),
            weight: trainer.tensors()[0].2[0],
        })
    };
    let options = Options::default().with_collective(collective);
    run_threads(connect_threads(2, &options).unwrap(), body).unwrap()
}

#[test]
fn a_step_whose_gradients_settle_is_repeated_until_they_do() {
    for collective in [CollectiveChoice::Auto, CollectiveChoice::Ring] {
        for growths in 1..=MOST_REPEATS {
            for rank in step(growths, collective) {
                // Each growth is seen once, and the step that fits is computed after the last.
                let repeats = rank.report.unwrap().repeats;
                assert_eq!((repeats, rank.computed), (growths, growths + 1));
                assert_eq!(rank.steps, 1);
                // The mean of -2 * 1 * x, times the rate.
                let expected = 2e-3 * GROWTH.powi(growths as i32);
                assert!((rank.weight / expected - 1.0).abs() < 1e-6);
            }
        }
    }
}

#[test]
fn a_step_whose_gradients_grow_each_time_is_given_up_by_all_ranks() {
    for collective in [CollectiveChoice::Auto, CollectiveChoice::Ring] {
        for rank in step(MOST_REPEATS + 1, collective) {
            let error = rank.report.unwrap_err();
            assert!(
                matches!(error, TrainError::Unrepeatable { step: 1 }),
                "{error}"
            );
            assert_eq!(rank.computed, MOST_REPEATS + 1);
            assert_eq!((rank.steps, rank.weight), (0, 0.0), "the step was applied");
        }
    }
}
