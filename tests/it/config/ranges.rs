//! Numbers that a setting may not have.

use super::*;

#[test]
fn impossible_numbers_are_refused() {
    assert_eq!(
        error("global_batch = 64", "global_batch = 0"),
        "run.toml:15: train.global_batch: must be at least 1"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nmicro_batch = 65"),
        "run.toml:17: train.micro_batch: 65 is more than global_batch = 64; a global batch is cut \
         into micro-batches"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nranks = 0"),
        "run.toml:17: train.ranks: must be at least 1"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nzero = 3"),
        "run.toml:17: train.zero: expected 0 (off) or 1 (ZeRO-1), found 3"
    );
    assert_eq!(
        error("epochs = 3", "epochs = 3\nbucket_mib = -1"),
        "run.toml:17: train.bucket_mib: expected a number above 0"
    );
    assert_eq!(
        error("label =", "scale = 0\nlabel ="),
        "run.toml:5: data.scale: expected a finite number other than 0"
    );
    assert_eq!(
        error("[data]", "name = \"../elsewhere\"\n[data]"),
        "run.toml:1: name: expected the name of a folder within runs/"
    );
}

#[test]
fn sizes_that_no_memory_holds_are_refused() {
    let huge = i64::MAX;
    let most = format!("expected at most 16777216, found {huge}");
    for key in ["units", "filters", "input_dim", "output_dim"] {
        let other = match key {
            "units" => "kind = \"dense\"",
            "filters" => "kind = \"conv2d\"\nkernel_size = 3",
            "input_dim" => "kind = \"embedding\"\noutput_dim = 3",
            _ => "kind = \"embedding\"\ninput_dim = 3",
        };
        let line = 11 + other.lines().count();
        assert_eq!(
            error(
                "kind = \"dense\"\nunits = 10",
                &format!("{other}\n{key} = {huge}")
            ),
            format!("run.toml:{line}: model.layers entry 1.{key}: {most}")
        );
    }
    assert_eq!(
        error(
            "\"dense\"\nunits = 10",
            &format!("\"conv2d\"\nfilters = 1\nkernel_size = [3, {huge}]")
        ),
        format!("run.toml:13: model.layers entry 1.kernel_size entry 2: {most}")
    );
    assert_eq!(
        error("label =", &format!("shape = [8, {huge}]\nlabel =")),
        format!("run.toml:5: data.shape entry 2: {most}")
    );
    assert_eq!(
        error("global_batch = 64", &format!("global_batch = {huge}")),
        format!(
            "run.toml:15: train.global_batch: expected at most 4294967295 rows, found {huge}; a step of all rows \
             has global_batch = their number"
        )
    );
    assert_eq!(
        error("epochs = 3", &format!("epochs = 3\nranks = {huge}")),
        format!("run.toml:17: train.ranks: expected at most 65536, found {huge}")
    );
}

/// `settings` of an optimizer, and what is wrong with them.
fn optimizer_error(settings: &str) -> String {
    let optimizer = format!("optimizer = {{ {settings} }}");
    error(
        "optimizer = { kind = \"adam\", learning_rate = 0.001 }",
        &optimizer,
    )
}

#[test]
fn settings_of_optimizers_have_ranges() {
    for (settings, problem) in [
        (
            "kind = \"adam\", beta_1 = 1.0",
            "beta_1: expected a number from 0 to below 1, found 1",
        ),
        (
            "kind = \"adamw\", beta_2 = -0.5",
            "beta_2: expected a number from 0 to below 1, found -0.5",
        ),
        (
            "kind = \"adam\", epsilon = 0",
            "epsilon: expected a finite number above 0, found 0",
        ),
        (
            "kind = \"adam\", weight_decay = -1e-4",
            "weight_decay: expected a finite number of at least 0, found -0.0001",
        ),
        (
            "kind = \"adam\", learning_rate = inf",
            "learning_rate: expected a finite number of at least 0, found inf",
        ),
        (
            "kind = \"adam\", learning_rate = nan",
            "learning_rate: expected a finite number of at least 0, found NaN",
        ),
        (
            "kind = \"sgd\", momentum = 1",
            "momentum: expected a number from 0 to below 1, found 1",
        ),
        (
            "kind = \"adagrad\", initial_accumulator = -1",
            "initial_accumulator: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"rmsprop\", rho = 1.5",
            "rho: expected a number from 0 to below 1, found 1.5",
        ),
        (
            "kind = \"rmsprop\", initial_mean_square = -1",
            "initial_mean_square: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"ftrl\", l1 = -1",
            "l1: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"ftrl\", l2 = -1",
            "l2: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"ftrl\", l2_shrinkage = -1",
            "l2_shrinkage: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"ftrl\", beta = -1",
            "beta: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"ftrl\", learning_rate_power = 0.5",
            "learning_rate_power: expected a finite number of at most 0, found 0.5",
        ),
        (
            "kind = \"lamb\", epsilon = -1",
            "epsilon: expected a finite number above 0, found -1",
        ),
        (
            "kind = \"lars\", trust = 0",
            "trust: expected a finite number above 0, found 0",
        ),
        (
            "kind = \"lars\", epsilon = -1",
            "epsilon: expected a finite number of at least 0, found -1",
        ),
        (
            "kind = \"lion\", beta_2 = 1",
            "beta_2: expected a number from 0 to below 1, found 1",
        ),
    ] {
        assert_eq!(
            optimizer_error(settings),
            format!("run.toml:17: train.optimizer.{problem}")
        );
    }
    assert_eq!(
        override_error("train.optimizer.beta_1=1"),
        "--set train.optimizer.beta_1=1: train.optimizer.beta_1: expected a number from 0 to below \
         1, found 1"
    );
}

#[test]
fn settings_of_losses_and_layers_have_ranges() {
    for kind in ["softmax_cross_entropy", "sigmoid_cross_entropy"] {
        let loss = format!("kind = \"{kind}\", label_smoothing = 1.0");
        assert_eq!(
            error("kind = \"softmax_cross_entropy\"", &loss),
            "run.toml:8: model.loss.label_smoothing: expected a number from 0 to below 1, found 1"
        );
    }
    assert_eq!(
        error(
            "kind = \"softmax_cross_entropy\"",
            "kind = \"huber\", delta = 0"
        ),
        "run.toml:8: model.loss.delta: expected a finite number above 0, found 0"
    );
    for (layer, problem) in [
        (
            "dropout\"\nrate = 1.2",
            "rate: expected a number from 0 to below 1, found 1.2",
        ),
        (
            "dropout\"\nrate = 0.9999999999",
            "rate: expected a number from 0 to below 1, found 1",
        ),
        (
            "batch_normalization\"\nmomentum = 1.5",
            "momentum: expected a number from 0 to 1, found 1.5",
        ),
        (
            "batch_normalization\"\nepsilon = 0.0",
            "epsilon: expected a finite number above 0, found 0",
        ),
        (
            "layer_normalization\"\nepsilon = -1",
            "epsilon: expected a finite number above 0, found -1",
        ),
        (
            "leaky_relu\"\nslope = nan",
            "slope: expected a finite number, found NaN",
        ),
        (
            "elu\"\nalpha = -1",
            "alpha: expected a finite number of at least 0, found -1",
        ),
    ] {
        assert_eq!(
            error("dense\"\nunits = 10", layer),
            format!("run.toml:12: model.layers entry 1.{problem}")
        );
    }
    for (initializer, problem) in [
        (
            "constant\", value = -inf",
            "value: expected a finite number, found -inf",
        ),
        (
            "random_uniform\", max = inf",
            "max: expected a finite number, found inf",
        ),
        (
            "random_normal\", stddev = -0.1",
            "stddev: expected a finite number of at least 0, found -0.1",
        ),
    ] {
        let dense = format!("units = 10\nkernel_initializer = {{ kind = \"{initializer} }}");
        assert_eq!(
            error("units = 10", &dense),
            format!("run.toml:13: model.layers entry 1.kernel_initializer.{problem}")
        );
    }
    assert_eq!(
        block_error("kind = \"flatten\"", "kind = \"dropout\", rate = -1"),
        "run.toml:14: model.layers entry 1.layers entry 1.rate: expected a number from 0 to below \
         1, found -1"
    );
}
