//! Every run that TensorFlow's Estimators made: the loss of each of the first hundred steps, and accuracy,
//! average loss and area under the curve at the end.
//!
//! A run's rows go round: step s takes rows s * batch and on, modulo the rows there are, so the table is
//! repeated as often as the run passes over it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ringstep::backend::cpu::Cpu;
use ringstep::checkpoint::{Checkpoint, Named};
use ringstep::comm::Options;
use ringstep::config::RunConfig;
use ringstep::data::{Prefetch, Split, Table};
use ringstep::layers::Build;
use ringstep::train::{Reducer, TrainError, Trainer, TrainerOptions, connect_threads, run_threads};
use serde_json::Value;

use crate::digits::{saved, variables};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The golden file.
fn golden() -> Value {
    let path = format!("{ROOT}/tests/golden/estimators.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    let items = value.as_array().unwrap();
    items.iter().map(|item| item.as_str().unwrap()).collect()
}

/// A run of TensorFlow's as a run file.
struct Recipe<'a> {
    run: &'a Value,
    vocabularies: &'a Value,
    data: &'a str,
    is_v1: bool,
}

impl Recipe<'_> {
    fn file(&self) -> String {
        let folder = match self.data {
            "breast_cancer" => format!("{ROOT}/tests/golden/tables/breast_cancer_"),
            data => format!("{ROOT}/examples/{data}/"),
        };
        let label = match self.data {
            "iris" => "species",
            "breast_cancer" => "benign",
            "autompg" => "mpg",
            _ => "income_over_50k",
        };
        let used = [strings(&self.run["linear"]), strings(&self.run["dnn"])].concat();
        let columns: BTreeMap<_, _> = used.iter().flat_map(|name| self.columns(name)).collect();
        let columns = match columns.is_empty() {
            true => String::new(),
            false => {
                let entries = columns
                    .iter()
                    .map(|(name, spec)| format!("{name} = {spec}\n"));
                format!("[columns]\n{}", entries.collect::<String>())
            }
        };
        let (batch, steps) = (&self.run["batch"], &self.run["steps"]);
        let reduction = if self.is_v1 { "sum" } else { "mean" };
        format!(
            "[data]\nformat = \"csv\"\ntrain = \"{folder}train.csv\"\ntest = \"{folder}test.csv\"\n\
             label = \"{label}\"\nshuffle = false\n{columns}[estimator]\n{}\n[train]\n\
             global_batch = {batch}\nmicro_batch = {batch}\nsteps = {steps}\n\
             loss_reduction = \"{reduction}\"\n",
            self.estimator()
        )
    }

    /// What a column of TensorFlow's layout is here, and what it is made of.
    fn columns(&self, name: &str) -> Vec<(String, String)> {
        let vocabulary = |column: &str| {
            let values = &self.vocabularies[self.data][column];
            values
                .is_array()
                .then(|| format!("{{ kind = \"vocabulary\", values = {values} }}"))
        };
        let hash = || "{ kind = \"hash\", buckets = 1000 }".to_owned();
        let is_wide = strings(&self.run["linear"]).contains(&"education_X_occupation")
            || !strings(&self.run["dnn"]).is_empty();
        let crossed =
            |keys: &str| format!("{{ kind = \"crossed\", keys = {keys}, buckets = 1000 }}");
        let ages = "{ kind = \"bucketized\", source = \"age\", boundaries = [18, 25, 30, 35, 40, 45, 50, \
                    55, 60, 65] }";
        let of_category = |column: &str| match column {
            "occupation" if is_wide => hash(),
            column => vocabulary(column).unwrap(),
        };
        let base = name
            .strip_suffix("_indicator")
            .or_else(|| name.strip_suffix("_embedding"));
        let pair = |name: &str, spec: String| (name.to_owned(), spec);
        match (name, base) {
            (_, Some(base)) => vec![pair(base, of_category(base))],
            ("age_bucketized", _) => vec![pair(name, ages.to_owned())],
            ("origin_bucketized", _) => vec![pair(
                name,
                "{ kind = \"bucketized\", source = \"origin\", boundaries = [1.5, 2.5] }"
                    .to_owned(),
            )],
            ("education_X_occupation", _) => {
                vec![pair(name, crossed("[\"education\", \"occupation\"]"))]
            }
            ("age_bucketized_X_education_X_occupation", _) => {
                let keys = "[\"age_bucketized\", \"education\", \"occupation\"]";
                vec![pair(name, crossed(keys))]
            }
            (name, _) if vocabulary(name).is_some() => vec![pair(name, of_category(name))],
            (name, _) if self.data == "iris" => vec![pair(name, "\"numeric\"".to_owned())],
            (name, _) => {
                let spec = "{ kind = \"numeric\", normalize = \"standardize\" }";
                vec![pair(name, spec.to_owned())]
            }
        }
    }

    fn estimator(&self) -> String {
        let run = self.run;
        let class = run["estimator"].as_str().unwrap();
        let mut text = String::new();
        let mut put = |key: &str, value: String| text += &format!("{key} = {value}\n");
        let kind = match class {
            "LinearClassifier" => "linear_classifier",
            "LinearRegressor" => "linear_regressor",
            "DNNClassifier" => "dnn_classifier",
            "DNNRegressor" => "dnn_regressor",
            "DNNLinearCombinedClassifier" => "dnn_linear_combined_classifier",
            "DNNLinearCombinedRegressor" => "dnn_linear_combined_regressor",
            "BaselineClassifier" => "baseline_classifier",
            _ => "baseline_regressor",
        };
        put("kind", format!("\"{kind}\""));
        if self.data == "iris" {
            put("n_classes", "3".to_owned());
        }
        let is_combined = class.starts_with("DNNLinear");
        let (linear, dnn) = match is_combined {
            true => ("linear_", "dnn_"),
            false => ("", ""),
        };
        // The order in which columns are handed in means nothing: TensorFlow sorts them, too.
        let [mut linear_columns, mut dnn_columns] =
            ["linear", "dnn"].map(|side| strings(&run[side]));
        linear_columns.reverse();
        dnn_columns.reverse();
        if !linear_columns.is_empty() {
            put(
                &format!("{linear}feature_columns"),
                format!("{linear_columns:?}"),
            );
        }
        if !run["hidden"].is_null() {
            let wrapped = dnn_columns.into_iter().map(|name| {
                if let Some(column) = name.strip_suffix("_indicator") {
                    return format!("{{ kind = \"indicator\", column = \"{column}\" }}");
                }
                let Some(column) = name.strip_suffix("_embedding") else {
                    return format!("\"{name}\"");
                };
                let dimension = if column == "brand" { 4 } else { 8 };
                format!(
                    "{{ kind = \"embedding\", column = \"{column}\", dimension = {dimension} }}"
                )
            });
            let columns = wrapped.collect::<Vec<_>>().join(", ");
            put(&format!("{dnn}feature_columns"), format!("[{columns}]"));
            put(&format!("{dnn}hidden_units"), run["hidden"].to_string());
        }
        if run["args"]["batch_norm"] == true {
            put("batch_norm", "true".to_owned());
        }
        if let Some(activation) = run["args"]["activation_fn"].as_str() {
            put(&format!("{dnn}activation_fn"), format!("\"{activation}\""));
        }
        for (key, side) in [("dnn_optimizer", dnn), ("linear_optimizer", linear)] {
            let asked = match is_combined {
                true => run["optimizer"][key].as_str(),
                false => run["optimizer"]["optimizer"].as_str(),
            };
            let has_side = match key {
                "dnn_optimizer" => class.starts_with("DNN"),
                _ => !class.starts_with("DNN") || is_combined,
            };
            if has_side && let Some(optimizer) = self.optimizer(asked, key) {
                put(&format!("{side}optimizer"), optimizer);
            }
        }
        text
    }

    /// An optimizer as TensorFlow was given it, such as `Ftrl(0.1,l1=0.01)`, or none: then by version 1 it is
    /// the default here, too, and by version 2 the same with another epsilon or rate.
    fn optimizer(&self, asked: Option<&str>, key: &str) -> Option<String> {
        let class = self.run["estimator"].as_str().unwrap();
        let rate_by_name = match (class, key) {
            (class, _) if class.starts_with("Linear") => "0.2",
            (class, _) if class.starts_with("Baseline") => "0.3",
            _ => "0.001",
        };
        let Some(asked) = asked else {
            let is_dnn = key == "dnn_optimizer";
            return (is_dnn && !self.is_v1)
                .then(|| format!("{{ kind = \"adagrad\", learning_rate = {rate_by_name} }}"));
        };
        let (name, arguments) = asked
            .trim_end_matches(')')
            .split_once('(')
            .unwrap_or((asked, ""));
        let kind = name.to_lowercase();
        if arguments.is_empty() && self.is_v1 {
            return Some(format!("\"{kind}\""));
        }
        let (rate, others) = arguments.split_once(',').unwrap_or((arguments, ""));
        let rate = match rate {
            "" if kind == "sgd" => "0.01",
            "" => rate_by_name,
            rate => rate,
        };
        // TensorFlow 2's Estimators have the optimizers from before Keras moved this epsilon.
        let beside = match kind.as_str() {
            "rmsprop" => ", epsilon_placement = \"beside_root\"",
            _ => "",
        };
        let others = others.split(',').filter(|other| !other.is_empty());
        let others: String = others
            .map(|other| format!(", {}", other.replace('=', " = ")))
            .collect();
        Some(format!(
            "{{ kind = \"{kind}\", learning_rate = {rate}{others}{beside} }}"
        ))
    }
}

/// The rows again and again, `rows` in all.
fn repeated(table: &Table, rows: usize) -> Table {
    let cycle = |values: &[f32], width: usize| -> Vec<f32> {
        values.iter().copied().cycle().take(rows * width).collect()
    };
    Table {
        features: cycle(&table.features, table.shape.elements()),
        targets: cycle(&table.targets, table.target_kind.width()),
        weights: table.weights.as_ref().map(|weights| cycle(weights, 1)),
        rows,
        ..table.clone()
    }
}

/// The losses of all steps, and the metrics of the test rows after the last.
type Trained = (Vec<f64>, BTreeMap<String, f64>);

fn train(
    reducer: Reducer,
    config: &RunConfig,
    (train, test): (&Arc<Table>, &Arc<Table>),
    steps: u64,
    init: Option<&str>,
) -> Result<Trained, TrainError> {
    let mut backend = Cpu::new();
    let build = Build::new(&mut backend, config.train.micro_batch);
    let model = config.model.build(build, &train.description())?;
    let optimizers = config.optimizers();
    let rate = optimizers[0].learning_rate();
    let options = TrainerOptions {
        loss_reduction: config.loss_reduction(),
        optimizers: optimizers.clone(),
        ..TrainerOptions::new(config.train.micro_batch, 1, optimizers[0].clone())
    };
    let mut trainer = Trainer::new(backend, model, options, reducer)?;
    if let Some(init) = init {
        let start = started(&trainer.tensors(), init);
        let start = Checkpoint::newest(start.path())?.checkpoint.unwrap();
        trainer.restore_model(&start)?;
    }
    let mut shares =
        Prefetch::start(Arc::clone(train), config.sampler(train), (0, 1), 0..steps).unwrap();
    let mut losses = Vec::new();
    while let Some(share) = shares.next_share() {
        losses.push(trainer.step(&share, rate)?.loss);
        shares.recycle(share);
    }
    let judging = config.judging().unwrap();
    let mut evaluation = trainer.evaluation(Arc::clone(test), Some(judging.judge))?;
    let evaluated = trainer.evaluate(&mut evaluation)?;
    Ok((losses, evaluated.metrics(test, Some(judging))))
}

/// A checkpoint of `tensors` with the values that TensorFlow started from, where it has them.
fn started(tensors: &[(String, Vec<usize>, Vec<f32>)], init: &str) -> tempfile::TempDir {
    let variables = variables(init);
    let mut taken = 0;
    let named: Vec<_> = tensors
        .iter()
        .map(|(name, shape, values)| {
            let theirs = match name.strip_prefix("dense_features/") {
                Some(column) => format!("{column}/embedding_weights"),
                None => name.clone(),
            };
            let mut variables = variables.iter();
            let found = variables.find(|variable| variable.name.ends_with(&theirs));
            taken += usize::from(found.is_some());
            if let Some(variable) = found {
                assert_eq!(&variable.shape, shape, "{name}");
            }
            let values = found.map_or(values, |variable| &variable.values);
            Named {
                name,
                shape,
                values,
            }
        })
        .collect();
    assert!(taken >= 4, "kernels and biases come from TensorFlow");
    saved(&named)
}

/// Compares all runs on `data` whose name begins with one of `names`.
fn compare(data: &str, names: &[&str]) {
    let golden = golden();
    let runs = golden["runs"].as_object().unwrap().iter();
    let runs = runs.filter(|(name, run)| {
        run["data"] == data && names.iter().any(|prefix| name.starts_with(prefix))
    });
    let mut compared = 0;
    for (name, run) in runs {
        compared += 1;
        let recipe = Recipe {
            run,
            vocabularies: &golden["vocabularies"],
            data,
            is_v1: name.ends_with("/v1"),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        let text = recipe.file();
        std::fs::write(&path, &text).unwrap();
        let config = RunConfig::load(Path::new(&path), &[])
            .unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        let mut rows = config.load_data(Split::Train, None).unwrap();
        let mut test = config
            .load_data(Split::Test, Some(&rows.description()))
            .unwrap();
        if run["args"]["weight_column"] == "w" {
            for table in [&mut rows, &mut test] {
                table.weights = Some((0..table.rows).map(|row| 1.0 + (row % 3) as f32).collect());
            }
        }
        let steps = run["steps"].as_u64().unwrap();
        let batch = config.train.global_batch;
        let rows = Arc::new(repeated(&rows, steps as usize * batch));
        let test = Arc::new(test);
        let connects = connect_threads(1, &Options::default()).unwrap();
        let init = run["init"].as_str();
        let body = |reducer| train(reducer, &config, (&rows, &test), steps, init);
        let (losses, metrics) = run_threads(connects, body).unwrap().swap_remove(0);
        let expected = run["train_loss"].as_array().unwrap();
        for (step, expected) in expected.iter().enumerate() {
            let expected = expected.as_f64().unwrap();
            let difference = (losses[step] - expected).abs() / expected.abs().max(1e-3);
            assert!(
                difference < 1e-4,
                "{name}: the loss of step {step} is {}, not {expected}\n{text}",
                losses[step]
            );
        }
        let judged = run["evaluate"].as_object().unwrap();
        assert_eq!(
            metrics.len() + 1,
            judged.len(),
            "{name}: {metrics:?} {judged:?}"
        );
        for (metric, found) in &metrics {
            let expected = judged[metric].as_f64().unwrap();
            let bound = match metric.as_str() {
                "accuracy" => f64::max(0.005, 1.0 / test.rows as f64),
                // Version 1 has trapezoids, which are too kind to a model that always says the same.
                "auc_precision_recall" if recipe.is_v1 => continue,
                // Those of a network move by roundings alone; accuracy, loss and area bound how far.
                "precision" | "recall" | "prediction/mean" if !run["hidden"].is_null() => continue,
                _ => 0.01 * expected.abs(),
            };
            assert!(
                (found - expected).abs() <= bound + 1e-12,
                "{name}: {metric} is {found}, not {expected}"
            );
        }
    }
    assert!(compared > 0, "no run of {names:?} on {data}");
}

#[test]
fn iris() {
    compare("iris", &[""]);
}

#[test]
fn breast_cancer() {
    compare("breast_cancer", &[""]);
}

#[test]
fn autompg() {
    compare("autompg", &[""]);
}

#[test]
fn linear_and_baseline_census() {
    compare("census", &["linear", "baseline"]);
}

#[test]
fn dnn_census() {
    compare("census", &["dnn"]);
}

#[test]
fn combined_census() {
    compare("census", &["combined"]);
}
