//! Rows of named values to rows of slots, one value after the other.

use super::part::{NONE, Part, Rule, Words};
use super::value::Value;
use super::{
    ColumnError, ColumnSpec, Columns, Encoded, Encoding, Normalize, Selection, Values, hash,
};

/// Encodes the rows of a table as they are read. What is found in the training split is only known when
/// all is read: until then vocabularies grow, and numbers wait to be standardised where they stand.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    encoding: Encoding,
    sources: Vec<Source>,
    words: Vec<Words>,
    crosses: Vec<Cross>,
    weighted: Vec<Weighted>,
    /// A row that nothing is known of.
    blank: Vec<f32>,
    /// What each key of a cross counts by in the row at hand.
    keys: Vec<Vec<u64>>,
    /// Where the row at hand begins.
    start: usize,
    /// Whether vocabularies and statistics are known, and not to be found in these rows.
    is_fitted: bool,
}

/// A column of the data.
#[derive(Debug, Clone)]
struct Source {
    name: String,
    parts: Vec<Part>,
    /// How many values the row at hand has.
    values: usize,
}

#[derive(Debug, Clone)]
struct Cross {
    slot: usize,
    keys: std::ops::Range<usize>,
    buckets: usize,
}

#[derive(Debug, Clone)]
struct Weighted {
    column: String,
    slot: usize,
    /// Most ids of a row.
    most: usize,
    /// Places of the sources of ids and weights.
    ids: usize,
    weights: usize,
}

/// What is wrong with a column of the data.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) source: String,
    pub(crate) problem: String,
}

impl Encoder {
    /// Of the training split, in which vocabularies and statistics are found.
    pub(crate) fn fit(selection: Selection<'_>) -> Result<Self, ColumnError> {
        let Selection { columns, used } = selection;
        columns.check()?;
        if let Some(unknown) = used.iter().find(|name| columns.get(name).is_none()) {
            return Err(ColumnError {
                column: unknown.clone(),
                key: None,
                problem: "a model reads it, but it is not there".to_owned(),
            });
        }
        let encoding = Encoding::new(selection.needed(), used.iter().map(String::as_str));
        Ok(Self {
            is_fitted: false,
            ..Self::new(&encoding)
        })
    }

    /// Whether all has been found that rows are encoded by: which columns there are is known then, and one
    /// that no row has is a missing value in each.
    pub(crate) fn is_fitted(&self) -> bool {
        self.is_fitted
    }

    /// Numbers in a row.
    pub(crate) fn width(&self) -> usize {
        self.blank.len()
    }

    /// Of more rows, by what was found.
    pub(crate) fn new(encoding: &Encoding) -> Self {
        let mut encoder = Self {
            sources: Vec::new(),
            words: Vec::new(),
            crosses: Vec::new(),
            weighted: Vec::new(),
            blank: vec![0.0; encoding.width()],
            keys: Vec::new(),
            start: 0,
            is_fitted: true,
            encoding: encoding.clone(),
        };
        for column in &encoding.columns {
            encoder.add(&encoding.fitted, column);
            let slots = column.slots.clone();
            match column.values {
                Values::Numbers => {}
                Values::Ids { .. } => encoder.blank[slots].fill(NONE),
                Values::Weighted { .. } => {
                    let (ids, weights) = encoder.blank[slots.clone()].split_at_mut(slots.len() / 2);
                    ids.fill(NONE);
                    weights.fill(f32::NAN);
                }
            }
        }
        encoder
    }

    /// Adds a column of the model.
    fn add(&mut self, columns: &Columns, column: &Encoded) {
        let (name, slot) = (column.name.as_str(), column.slots.start);
        match columns.get(name) {
            // Whoever reads the row finds the bucket.
            Some(ColumnSpec::Bucketized(_)) if column.values == Values::Numbers => {
                let (source, most, default) = columns.numbers_of(name);
                let normalize = Normalize::None;
                let rule = Rule::Number { default, normalize };
                let part = Part {
                    column: name.to_owned(),
                    most,
                    slot: Some(slot),
                    key: None,
                    rule,
                };
                self.add_to(source, part);
            }
            Some(ColumnSpec::Crossed(spec)) => {
                let first = self.keys.len();
                for key in &spec.keys {
                    let index = self.keys.len();
                    self.keys.push(Vec::new());
                    self.add_part(columns, key, None, Some(index));
                }
                self.crosses.push(Cross {
                    slot,
                    keys: first..self.keys.len(),
                    buckets: spec.buckets,
                });
            }
            Some(ColumnSpec::Weighted(spec)) => {
                let (ids, most) = self.add_part(columns, &spec.source, Some(slot), None);
                let weights = self.add_to(
                    &spec.weights,
                    Part {
                        column: name.to_owned(),
                        most,
                        slot: Some(slot + most),
                        key: None,
                        rule: Rule::Weight,
                    },
                );
                self.weighted.push(Weighted {
                    column: name.to_owned(),
                    slot,
                    most,
                    ids,
                    weights,
                });
            }
            _ => {
                self.add_part(columns, name, Some(slot), None);
            }
        }
    }

    /// Adds what the column called `name` is of itself; returns the place of its source, and the most
    /// values that a row has.
    fn add_part(
        &mut self,
        columns: &Columns,
        name: &str,
        slot: Option<usize>,
        key: Option<usize>,
    ) -> (usize, usize) {
        let spec = columns.get(name);
        let (source, shape, default) = columns.numbers_of(name);
        let (most, rule) = match spec {
            Some(ColumnSpec::Numeric(spec)) => {
                let normalize = spec.normalize;
                (shape, Rule::Number { default, normalize })
            }
            Some(ColumnSpec::Bucketized(spec)) => {
                let boundaries = spec.boundaries();
                (
                    shape,
                    Rule::Bucket {
                        default,
                        boundaries,
                    },
                )
            }
            Some(ColumnSpec::Identity(spec)) => {
                let (buckets, default) = (spec.buckets, spec.default);
                (spec.max_values, Rule::Identity { buckets, default })
            }
            // As the key of a cross it counts by its text.
            Some(ColumnSpec::Vocabulary(spec)) if key.is_some() => (spec.max_values, Rule::Text),
            Some(ColumnSpec::Hash(spec)) if key.is_some() => (spec.max_values, Rule::Text),
            Some(ColumnSpec::Vocabulary(spec)) => {
                let known = self.words.iter().position(|words| words.column == name);
                let dictionary = known.unwrap_or_else(|| {
                    self.words.push(Words::new(name, spec));
                    self.words.len() - 1
                });
                (spec.max_values, Rule::Vocabulary { dictionary })
            }
            Some(ColumnSpec::Hash(spec)) => {
                let buckets = spec.buckets;
                (spec.max_values, Rule::Hash { buckets })
            }
            Some(ColumnSpec::Crossed(_) | ColumnSpec::Weighted(_)) | None => (1, Rule::Text),
        };
        let source = match spec {
            Some(ColumnSpec::Numeric(_) | ColumnSpec::Bucketized(_)) | None => source,
            Some(spec) => spec.source(name).unwrap_or(name),
        };
        let part = Part {
            column: name.to_owned(),
            most,
            slot,
            key,
            rule,
        };
        (self.add_to(source, part), most)
    }

    /// Adds what is made of a column of the data; returns the column's place.
    fn add_to(&mut self, source: &str, part: Part) -> usize {
        let known = self.sources.iter().position(|known| known.name == source);
        let index = known.unwrap_or_else(|| {
            self.sources.push(Source {
                name: source.to_owned(),
                parts: Vec::new(),
                values: 0,
            });
            self.sources.len() - 1
        });
        self.sources[index].parts.push(part);
        index
    }

    /// Names of the columns of the data that it reads.
    pub(crate) fn sources(&self) -> Vec<String> {
        let names = self.sources.iter().map(|source| source.name.clone());
        names.collect()
    }

    /// Takes the values of one of the [sources](Self::sources) in the row at hand, the last in `slots`,
    /// the numbers of all rows.
    pub(crate) fn read(
        &mut self,
        source: usize,
        values: &[impl Value],
        slots: &mut Vec<f32>,
    ) -> Result<(), String> {
        self.begin_row(slots);
        let source = &mut self.sources[source];
        source.values = values.len();
        let row = &mut slots[self.start..];
        for part in &source.parts {
            part.read(values, &mut self.words, row, &mut self.keys)
                .map_err(|problem| match part.column == source.name {
                    true => problem,
                    false => format!("[columns] {}: {problem}", part.column),
                })?;
        }
        Ok(())
    }

    fn begin_row(&self, slots: &mut Vec<f32>) {
        if slots.len() == self.start {
            slots.extend_from_slice(&self.blank);
        }
    }

    /// Makes what is of several columns, once all of the row are read.
    pub(crate) fn end_row(&mut self, slots: &mut Vec<f32>) -> Result<(), Fault> {
        self.begin_row(slots);
        let row = &mut slots[self.start..];
        for cross in &self.crosses {
            let keys = &self.keys[cross.keys.clone()];
            cross.write(keys, hash::CROSS, &mut row[cross.slot..].iter_mut());
        }
        self.keys.iter_mut().for_each(Vec::clear);
        for weighted in &self.weighted {
            weighted
                .check(&self.sources, row)
                .map_err(|problem| Fault {
                    source: self.sources[weighted.weights].name.clone(),
                    problem: format!("[columns] {}: {problem}", weighted.column),
                })?;
        }
        self.start = slots.len();
        Ok(())
    }

    /// What was found, once all rows are read: brings the `slots` of all rows to it.
    pub(crate) fn finish(self, slots: &mut [f32]) -> Result<Encoding, ColumnError> {
        if self.is_fitted {
            return Ok(self.encoding);
        }
        let Encoding {
            columns,
            mut fitted,
        } = self.encoding;
        let width = self.blank.len();
        for (index, words) in self.words.into_iter().enumerate() {
            if !words.grows {
                continue;
            }
            let (texts, places) = words.dictionary.sorted();
            let parts = self.sources.iter().flat_map(|source| &source.parts);
            let numbered = parts.filter_map(|part| match (&part.rule, part.slot) {
                (Rule::Vocabulary { dictionary }, Some(slot)) if *dictionary == index => {
                    Some(slot..slot + part.most)
                }
                _ => None,
            });
            for numbered in numbered {
                for row in slots.chunks_exact_mut(width) {
                    for slot in row[numbered.clone()]
                        .iter_mut()
                        .filter(|slot| **slot >= 0.0)
                    {
                        *slot = places[*slot as usize] as f32;
                    }
                }
            }
            fitted.set_texts(&words.column, texts)?;
        }
        standardize(&columns, &mut fitted, slots, width);
        let used = columns.iter().map(|column| column.name.as_str());
        Ok(Encoding::new(fitted, used))
    }
}

/// Standardises the columns that are to be, in rows of `width` slots, and notes by what.
fn standardize(columns: &[Encoded], fitted: &mut Columns, slots: &mut [f32], width: usize) {
    let waits = |column: &&Encoded| match fitted.get(&column.name) {
        Some(ColumnSpec::Numeric(spec)) => spec.normalize == Normalize::Standardize,
        _ => false,
    };
    let waiting: Vec<&Encoded> = columns.iter().filter(waits).collect();
    if waiting.is_empty() {
        return;
    }
    let places: Vec<_> = waiting.iter().map(|column| column.slots.clone()).collect();
    let found = Normalize::standardizing(slots, width, &places);
    for row in slots.chunks_exact_mut(width) {
        for (place, normalize) in places.iter().zip(&found) {
            for slot in &mut row[place.clone()] {
                *slot = normalize.apply(f64::from(*slot));
            }
        }
    }
    for (column, found) in waiting.into_iter().zip(found) {
        if let Some(ColumnSpec::Numeric(spec)) = fitted.get_mut(&column.name) {
            spec.normalize = found;
        }
    }
}

impl Cross {
    /// Writes the ids of all combinations of the keys' values, behind those that `before` is of: the last key's
    /// change fastest.
    fn write(&self, keys: &[Vec<u64>], before: u64, slots: &mut std::slice::IterMut<'_, f32>) {
        match keys.split_first() {
            Some((first, others)) => {
                for &value in first {
                    self.write(others, hash::concatenated(before, value), slots);
                }
            }
            None => {
                let slot = slots.next().expect("a slot for each combination");
                *slot = (before % self.buckets as u64) as f32;
            }
        }
    }
}

impl Weighted {
    /// Refuses ids and weights that are not of one number; what is no id weighs nothing.
    fn check(&self, sources: &[Source], row: &mut [f32]) -> Result<(), String> {
        let (ids, weights) = (&sources[self.ids], &sources[self.weights]);
        // None at all, or one that is missing.
        if ids.values.max(1) != weights.values.max(1) {
            return Err(format!(
                "{} weights for the {} values of '{}'; mend the row",
                weights.values, ids.values, ids.name
            ));
        }
        let (ids, weights) = row[self.slot..][..2 * self.most].split_at_mut(self.most);
        for (place, (&id, weight)) in ids.iter().zip(weights).enumerate() {
            match id {
                NONE => *weight = 0.0,
                _ if weight.is_nan() => {
                    return Err(format!("value {} has no weight; mend the row", place + 1));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
