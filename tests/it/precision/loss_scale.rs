//! The factor of losses under f16: what it changes and what it must not, step by step.

use std::ops::Range;
use std::sync::Arc;

use ringstep::backend::Precision;
use ringstep::backend::cpu::Cpu;
use ringstep::comm::{Options, ReduceMode};
use ringstep::data::{Prefetch, Sampler, Table, Targets};
use ringstep::layers::{Build, LayerSpec};
use ringstep::models::{LossReduction, LossSpec, Sequential};
use ringstep::optim::{Adam, ClipSpec, LossScale};
use ringstep::train::{
    Reducer, StepReport, TrainError, Trainer, TrainerOptions, connect_threads, run_threads,
};

const LAYERS: &str = r#"[
    {"kind": "dense", "units": 8, "activation": "tanh"},
    "batch_normalization",
    {"kind": "dense", "units": 1}
]"#;

const ROWS: usize = 96;
const GLOBAL_BATCH: usize = 24;
const MICRO_BATCH: usize = 4;

/// Numbers of a size that `f16` cannot hold 2^15 times.
fn table(weights: Option<Vec<f32>>) -> Arc<Table> {
    let noise = |i: usize| ((i * 2_654_435_761) % 1_000_003) as f32 / 500_001.5 - 1.0;
    let features: Vec<f32> = (0..ROWS * 3).map(noise).collect();
    let target = |row: &[f32]| 100.0 * row[0] - 50.0 * row[1] + 30.0;
    Arc::new(Table {
        targets: features.chunks(3).map(target).collect(),
        features,
        weights,
        ..Table::empty([3].into(), Targets::Numbers(1), ROWS)
    })
}

struct Recipe {
    precision: Precision,
    reduce: ReduceMode,
    scale: Option<LossScale>,
    clip: Option<ClipSpec>,
    weights: Option<Vec<f32>>,
    /// Of the sample stream.
    steps: Range<u64>,
}

impl Recipe {
    fn new(precision: Precision, scale: Option<LossScale>) -> Self {
        Self {
            precision,
            reduce: ReduceMode::Exact,
            scale,
            clip: None,
            weights: None,
            steps: 0..24,
        }
    }
}

/// Parameters and moving statistics.
type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// What each step said, and the tensors before the first and after each.
type Trained = (Vec<StepReport>, Vec<Tensors>);

fn train(reducer: Reducer, recipe: &Recipe) -> Result<Trained, TrainError> {
    let table = table(recipe.weights.clone());
    let layers: Vec<LayerSpec> = serde_json::from_str(LAYERS).unwrap();
    let mut backend = Cpu::new().with_precision(recipe.precision);
    let build = Build::new(&mut backend, MICRO_BATCH);
    let loss = LossSpec::SquaredError(Default::default());
    let model = Sequential::new(build, &layers, &table.description(), &loss)?;
    let options = TrainerOptions {
        seed: 3,
        reduce: recipe.reduce,
        bucket_bytes: 1 << 10,
        loss_reduction: LossReduction::WeightedMean,
        clip: recipe.clip,
        loss_scale: recipe.scale,
        ..TrainerOptions::new(MICRO_BATCH, GLOBAL_BATCH / MICRO_BATCH, Adam::default())
    };
    let rank = (reducer.rank(), reducer.world());
    let mut trainer = Trainer::new(backend, model, options, reducer)?;
    let sampler = Sampler {
        rows: ROWS,
        global_batch: GLOBAL_BATCH,
        micro_batch: MICRO_BATCH,
        seed: 3,
        shuffle: true,
        ..Sampler::default()
    };
    let mut shares = Prefetch::start(table, sampler, rank, recipe.steps.clone()).unwrap();
    let (mut reports, mut tensors) = (Vec::new(), vec![trainer.tensors()]);
    while let Some(share) = shares.next_share() {
        let report = trainer.step(&share, 0.3)?;
        let exposed = Default::default();
        reports.push(StepReport { exposed, ..report });
        tensors.push(trainer.tensors());
        shares.recycle(share);
    }
    Ok((reports, tensors))
}

fn train_threads(world: usize, recipe: &Recipe) -> Vec<Result<Trained, String>> {
    let results = std::sync::Mutex::new(Vec::new());
    let connects = connect_threads(world, &Options::default()).unwrap();
    let body = |reducer: Reducer| {
        let result = train(reducer, recipe);
        let said = result.as_ref().map_err(ToString::to_string).cloned();
        results.lock().unwrap().push(said);
        result
    };
    let _ = run_threads(connects, body);
    results.into_inner().unwrap()
}

fn train_one(recipe: &Recipe) -> Trained {
    train_threads(1, recipe).swap_remove(0).unwrap()
}

fn halved(times: u64) -> LossScale {
    let mut scale = LossScale::default();
    (0..times).for_each(|_| scale.overflowed());
    scale
}

#[test]
fn a_step_that_overflows_changes_nothing_but_the_factor_and_training_goes_on() {
    let recipe = Recipe::new(Precision::F16, Some(LossScale::default()));
    let (reports, tensors) = train_one(&recipe);
    let mut factor = 32768.0;
    for (step, report) in reports.iter().enumerate() {
        assert_eq!(report.loss_scale, Some(factor), "{step}");
        let (before, after) = (&tensors[step], &tensors[step + 1]);
        assert_eq!(before == after, report.skipped, "{step}");
        assert!(report.loss.is_finite());
        factor = if report.skipped { factor / 2.0 } else { factor };
    }
    let skipped = reports.iter().filter(|report| report.skipped).count();
    assert!((5..=12).contains(&skipped), "{skipped} of 24 skipped");
    let (first, last) = (reports[0].loss, reports[reports.len() - 1].loss);
    assert!(last < first / 2.0, "{first} to {last}");
}

#[test]
fn the_optimizer_counts_no_step_that_overflowed() {
    let skips = Recipe::new(Precision::F16, Some(LossScale::default()));
    let (all, with) = train_one(&skips);
    let first = all.iter().position(|report| !report.skipped).unwrap() as u64;
    let begins_there = Recipe {
        steps: first..skips.steps.end,
        ..Recipe::new(Precision::F16, Some(halved(first)))
    };
    let (reports, without) = train_one(&begins_there);
    assert!(first > 0 && reports[..] == all[first as usize..]);
    assert_eq!(with.last(), without.last());
}

#[test]
fn all_ranks_skip_together_and_end_with_the_bits_of_one() {
    let recipe = Recipe::new(Precision::F16, Some(LossScale::default()));
    let one = train_one(&recipe);
    for world in [2, 3, 5] {
        for rank in train_threads(world, &recipe) {
            let (reports, tensors) = rank.unwrap();
            let said = |report: &StepReport| (report.totals, report.loss_scale, report.skipped);
            assert!(
                reports.iter().map(said).eq(one.0.iter().map(said)),
                "{world} ranks"
            );
            assert_eq!(tensors, one.1, "{world} ranks");
        }
    }
}

#[test]
fn at_a_factor_of_one_it_is_an_error_that_every_rank_gives() {
    // A row that weighs so much that its gradient is beyond f16 whatever the factor.
    let mut weights = vec![1.0; ROWS];
    weights[17] = 1e6;
    let recipe = Recipe {
        weights: Some(weights),
        ..Recipe::new(Precision::F16, Some(halved(14)))
    };
    let results = train_threads(3, &recipe);
    assert_eq!(results.len(), 3);
    for result in results {
        let error = result.unwrap_err();
        assert!(
            error.contains("the gradient is not finite on rank"),
            "{error}"
        );
        assert!(error.contains("lower the learning rate"), "{error}");
    }
}

#[test]
fn without_rounding_the_factor_changes_no_bit() {
    let weights: Vec<f32> = (0..ROWS).map(|row| 0.3 + row as f32 % 7.0).collect();
    for weights in [None, Some(weights)] {
        for clip in [
            None,
            Some(ClipSpec::GlobalNorm(0.5)),
            Some(ClipSpec::Value(0.5)),
        ] {
            let recipe = |scale| Recipe {
                reduce: ReduceMode::F32,
                clip,
                weights: weights.clone(),
                ..Recipe::new(Precision::F32, scale)
            };
            let (plain_reports, plain) = train_one(&recipe(None));
            let (reports, scaled) = train_one(&recipe(Some(LossScale::default())));
            assert_eq!(scaled, plain, "{clip:?}");
            for (scaled, plain) in reports.iter().zip(&plain_reports) {
                let loss_scale = None;
                assert_eq!(scaled.loss_scale, Some(32768.0));
                assert_eq!(
                    StepReport {
                        loss_scale,
                        ..*scaled
                    },
                    *plain,
                    "{clip:?}"
                );
            }
        }
    }
}
