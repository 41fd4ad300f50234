//! Texts and their numbers.

use std::collections::BTreeMap;

/// Texts, numbered in the order in which they were added.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dictionary {
    numbers: BTreeMap<Vec<u8>, usize>,
}

impl Dictionary {
    /// Of `texts`, each of which is there once.
    pub(crate) fn new(texts: &[String]) -> Self {
        let numbered = texts.iter().enumerate();
        Self {
            numbers: numbered
                .map(|(number, text)| (text.clone().into_bytes(), number))
                .collect(),
        }
    }

    /// How many texts there are.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The number of a text.
    pub(crate) fn get(&self, text: &[u8]) -> Option<usize> {
        self.numbers.get(text).copied()
    }

    /// The number of a text, which is added where it is new.
    pub(crate) fn get_or_add(&mut self, text: &str) -> usize {
        self.get(text.as_bytes()).unwrap_or_else(|| {
            let number = self.len();
            self.numbers.insert(text.as_bytes().to_vec(), number);
            number
        })
    }

    /// The texts sorted, as numbers where all are integers, and the place of each of the old numbers.
    pub(crate) fn sorted(self) -> (Vec<String>, Vec<usize>) {
        let text = |text: Vec<u8>| String::from_utf8_lossy(&text).into_owned();
        let numbers = self.numbers.into_iter();
        let mut found: Vec<_> = numbers.map(|(key, number)| (text(key), number)).collect();
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
