//! The run file's `[model]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use toml::Table;

use super::deserialize::{self, Error, Fault};
use super::document::{KIND, Node, Value};
use super::file::{Problem, invalid, missing};
use super::{Architecture, ModelConfig};
use crate::data::files;
use crate::layers::Shape;
use crate::models::{BuildAnywhere, CustomModel, KerasModel, Layers, LossSpec};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelSection {
    loss: LossSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Layers>,
    /// A file of Keras's, read where the section is checked; never written, for the layers are.
    #[serde(skip_serializing)]
    keras: Option<PathBuf>,
    /// Read by [`CustomModels`], which knows the types.
    #[serde(skip_serializing_if = "Option::is_none")]
    custom: Option<toml::Value>,
}

impl ModelSection {
    /// `custom` is what the key of that name means. Returns the shape of a row, too, where the model says
    /// it.
    pub(super) fn check(
        self,
        custom: Option<Custom>,
    ) -> Result<(ModelConfig, Option<Shape>), Problem> {
        let (architecture, input) = match (self.layers, self.keras, custom) {
            (Some(layers), None, None) if layers.specs().is_empty() => {
                let text = "a model needs at least one layer";
                return Err(invalid(&["model", "layers"], text));
            }
            (Some(layers), None, None) => (Architecture::Layers(layers), None),
            (None, Some(path), None) => {
                let model = keras(&path).map_err(|text| invalid(&["model", "keras"], text))?;
                (Architecture::Layers(model.layers), model.input)
            }
            (None, None, Some(custom)) => (Architecture::Custom(custom), None),
            (Some(_), Some(_), _) => {
                let text = "layers are given, too; keep one of them";
                return Err(invalid(&["model", "keras"], text));
            }
            (layers, _, Some(_)) => {
                let other = if layers.is_some() {
                    "layers are"
                } else {
                    "keras is"
                };
                let text = format!("{other} given, too; keep one of them");
                return Err(invalid(&["model", "custom"], text));
            }
            (None, None, None) => {
                let text = "missing key 'layers' in [model]: the layers, in forward order (or 'keras', a \
                            file with Keras's description of them, or 'custom', the name of a model \
                            written in Rust)";
                return Err(missing(&["model"], text));
            }
        };
        let model = ModelConfig {
            loss: self.loss,
            architecture,
        };
        Ok((model, input))
    }
}

/// The model that a file describes.
fn keras(path: &Path) -> Result<KerasModel, String> {
    let text = files::opened(path).and_then(io::read_to_string);
    let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    KerasModel::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

impl From<ModelConfig> for ModelSection {
    fn from(model: ModelConfig) -> Self {
        let (layers, custom) = match model.architecture {
            Architecture::Layers(layers) => (Some(layers), None),
            Architecture::Estimator(_) => (None, None),
            Architecture::Custom(custom) => {
                let mut table = custom.settings;
                table.insert(KIND.to_owned(), toml::Value::String(custom.kind.to_owned()));
                (None, Some(toml::Value::Table(table)))
            }
        };
        Self {
            loss: model.loss,
            layers,
            keras: None,
            custom,
        }
    }
}

/// A model of a program's own with its settings.
#[derive(Clone)]
pub struct Custom {
    kind: &'static str,
    settings: Table,
    model: Arc<dyn BuildAnywhere>,
}

impl Custom {
    /// Names the model and writes down its settings.
    ///
    /// # Errors
    /// If they are no table of TOML: of a type that is not a struct with named fields, with a number
    /// out of range, or with a field `kind`.
    pub fn new<M: CustomModel>(model: M) -> Result<Self, toml::ser::Error> {
        let settings = Table::try_from(&model)?;
        if settings.contains_key(KIND) {
            return Err(serde::ser::Error::custom(format!(
                "the settings of the model '{}' have a field '{KIND}', which run files use for its \
                 name; rename the field",
                M::KIND
            )));
        }
        Ok(Self {
            kind: M::KIND,
            settings,
            model: Arc::new(model),
        })
    }

    /// Its name in run files.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Its settings, every default spelled out.
    pub fn settings(&self) -> &Table {
        &self.settings
    }

    pub(super) fn model(&self) -> &(dyn BuildAnywhere + 'static) {
        &*self.model
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.settings)
    }
}

/// Of the same kind with equal settings.
impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.settings) == (other.kind, &other.settings)
    }
}

/// The models of a program's own that its run files can name; none by default.
#[derive(Debug, Clone, Default)]
pub struct CustomModels {
    known: Vec<Known>,
}

#[derive(Debug, Clone)]
struct Known {
    kind: &'static str,
    read: fn(&Node) -> Result<Custom, Error>,
}

impl CustomModels {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the model `M`, which replaces one of the same name.
    #[must_use]
    pub fn with<M: CustomModel>(mut self) -> Self {
        self.known.retain(|known| known.kind != M::KIND);
        self.known.push(Known {
            kind: M::KIND,
            read: |settings| {
                let model: M = deserialize::read(settings)?;
                Custom::new(model).map_err(|error| {
                    let problem = format!("its settings cannot be written down: {error}");
                    Error::new(Fault::Other(problem))
                })
            },
        });
        self
    }

    /// Reads the value of `model.custom`: a name, or a table with its kind and settings.
    pub(super) fn read(&self, node: &Node) -> Result<Custom, Error> {
        let (kind, settings) = match &node.value {
            // The kind stands in front wherever it was written.
            Value::Table(entries) => match entries.split_first() {
                Some((first, settings)) if first.key == KIND => {
                    let kind = deserialize::read::<String>(&first.node);
                    (kind.map_err(|error| error.under(0))?, settings)
                }
                _ => {
                    let names = self.names();
                    return Err(Error::new(Fault::MissingKey { key: KIND, names }));
                }
            },
            _ => (deserialize::read::<String>(node)?, &[][..]),
        };
        let Some(known) = self.known.iter().find(|known| known.kind == kind) else {
            let error = Error::new(self.unknown(kind));
            return Err(match node.value {
                Value::Table(_) => error.under(0),
                _ => error,
            });
        };
        let settings = Node {
            at: node.at,
            value: Value::Table(settings.to_vec()),
        };
        (known.read)(&settings).map_err(|mut error| {
            // The place among all entries, of which the kind is the first.
            if let Some(index) = error.path.first_mut() {
                *index += 1;
            }
            error
        })
    }

    fn unknown(&self, name: String) -> Fault {
        if self.known.is_empty() {
            return Fault::Other(format!(
                "'{name}' is a model written in Rust, and this program has none; give the command \
                 to the program that defines it: the one that trained the run"
            ));
        }
        Fault::UnknownName {
            name,
            known: self.names(),
        }
    }

    fn names(&self) -> Vec<String> {
        let known = self.known.iter();
        known.map(|known| known.kind.to_owned()).collect()
    }
}
