//! `docs/run-file.md` lists every kind with its settings as the registries have them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use ringstep::columns::ColumnSpec;
use ringstep::estimators::EstimatorSpec;
use ringstep::layers::LayerSpec;
use ringstep::models::{KerasModel, LossSpec};
use ringstep::optim::{OptimizerSpec, ScheduleSpec};
use ringstep::params::Initializer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A table of the registry of `T`: names, summaries, settings with their defaults.
fn table<T: Serialize + DeserializeOwned>(kinds: &[ringstep::named::Kind]) -> String {
    let mut table = String::from("| kind | what it is | settings |\n|---|---|---|\n");
    for kind in kinds {
        let settings = settings::<T>(kind.name).join(", ");
        writeln!(table, "| `{}` | {} | {settings} |", kind.name, kind.summary).unwrap();
    }
    table
}

/// `name`, required, or `name = default`, in the order in which the kind writes them.
fn settings<T: Serialize + DeserializeOwned>(kind: &str) -> Vec<String> {
    let mut given = Map::from_iter([("kind".to_owned(), json!(kind))]);
    let mut required: Vec<String> = Vec::new();
    // Values of the types that settings without a default have.
    let examples = [json!(1), json!(0.5), json!([1]), json!([]), json!("relu")];
    let spec = loop {
        let error = match T::deserialize(Value::Object(given.clone())) {
            Ok(spec) => break spec,
            Err(error) => error.to_string(),
        };
        if let Some(missing) = missing_field(&error) {
            assert!(!required.contains(&missing), "{kind}: {error}");
            given.insert(missing.clone(), examples[0].clone());
            required.push(missing);
        } else {
            // The setting asked for last is of another type.
            let last = required.last().expect("a kind reads its own defaults");
            let tried = examples.iter().position(|value| *value == given[last]);
            let next = tried.and_then(|tried| examples.get(tried + 1));
            let next = next.unwrap_or_else(|| panic!("{kind}: {error}"));
            given.insert(last.clone(), next.clone());
        }
    };
    let Value::Object(written) = serde_json::to_value(&spec).unwrap() else {
        panic!("{kind} is written as a table");
    };
    let mut settings: Vec<String> = required
        .iter()
        .map(|name| format!("**`{name}`**"))
        .collect();
    for (name, value) in written {
        if name == "kind" || required.contains(&name) || value.is_null() {
            continue;
        }
        settings.push(format!("`{name} = {}`", toml(&value)));
    }
    settings
}

/// `value` as a run file would say it.
fn toml(value: &Value) -> String {
    let list = |values: Vec<String>| values.join(", ");
    match value {
        // Single-precision defaults are written with the digits they were given.
        Value::Number(number) => match number.as_f64().map(|number| (number, number as f32)) {
            Some((long, short)) if number.is_f64() && f64::from(short) == long => {
                format!("{short:?}")
            }
            _ => number.to_string(),
        },
        Value::Array(values) => format!("[{}]", list(values.iter().map(toml).collect())),
        // A kind without settings is named alone.
        Value::Object(table) if table.len() == 1 => toml(&table["kind"]),
        Value::Object(table) => {
            let entry = |(key, value)| format!("{key} = {}", toml(value));
            format!("{{ {} }}", list(table.iter().map(entry).collect()))
        }
        other => other.to_string(),
    }
}

/// `units` of "missing field `units`".
fn missing_field(error: &str) -> Option<String> {
    let name = error.strip_prefix("missing field `")?;
    Some(name.split('`').next()?.to_owned())
}

/// `text` with what stands between `<!-- name -->` and `<!-- end -->` replaced.
fn with_section(text: &str, name: &str, section: &str) -> String {
    let opening = format!("<!-- {name} -->\n");
    let start = text.find(&opening).expect("the page has the section") + opening.len();
    let end = start + text[start..].find("<!-- end -->").expect("a section ends");
    format!("{}{section}{}", &text[..start], &text[end..])
}

#[test]
fn the_page_on_run_files_lists_every_kind() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/run-file.md")).unwrap();
    let mut expected = page.clone();
    let classes = KerasModel::classes().map(|name| format!("`{name}`"));
    for (name, table) in [
        ("columns", table::<ColumnSpec>(ColumnSpec::KINDS)),
        ("estimators", table::<EstimatorSpec>(EstimatorSpec::KINDS)),
        ("keras", classes.collect::<Vec<_>>().join(", ") + "\n"),
        ("layers", table::<LayerSpec>(LayerSpec::KINDS)),
        ("initialisers", table::<Initializer>(Initializer::KINDS)),
        ("losses", table::<LossSpec>(LossSpec::KINDS)),
        ("optimizers", table::<OptimizerSpec>(OptimizerSpec::KINDS)),
        ("schedules", table::<ScheduleSpec>(ScheduleSpec::KINDS)),
    ] {
        expected = with_section(&expected, name, &table);
    }
    if page != expected {
        let fresh = root.join("target/run-file.md");
        fs::write(&fresh, expected).unwrap();
        panic!(
            "docs/run-file.md is out of date; copy {} over it",
            fresh.display()
        );
    }
}
