//! Registries: one list of kinds that the run file, the checkpoint and the documentation share.

/// What the registry says about one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The name a run file and a checkpoint use.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
}

/// What to say behind an unknown name: the nearest known one, or, where none is near, all.
pub(crate) fn hint(name: &str, known: &[String]) -> String {
    hint_at(name, known.iter(), known)
}

/// The same, where only some of the known ones can be meant.
pub(crate) fn hint_at<'a>(
    name: &str,
    meant: impl Iterator<Item = &'a String>,
    known: &[String],
) -> String {
    let nearest = meant
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .min();
    match nearest {
        None if known.is_empty() => String::new(),
        Some((distance, other)) if distance <= (name.len() / 3).max(1) && distance < name.len() => {
            format!("; did you mean '{other}'?")
        }
        _ => format!("; known are {}", known.join(", ")),
    }
}

/// The names one after another; of many the first.
pub(crate) fn listed(names: &[String]) -> String {
    /// Most that a line lists.
    const LISTED: usize = 20;
    let more = if names.len() > LISTED { ", ..." } else { "" };
    format!("{}{more}", names[..names.len().min(LISTED)].join(", "))
}

/// Defines an enum whose variants are chosen by name: in run files, on the command line, in records.
macro_rules! choices {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident ($what:literal) {
            $($(#[$about:meta])* $variant:ident = $text:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        $visibility enum $name {
            $($(#[$about])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every one.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|choice| choice.name() == text);
                found.copied().ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|choice| choice.name()).collect();
                    let known = known.join(", ");
                    format!(concat!("unknown ", $what, " '{}': choose one of {}"), text, known)
                })
            }
        }
    };
}

pub(crate) use choices;

/// Defines an enum of kinds with its registry.
///
/// Each variant wraps a struct of settings that has defaults. A run file names a kind alone
/// (`"adam"`: all defaults) or gives a table (`{ kind = "adam", beta_1 = 0.8 }`); the table is what
/// is written back. Unknown kinds and keys are errors.
macro_rules! registry {
    (
        $(#[$meta:meta])*
        $visibility:vis enum $name:ident ($what:literal) {
            $($variant:ident($spec:ty) = $kind:literal: $summary:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(remote = "Self", tag = "kind")]
        $visibility enum $name {
            $(
                #[doc = $summary]
                #[serde(rename = $kind)]
                $variant($spec),
            )+
        }

        impl $name {
            /// Every kind, in the order of the documentation.
            pub const KINDS: &'static [$crate::named::Kind] = &[
                $($crate::named::Kind { name: $kind, summary: $summary },)+
            ];

            /// Its name in the registry.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $kind,)+
                }
            }
        }

        $(
            impl From<$spec> for $name {
                fn from(spec: $spec) -> Self {
                    Self::$variant(spec)
                }
            }
        )+

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                // The inherent function that `remote = "Self"` makes: the plain tagged table.
                Self::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;

                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("the name of ", $what, " or a table with its kind"))
                    }

                    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<$name, E> {
                        let table = std::iter::once(("kind", name));
                        $name::deserialize(serde::de::value::MapDeserializer::new(table))
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        table: A,
                    ) -> Result<$name, A::Error> {
                        $name::deserialize(serde::de::value::MapAccessDeserializer::new(table))
                    }
                }

                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

pub(crate) use registry;
