//! What the run file's `[columns]` can be together with the other sections.

use super::file::{Problem, invalid};
use super::{Architecture, RunConfig};
use crate::data::Source;

/// Refuses columns that cannot be, alone, of these data, or for this model.
pub(super) fn check(config: &RunConfig) -> Result<(), Problem> {
    let Some(columns) = &config.columns else {
        return Ok(());
    };
    let Source::Columns(source) = &config.data.source else {
        let format = config.data.source.format();
        let text = format!("{format} has no named columns; use csv, jsonl, parquet or tfrecord");
        return Err(invalid(&["columns"], text));
    };
    if columns.0.is_empty() {
        return Err(invalid(
            &["columns"],
            "names no columns; leave it out to learn from the numbers of the data as they are",
        ));
    }
    columns.check().map_err(|error| {
        let key = ["columns", &error.column].into_iter().chain(error.key);
        invalid(&key.collect::<Vec<_>>(), error.problem)
    })?;
    if source.features.is_some() {
        let text = "[columns] says which columns are learned from; keep one of them";
        return Err(invalid(&["data", "features"], text));
    }
    if config.data.scale != 1.0 {
        let text = "[columns] says what is done to numbers, by normalize; keep one of them";
        return Err(invalid(&["data", "scale"], text));
    }
    if config.data.normalize.is_some() {
        let text = "[columns] says what is done to numbers, by normalize; leave mean and std out";
        return Err(invalid(&["data"], text));
    }
    let used = config.used_columns();
    for name in &used {
        let wrong = |text: String| Err(invalid(&["columns", name], text));
        for read in columns.sources(name) {
            if source.labels.iter().any(|label| label == read) {
                return wrong(format!(
                    "'{read}' is the label; learn from other columns, or name another label in [data]"
                ));
            }
            if Some(read) == source.weight.as_deref() {
                return wrong(format!(
                    "'{read}' is the weight of rows; learn from other columns, or leave weight out of [data]"
                ));
            }
        }
        let spec = columns.get(name).filter(|spec| spec.is_categorical());
        if let (Some(spec), Architecture::Layers(_)) = (spec, &config.model.architecture) {
            return wrong(format!(
                "{} is categorical, and layers compute with numbers; wrap it: use an [estimator] that \
                 reads it as an indicator or an embedding",
                spec.name()
            ));
        }
    }
    Ok(())
}
