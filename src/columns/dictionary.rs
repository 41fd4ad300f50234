//! Texts and their numbers.

use indexmap::IndexSet;
use rustc_hash::FxBuildHasher;

/// Texts, numbered in the order in which they were added.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dictionary {
    texts: IndexSet<Vec<u8>, FxBuildHasher>,
}

impl Dictionary {
    /// Of `texts`, each of which is there once.
    pub(crate) fn new(texts: &[String]) -> Self {
        let texts = texts.iter().map(|text| text.clone().into_bytes());
        Self {
            texts: texts.collect(),
        }
    }

    /// How many texts there are.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The number of a text.
    pub(crate) fn get(&self, text: &[u8]) -> Option<usize> {
        self.texts.get_index_of(text)
    }

    /// The number of a text, which is added where it is new.
    pub(crate) fn get_or_add(&mut self, text: &str) -> usize {
        self.texts.insert_full(text.as_bytes().to_vec()).0
    }

    /// The texts sorted, as numbers where all are integers, and the place of each of the old numbers.
    pub(crate) fn sorted(self) -> (Vec<String>, Vec<usize>) {
        let text = |text: Vec<u8>| String::from_utf8_lossy(&text).into_owned();
        let numbered = self.texts.into_iter().zip(0..);
        let mut found: Vec<_> = numbered.map(|(key, number)| (text(key), number)).collect();
        found.sort_unstable();
        let integers: Option<Vec<i64>> = found.iter().map(|(text, _)| text.parse().ok()).collect();
        if integers.is_some() {
            found.sort_by_key(|(text, _)| text.parse::<i64>().unwrap_or_default());
        }
        let mut places = vec![0; found.len()];
        for (place, &(_, number)) in found.iter().enumerate() {
            places[number] = place;
        }
        (found.into_iter().map(|(text, _)| text).collect(), places)
    }
}
