//! Names, sizes and summaries of what is built.

use super::*;
use crate::backend::cpu::Cpu;
use crate::layers::{Conv2D, Dense, LayerSpec, Stack};

#[test]
fn the_summary_counts_what_each_layer_and_those_in_it_hold() {
    let layers: Vec<LayerSpec> = serde_json::from_str(
        r#"[
            {"kind": "dense", "units": 6, "name": "first"},
            {"kind": "residual", "layers": [
                {"kind": "batch_normalization"},
                {"kind": "dense", "units": 6}
            ]},
            {"kind": "dense", "units": 2}
        ]"#,
    )
    .unwrap();
    let mut backend = Cpu::new();
    let mut build = Build::new(&mut backend, 1);
    Stack::new(&mut build, &layers, &Shape::from([5])).unwrap();
    let show = |layer: &LayerSummary| {
        let LayerSummary {
            name,
            kind,
            depth,
            output,
            parameters,
            state,
        } = layer;
        format!("{depth} {name} {kind} {output} {parameters} {state}")
    };
    let shown: Vec<_> = build.summary().iter().map(show).collect();
    let expected = [
        "0 first dense [6] 36 0",
        "0 residual residual [6] 54 12",
        "1 batch_normalization batch_normalization [6] 12 12",
        "1 dense dense [6] 42 0",
        "0 dense_1 dense [2] 14 0",
    ];
    assert_eq!(shown, expected);
}

/// The names of dense layers with the names given, or why they cannot be built.
fn named(names: &[Option<&str>]) -> Result<Vec<String>, String> {
    let layer = |name: &Option<&str>| {
        let name = name.map(str::to_owned);
        LayerSpec::from(Dense {
            name,
            ..Dense::new(1)
        })
    };
    let layers: Vec<_> = names.iter().map(layer).collect();
    let mut backend = Cpu::new();
    let mut build = Build::new(&mut backend, 1);
    let built = Stack::new(&mut build, &layers, &Shape::from([1]));
    built.map_err(|error| error.to_string())?;
    let summary = build.summary().iter();
    Ok(summary.map(|layer| layer.name.clone()).collect())
}

#[test]
fn generated_names_go_around_chosen_ones() {
    let names = named(&[Some("dense_1"), None, None, Some("last"), None]);
    let expected = ["dense_1", "dense", "dense_2", "last", "dense_3"];
    assert_eq!(names.unwrap(), expected);
}

#[test]
fn a_chosen_name_that_is_taken_is_refused() {
    assert_eq!(
        named(&[None, None, Some("dense_1")]).unwrap_err(),
        "two layers are called 'dense_1': this dense, and before it a dense that got it from \
         its kind; give one of them another name"
    );
    assert_eq!(
        named(&[Some("a"), None, Some("a")]).unwrap_err(),
        "two layers are called 'a': this dense, and before it a dense of that name; give one \
         of them another name"
    );
}

#[test]
fn what_no_memory_holds_is_refused_by_name_before_it_is_asked_for() {
    let most = crate::range::MOST;
    for (layer, input, expected) in [
        (
            format!(r#"{{"kind": "dense", "units": {most}}}"#),
            Shape::from([most]),
            "layer 'dense': with it the model has 281474993487872 parameters, which take 1073741888 MiB",
        ),
        (
            format!(
                r#"{{"kind": "conv2d", "filters": {most}, "kernel_size": {most}, "padding": "same"}}"#
            ),
            Shape::from([2, 2, most]),
            "layer 'conv2d': with it the model has 18446744073709551615 parameters",
        ),
        (
            format!(r#"{{"kind": "embedding", "input_dim": {most}, "output_dim": {most}}}"#),
            Shape::from([1]),
            "layer 'embedding': with it the model has 281474976710656 parameters",
        ),
        (
            r#"{"kind": "dense", "units": 1000000}"#.to_owned(),
            Shape::from([1]),
            "layer 'dense': its output for the 16777216 rows of a micro-batch, [1000000] each, takes 64000000 MiB",
        ),
    ] {
        let layer: LayerSpec = serde_json::from_str(&layer).unwrap();
        let mut backend = Cpu::new();
        let mut build = Build::new(&mut backend, most);
        let error = Stack::new(&mut build, &[layer], &input)
            .map(drop)
            .unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_size_that_a_program_gives_has_the_range_of_a_run_file() {
    for (layer, expected) in [
        (
            Conv2D::new(usize::MAX, 1),
            "layer 'conv2d': filters: expected at most 16777216, found 18446744073709551615",
        ),
        (
            Conv2D::new(1, 1).strides(usize::MAX),
            "layer 'conv2d': strides: expected at most 16777216, found 18446744073709551615",
        ),
    ] {
        let mut backend = Cpu::new();
        let mut build = Build::new(&mut backend, 1);
        let built = Stack::new(&mut build, &[layer.into()], &Shape::from([2, 2, 1]));
        assert_eq!(built.map(drop).unwrap_err().to_string(), expected);
    }
}
