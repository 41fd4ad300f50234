//! What `ringstep bench` prints.

use std::path::Path;

use serde_json::Value;

use crate::commands::{failure, output};

fn measured(arguments: &[&str]) -> Value {
    serde_json::from_str(&output(Path::new("."), arguments)).unwrap()
}

#[test]
fn every_collective_of_threads_is_measured_at_every_size() {
    let sizes = [
        "bench",
        "all-reduce",
        "--ranks",
        "3",
        "--sizes",
        "4,1KB,3KiB",
        "--repeats",
        "2",
    ];
    let chosen = ["--collective", "direct,ring,hierarchical", "--json"];
    let rows = measured(&[&sizes[..], &chosen].concat());
    let rows = rows.as_array().unwrap();
    let seen = |row: &Value| format!("{} {}", row["algorithm"].as_str().unwrap(), row["bytes"]);
    let seen: Vec<_> = rows.iter().map(seen).collect();
    let of = |algorithm: &str| [4, 1000, 3072].map(|bytes| format!("{algorithm} {bytes}"));
    assert_eq!(
        seen,
        [of("direct"), of("ring"), of("hierarchical")].concat()
    );
    for row in rows {
        let value = |name: &str| row[name].as_f64().unwrap();
        let bandwidth = value("bytes") / value("seconds") / 1e9;
        assert!((value("algorithm_bandwidth") / bandwidth - 1.0).abs() < 1e-9);
        // nccl-tests: 2 (n - 1) / n.
        assert!((value("bus_bandwidth") / bandwidth - 4.0 / 3.0).abs() < 1e-9);
    }
}

#[test]
fn products_are_measured_against_the_peak() {
    let arguments = [
        "bench",
        "matmul",
        "--device",
        "cpu",
        "--divide",
        "16",
        "--seconds",
        "0.001",
    ];
    let report = measured(&[&arguments[..], &["--json"]].concat());
    let peak = report["peak"].as_f64().unwrap();
    assert!(peak > 0.0);
    let products = report["products"].as_array().unwrap();
    let first = &products[0];
    assert_eq!([&first["m"], &first["n"], &first["k"]], [4, 32, 49]);
    for product in products {
        let value = |name: &str| product[name].as_f64().unwrap();
        let operations = 2.0 * value("m") * value("n") * value("k");
        assert!((value("gigaflops") * value("seconds") * 1e9 / operations - 1.0).abs() < 1e-9);
        assert!((value("share") * peak / value("gigaflops") - 1.0).abs() < 1e-9);
    }
    let table = output(Path::new("."), &arguments);
    assert!(table.contains("gpt up inputs"), "{table}");
    // Of single numbers all that there is may be the bias.
    let single = ["--divide", "100000", "--seconds", "0"];
    output(Path::new("."), &[&arguments[..4], &single].concat());
}

#[test]
fn sums_between_gpus_need_gpus() {
    if ringstep::backend::cuda::Cuda::count().is_ok_and(|count| count > 0) {
        return;
    }
    let said = failure(
        Path::new("."),
        &["bench", "all-reduce", "--collective", "nccl"],
    );
    assert!(
        said.contains("between GPUs, and there is none: see `ringstep doctor`"),
        "{said}"
    );
}

#[test]
fn steps_on_tables_of_any_size_sum_as_many_bytes() {
    let sizes = ["--ranks", "2", "--rows", "10000,1000000"];
    let tables = ["bench", "tables", "--repeats", "1", "--json"];
    let rows = measured(&[&tables[..], &sizes].concat());
    let value = |index: usize, name: &str| rows[index][name].as_f64().unwrap();
    assert_eq!(value(0, "bytes"), value(1, "bytes"));
    // Far below what a table of a million rows would be.
    assert!(value(1, "bytes") < 200e3);
    assert_eq!((value(0, "of_first"), value(1, "rows")), (1.0, 1e6));
    assert!(value(1, "milliseconds") > 0.0);
}
