//! Variable and parameter declarations (PTX ISA, "Variables").

use crate::error::Error;
use crate::types::PtxType;

/// `.align 4 .b8 name[100] = {...}`
#[derive(Debug)]
pub(super) struct Declaration {
    pub name: String,
    pub bytes: u64,
    pub align: u64,
    pub element_bytes: u64,
    pub initialiser: Option<String>,
}

pub(super) fn parse_declaration(text: &str, line: u32) -> Result<Declaration, Error> {
    let fail = |what: &str| Error::parse(line, format!("{what}: {text}"));
    let (left, initialiser) = match text.split_once('=') {
        Some((left, right)) => (left.trim(), Some(right.trim().to_string())),
        None => (text.trim(), None),
    };
    let mut align = 0u64;
    let mut vector = 1u64;
    let mut ty = None;
    let mut points_to = false;
    let mut name = None;
    let mut words = left.split_whitespace();
    while let Some(word) = words.next() {
        match word.strip_prefix('.') {
            Some("align") => {
                let value = words.next().and_then(|w| w.parse().ok());
                let value = value.ok_or_else(|| fail("bad alignment"))?;
                // After `.ptr` it is the alignment of what the pointer points to.
                if !points_to {
                    align = value;
                }
            }
            Some("ptr") => points_to = true,
            Some("v2") => vector = 2,
            Some("v4") => vector = 4,
            Some(other) => ty = PtxType::parse(other).or(ty),
            None => {
                name = Some(
                    std::iter::once(word)
                        .chain(words.by_ref())
                        .collect::<String>(),
                );
            }
        }
    }
    let name = name.ok_or_else(|| fail("declaration without a name"))?;
    let ty = ty.ok_or_else(|| fail("declaration without a type"))?;
    let element_bytes = ty.bytes() as u64;
    let mut parts = name.split('[');
    let base = parts.next().unwrap_or_default().to_string();
    let mut count = vector;
    for dimension in parts {
        let digits = dimension.trim_end_matches(']').trim();
        count *= if digits.is_empty() {
            0
        } else {
            digits.parse().map_err(|_| fail("bad array size"))?
        };
    }
    Ok(Declaration {
        name: base,
        bytes: count * element_bytes,
        align: align.max(element_bytes * vector),
        element_bytes,
        initialiser,
    })
}
