//! What is said about keys, types and names that are wrong or missing: file, line, nearest.

use std::fs;
use std::path::Path;

use super::*;

#[test]
fn unknown_keys_are_named_with_line_and_nearest() {
    assert_eq!(
        error("epochs = 3", "epochs = 3\nmicro_bacth = 8"),
        "run.toml:17: unknown key 'micro_bacth' in [train]; did you mean 'micro_batch'?"
    );
    assert_eq!(
        error("[train]\n", "[trian]\n"),
        "run.toml:14: unknown key 'trian' in the run file; its sections are [data], [columns], \
         [model] or [estimator], and [train]; did you mean 'train'?"
    );
    assert_eq!(
        error("[model]\n", "[model]\ncolour = 3\n"),
        "run.toml:8: unknown key 'colour' in [model]; known are loss, layers, keras, custom"
    );
}

#[test]
fn wrong_types_are_named_with_line() {
    assert_eq!(
        error("epochs = 3", "epochs = \"many\""),
        "run.toml:16: train.epochs: expected integer, found string"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 2.5"),
        "run.toml:16: train.epochs: expected integer, found number"
    );
    assert_eq!(
        error("epochs = 3", "epochs = -3"),
        "run.toml:16: train.epochs: expected integer of at least 0, found -3"
    );
    assert_eq!(
        error("label =", "shape = [8, \"8\"]\nlabel ="),
        "run.toml:5: data.shape entry 2: expected integer, found string"
    );
    assert_eq!(
        error("[model]\n", "[model]\nlayers = 3\n")
            .lines()
            .next()
            .unwrap(),
        "run.toml:11: duplicate key"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nevaluate_every = \"often\""),
        "run.toml:17: train.evaluate_every: expected a number of steps (0: only at the end), \
         \"epoch\", or seconds as \"600s\", found 'often'"
    );
}

#[test]
fn unknown_names_are_named_with_line_and_nearest() {
    assert_eq!(
        error("epochs = 3", "epochs = 3\nreduce = \"exat\""),
        "run.toml:17: train.reduce: unknown name 'exat'; did you mean 'exact'?"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nprecision = \"f61\""),
        "run.toml:17: train.precision: unknown name 'f61'; did you mean 'f16'?"
    );
    assert_eq!(
        error("\"csv\"", "\"parket\""),
        "run.toml:2: data.format: unknown name 'parket'; did you mean 'parquet'?"
    );
}

#[test]
fn how_long_must_be_said_once() {
    assert_eq!(
        error("epochs = 3", "epochs = 3\nsteps = 30"),
        "run.toml:16: train.epochs: steps is given, too; keep one of them"
    );
    assert_eq!(
        error("epochs = 3", "max_steps = 30\nepochs = 3\nsteps = 30"),
        "run.toml:17: train.epochs: steps and max_steps are given, too; keep one of them"
    );
    assert_eq!(
        error("epochs = 3", ""),
        "run.toml:14: missing key 'steps' or 'max_steps' or 'epochs' in [train]: how long to train"
    );
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(
        error(&RUN[RUN.find("[train]").unwrap()..], ""),
        "run.toml: missing section [train]"
    );
    assert_eq!(
        error("global_batch = 64\n", ""),
        "run.toml:14: missing key 'global_batch' in [train]"
    );
    assert_eq!(
        error("label = \"digit\"\n", ""),
        "run.toml:1: missing key 'label' in [data]: the column to predict"
    );
    let layers = &RUN[RUN.find("[[model.layers]]").unwrap()..RUN.find("[train]").unwrap()];
    assert_eq!(
        error(layers, ""),
        "run.toml:7: missing key 'layers' in [model]: the layers, in forward order (or 'keras', a file \
         with Keras's description of them, or 'custom', the name of a model written in Rust)"
    );
    assert_eq!(
        error("format = \"csv\"\n", ""),
        "run.toml:1: missing key 'format' in [data]: one of csv, jsonl, parquet, tfrecord, idx, numpy, images, \
         program"
    );
    assert_eq!(
        error("loss = { kind = \"softmax_cross_entropy\" }\n", ""),
        "run.toml:7: missing key 'loss' in [model]: one of softmax_cross_entropy, sigmoid_cross_entropy, \
         squared_error, absolute_error, huber"
    );
    assert_eq!(
        error("kind = \"adam\", ", ""),
        "run.toml:17: missing key 'kind' in [train.optimizer]: one of sgd, adam, adamw, adagrad, rmsprop, ftrl, \
         lamb, lars, lion"
    );
    let model = &RUN[RUN.find("[model]").unwrap()..RUN.find("[train]").unwrap()];
    let optimizer = &RUN[RUN.find("optimizer").unwrap()..];
    let nothing = RUN.replace(model, "").replace(optimizer, "");
    assert_eq!(
        load(&nothing, &[]).unwrap_err(),
        "run.toml: missing section [model] or [estimator]: what learns, such as loss = \
         \"softmax_cross_entropy\" and layers = [{ kind = \"dense\", units = 10 }] in [model]"
    );
    let missing = RunConfig::load(Path::new("no/such/run.toml"), &[]).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "cannot read run file no/such/run.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn broken_toml_is_named_with_line() {
    let message = error("epochs = 3", "epochs = ");
    assert!(message.starts_with("run.toml:16: "), "{message}");
}

#[test]
fn files_have_names_and_classes_have_one_each() {
    let empty = "data.test: expected the path of a file, found ''; leave the key out where there is no file";
    assert_eq!(
        error("test = \"test.csv\"", "test = \"\""),
        format!("run.toml:4: {empty}")
    );
    assert_eq!(
        override_error("data.test=\"\""),
        format!("--set data.test=\"\": {empty}")
    );
    let classes = "label = \"digit\"\nclasses = [\"one\", \"two\", \"one\"]";
    assert_eq!(
        error("label = \"digit\"", classes),
        "run.toml:6: data.classes: class 'one' is named twice"
    );
    assert_eq!(
        error("label = \"digit\"", "label = \"digit\"\nclasses = []"),
        "run.toml:6: data.classes: names no class; leave it out, or name all of them"
    );
}

#[test]
fn what_contradicts_the_label_is_named() {
    assert_eq!(
        error("label =", "weight = \"digit\"\nlabel ="),
        "run.toml:6: data.label: 'digit' is the weight"
    );
    let numbers = RUN.replace("softmax_cross_entropy", "huber");
    let classes = load(&numbers, &["data.classes=['a', 'b']"]).unwrap_err();
    assert!(
        classes.ends_with(
            "data.classes: huber is for numbers, which have no classes; leave classes out, or take a \
             classifier: a cross entropy as loss, or an estimator that is one"
        ),
        "{classes}"
    );
}

#[test]
fn channels_are_normalised_alike_by_one_number() {
    let run = |mean: &str| load(RUN, &[mean, "data.std=2"]).map(|run| run.data.normalize);
    let normalize = run("data.mean=0.286").unwrap().unwrap();
    assert_eq!((normalize.mean, normalize.std), (vec![0.286], vec![2.0]));
    assert_eq!(
        run("data.mean=grey").unwrap_err(),
        "--set data.mean=grey: data.mean: expected a number for all channels, or an array with a number for each"
    );
}

#[test]
fn overrides_are_named_by_their_errors() {
    assert_eq!(
        override_error("train.ranks=0"),
        "--set train.ranks=0: train.ranks: must be at least 1"
    );
    assert_eq!(
        override_error("train.sed=1"),
        "--set train.sed=1: unknown key 'sed' in [train]; did you mean 'seed'?"
    );
    assert_eq!(
        override_error("train.reduce=exakt"),
        "--set train.reduce=exakt: train.reduce: unknown name 'exakt'; did you mean 'exact'?"
    );
    assert_eq!(
        override_error("train.steps"),
        "--set train.steps: expected section.key=value"
    );
    assert_eq!(
        override_error("train.seed.x=1"),
        "--set train.seed.x=1: train.seed: expected integer, found table"
    );
    assert_eq!(
        override_error("train.epochs.x=1"),
        "--set train.epochs.x=1: train.epochs is a value, not a table"
    );
    assert_eq!(
        override_error("model.layers.4.units=1"),
        "--set model.layers.4.units=1: model.layers has entries 0 to 0, not '4'"
    );
    let flag = [Override::flag("--ranks 0", "train.ranks=0")];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    fs::write(&path, RUN).unwrap();
    assert_eq!(
        RunConfig::load(&path, &flag).unwrap_err().to_string(),
        "--ranks 0: train.ranks: must be at least 1"
    );
}

#[test]
fn mistakes_in_layers_are_found_however_deep() {
    let plain = RUN.replacen("[[model.layers]]\nkind = \"dense\"", BLOCK, 1);
    let run = load(&plain, &[]).unwrap();
    let Architecture::Layers(layers) = &run.model.architecture else {
        panic!("{:?}", run.model);
    };
    assert_eq!(layers.specs().len(), 2);
    assert_eq!(load(&run.to_toml(), &[]).unwrap(), run);
    assert_eq!(
        error("units = 10", "units = 10\nactivaton = \"relu\""),
        "run.toml:13: unknown key 'activaton' in model.layers entry 1 (dense); did you mean \
         'activation'?"
    );
    assert_eq!(
        error("units = 10", "units = 10\nname = \"ten\"\nuse_bias = 3"),
        "run.toml:14: model.layers entry 1.use_bias: expected boolean, found integer"
    );
    assert_eq!(
        error("\"dense\"", "\"densed\""),
        "run.toml:11: unknown layer kind 'densed'; did you mean 'dense'?"
    );
    for function in ["relu", "swish"] {
        assert_eq!(
            error("\"dense\"\nunits = 10", &format!("\"{function}\"")),
            format!(
                "run.toml:11: unknown layer kind '{function}'; a function is a layer as {{ kind = \
                 \"activation\", function = \"{function}\" }}"
            )
        );
    }
    assert_eq!(
        error("units = 10\n", ""),
        "run.toml:10: missing key 'units' in model.layers entry 1 (dense)"
    );
    assert_eq!(
        error("kind = \"dense\"\n", ""),
        "run.toml:10: missing key 'kind' in model.layers entry 1: one of dense, activation, leaky_relu, elu, \
         softmax, conv2d, max_pooling2d, average_pooling2d, global_max_pooling2d, global_average_pooling2d, \
         flatten, dropout, batch_normalization, layer_normalization, embedding, residual"
    );
    assert_eq!(
        block_error("units = 8", "unist = 8"),
        "run.toml:15: unknown key 'unist' in model.layers entry 1.layers entry 2 (dense); did you \
         mean 'units'?"
    );
    assert_eq!(
        block_error("units = 8", "units = \"8\""),
        "run.toml:15: model.layers entry 1.layers entry 2.units: expected integer, found string"
    );
    assert_eq!(
        block_error(", units = 8", ""),
        "run.toml:15: missing key 'units' in model.layers entry 1.layers entry 2 (dense)"
    );
    assert_eq!(
        block_error("kind = \"flatten\"", "kind = \"flaten\""),
        "run.toml:14: unknown layer kind 'flaten'; did you mean 'flatten'?"
    );
}

#[test]
fn mistakes_in_losses_and_optimizers_are_found() {
    assert_eq!(
        error("learning_rate", "learning_rat"),
        "run.toml:17: unknown key 'learning_rat' in [train.optimizer] (adam); did you mean \
         'learning_rate'?"
    );
    assert_eq!(
        error("0.001", "\"fast\""),
        "run.toml:17: train.optimizer.learning_rate: expected number, found string"
    );
    assert_eq!(
        error("\"adam\"", "\"adem\""),
        "run.toml:17: unknown optimizer kind 'adem'; did you mean 'adam'?"
    );
    assert_eq!(
        error(
            "{ kind = \"softmax_cross_entropy\" }",
            "\"softmax_cross_entrpy\""
        ),
        "run.toml:8: model.loss: unknown name 'softmax_cross_entrpy'; did you mean \
         'softmax_cross_entropy'?"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nclip = { global_norm = 0 }"),
        "run.toml:17: train.clip: expected a number above 0"
    );
    assert_eq!(
        error(
            "epochs = 3",
            "epochs = 3\nschedule = { kind = \"cosine\", decay_steps = 0 }"
        ),
        "run.toml:17: train.schedule: schedule cosine: decay_steps is 0; give the number of steps \
         the fall takes"
    );
}

#[test]
fn a_bound_on_gradients_is_one_of_those_there_are() {
    let error = |clip: &str| load(RUN, &[&format!("train.clip={clip}")]).unwrap_err();
    let one = "expected a table with one key of value, global_norm, found a table with ";
    for (clip, found) in [
        ("{ value = 1, foo = 2 }", "2 keys"),
        ("{ value = 1, global_norm = 1 }", "2 keys"),
        ("{}", "0 keys"),
    ] {
        let error = error(clip);
        assert!(error.ends_with(&format!("{one}{found}")), "{error}");
    }
    let expected = "train.clip: expected one of value, global_norm, found integer";
    assert!(error("1").ends_with(expected), "{}", error("1"));
}

#[test]
fn the_best_checkpoint_is_judged_by_what_is_measured() {
    let without = RUN.replace("test = \"test.csv\"\n", "");
    assert_ne!(without, RUN);
    for (settings, key) in [
        (&["train.best=loss"][..], "best"),
        (&["train.early_stopping.kind=no_decrease"], "early_stopping"),
        (&["train.plateau.factor=0.5"], "plateau"),
        (&["train.export.when=['latest']"], "export"),
    ] {
        let error = load(&without, settings).unwrap_err();
        let expected =
            format!("train.{key}: it goes by the test rows; give them by test in [data]");
        assert!(error.contains(&expected), "{error}");
    }
    let regression = RUN.replace("softmax_cross_entropy", "squared_error");
    let error = load(&regression, &["train.best=accuracy"]).unwrap_err();
    assert!(
        error.contains("train.best: numbers have no accuracy"),
        "{error}"
    );
}

#[test]
fn what_steers_a_run_is_checked_before_it() {
    for (settings, expected) in [
        (
            &["train.best=kappa"][..],
            "train.best: say which end of 'kappa' is good: { name = \"kappa\", goal = \
             \"minimize\" }, or \"maximize\"",
        ),
        (
            &["train.early_stopping.kind=no_decreas"],
            "unknown early_stopping kind 'no_decreas'; did you mean 'no_decrease'?",
        ),
        (
            &["train.early_stopping={ kind = 'lower' }"],
            "missing key 'threshold' in [train.early_stopping] (lower)",
        ),
        (
            &["train.early_stopping={ kind = 'no_increase', patience = 'long' }"],
            "train.early_stopping.patience: expected a number of evaluations, or of steps as \"100 \
             steps\", found 'long'",
        ),
        (
            &["train.plateau.factor=1.5"],
            "train.plateau.factor: expected a number from 0 to below 1, found 1.5",
        ),
        (
            &["train.plateau.patient=1"],
            "unknown key 'patient' in [train.plateau]; did you mean 'patience'?",
        ),
        (
            &["train.export.when=['best']"],
            "train.export.when: \"best\" by what? set best in [train]",
        ),
        (
            &["train.export.formats=[]"],
            "train.export: when and formats each need an entry",
        ),
        (
            &["train.export.formats=['onxx']"],
            "unknown name 'onxx'; did you mean 'onnx'?",
        ),
        (
            &["train.warm_start.tensors=a"],
            "missing key 'from' in [train.warm_start]",
        ),
        (
            &["train.warm_start={ from = 'a', tensors = '[a' }"],
            "train.warm_start.tensors: '[a' is no pattern: ",
        ),
        (
            &["train.keep=some"],
            "train.keep: expected how many, or \"all\", found 'some'",
        ),
        (
            &["train.evaluate_throttle=30"],
            "train.evaluate_throttle: expected seconds as \"600s\", found 30",
        ),
    ] {
        let error = load(RUN, settings).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
