//! Estimators with columns of every kind: several values in one, some missing, weights.

use ringstep::columns::{Columns, Encoded, Encoding, Values};
use ringstep::config::CustomModels;
use ringstep::data::{Description, Targets};
use ringstep::random::Stream;
use safetensors::SafeTensors;

use super::{Saved, classes};

const COLUMNS: &str = "
[columns]
x = 'numeric'
words = { kind = 'identity', buckets = 5, max_values = 3 }
city = { kind = 'hash', buckets = 7 }
weighted = { kind = 'weighted', source = 'words', weights = 'counts' }
";

/// Rows of twelve numbers: two of `x`, then the columns' ids, the last followed by weights.
fn described(targets: Targets) -> Description {
    let columns = [
        ("x", 0..2, Values::Numbers),
        ("words", 2..5, Values::Ids { count: 5 }),
        ("city", 5..6, Values::Ids { count: 7 }),
        ("weighted", 6..12, Values::Weighted { count: 5 }),
    ];
    let columns = columns.map(|(name, slots, values)| Encoded {
        name: name.to_owned(),
        slots,
        values,
    });
    Description {
        shape: [12].into(),
        targets,
        encoding: Some(Encoding {
            columns: columns.to_vec(),
            fitted: Columns::default(),
        }),
        ..Description::default()
    }
}

/// Rows in which every second id is missing here and there, and all of them once in a while.
fn features(len: usize) -> Vec<f32> {
    let mut stream = Stream::new(3, "features of columns");
    let mut features = Vec::with_capacity(len);
    for row in 0..len / 12 {
        features.extend((0..2).map(|_| stream.normal() as f32));
        for (count, ids) in [(5, 3), (7, 1), (5, 3)] {
            for id in 0..ids {
                let is_missing = row % 4 == 3 || (id == 1 && row % 2 == 1);
                features.push(match is_missing {
                    true => -1.0,
                    false => stream.below(count) as f32,
                });
            }
        }
        features.extend((0..3).map(|_| 0.5 + stream.normal().abs() as f32));
    }
    features
}

fn saved(estimator: &str, targets: Targets) -> Saved {
    let text = format!("{COLUMNS}[estimator]\n{estimator}\n[train]\n");
    Saved::of(&text, described(targets), &CustomModels::new())
}

fn check(what: &str, estimator: &str, targets: Targets) {
    saved(estimator, targets).check(what, features);
}

#[test]
fn both_sides_with_columns_of_every_kind() {
    for combiner in ["sum", "mean", "sqrtn"] {
        let estimator = format!(
            "kind = 'dnn_linear_combined_classifier'\nn_classes = 3\n\
             linear_feature_columns = ['x', 'words', 'city', 'weighted']\n\
             linear_sparse_combiner = '{combiner}'\n\
             dnn_feature_columns = ['x', {{ kind = 'indicator', column = 'words' }},\n\
               {{ kind = 'indicator', column = 'weighted' }},\n\
               {{ kind = 'embedding', column = 'city', dimension = 2 }},\n\
               {{ kind = 'embedding', column = 'weighted', dimension = 3, combiner = '{combiner}' }},\n\
               {{ kind = 'shared_embedding', columns = ['words', 'weighted'], dimension = 2, combiner = '{combiner}' }}]\n\
             dnn_hidden_units = [6, 4]\ndnn_dropout = 0.5\nbatch_norm = true\n"
        );
        check(combiner, &estimator, classes(3));
    }
}

#[test]
fn all_eight() {
    let one = |kind: &str, arguments: &str, targets: Targets| {
        check(kind, &format!("kind = '{kind}'\n{arguments}"), targets);
    };
    let wide = "feature_columns = ['x', 'words', 'city']\n";
    one("linear_classifier", wide, classes(2));
    let three = "label_dimension = 3\n";
    one(
        "linear_regressor",
        &format!("{wide}{three}"),
        Targets::Numbers(3),
    );
    let deep =
        "feature_columns = ['x', { kind = 'indicator', column = 'city' }]\nhidden_units = [3]\n";
    one(
        "dnn_classifier",
        &format!("{deep}n_classes = 3\n"),
        classes(3),
    );
    one("dnn_regressor", deep, Targets::Numbers(1));
    let both = "linear_feature_columns = ['city', 'weighted']\ndnn_hidden_units = [4]\n\
                dnn_feature_columns = ['x', { kind = 'embedding', column = 'words', dimension = 2 }]\n";
    one("dnn_linear_combined_classifier", both, classes(2));
    one("dnn_linear_combined_regressor", both, Targets::Numbers(1));
    one("baseline_classifier", "n_classes = 4\n", classes(4));
    one("baseline_regressor", three, Targets::Numbers(3));
}

#[test]
fn weights_have_the_names_that_are_documented() {
    let estimator = "kind = 'dnn_linear_combined_regressor'\nbatch_norm = true\n\
                     linear_feature_columns = ['x', 'city']\ndnn_hidden_units = [4]\n\
                     dnn_feature_columns = ['x', { kind = 'embedding', column = 'city', dimension = 2 },\n\
                       { kind = 'shared_embedding', columns = ['words', 'weighted'], dimension = 3 }]\n";
    let baseline = "kind = 'baseline_regressor'\n";
    let names = |estimator: &str| {
        let saved = saved(estimator, Targets::Numbers(1));
        let contents = saved.checkpoint().weights().unwrap();
        let tensors = SafeTensors::deserialize(&contents).unwrap();
        let mut names: Vec<_> = tensors
            .iter()
            .map(|(name, tensor)| format!("{name} {:?}", tensor.shape()))
            .collect();
        names.sort();
        names
    };
    let expected = [
        "batchnorm_0/beta [4]",
        "batchnorm_0/gamma [4]",
        "batchnorm_0/moving_mean [4]",
        "batchnorm_0/moving_variance [4]",
        "dense_features/city_embedding [7, 2]",
        "dense_features/words_weighted_shared_embedding [5, 3]",
        "hiddenlayer_0/bias [4]",
        "hiddenlayer_0/kernel [10, 4]",
        "linear/bias [1]",
        "linear/city/weights [7, 1]",
        "linear/numbers [2, 1]",
        "logits/bias [1]",
        "logits/kernel [4, 1]",
    ];
    assert_eq!(names(estimator), expected);
    assert_eq!(names(baseline), ["baseline/bias [1]"]);
}
