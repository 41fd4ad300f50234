//! The rows of a run, read from the files that its configuration names.

use std::path::Path;

use super::train_section::MOST_ROWS;
use super::{Architecture, RunConfig};
use crate::columns::{Columns, Encoding, Selection};
use crate::data::stream::Remainder;
use crate::data::{self, DataConfig, DataError, Description, Split, Table};
use crate::models::{BuildAnywhere, BuildModel};

impl RunConfig {
    /// Reads one part of the run's data; the columns and classes are those of `trained`, where that is
    /// given.
    ///
    /// # Errors
    /// For the first thing that is wrong, with its file and line or row.
    pub fn load_data(
        &self,
        split: Split,
        trained: Option<&Description>,
    ) -> Result<Table, DataError> {
        let used = self.used_columns();
        let none = Columns::default();
        let columns = self.columns.as_ref();
        let columns = columns.or(self.reads_nothing().then_some(&none));
        let selection = columns.map(|columns| Selection {
            columns,
            used: &used,
        });
        let table = data::load(&self.data, self.task(), selection, split, trained)?;
        let path = self.data.features(split);
        self.check_indices(&table, &path)?;
        if split == Split::Train {
            self.check_steps(&table, &path)?;
        }
        Ok(table)
    }

    /// Refuses rows that no step could be made of.
    pub(super) fn check_steps(&self, table: &Table, path: &Path) -> Result<(), DataError> {
        let global_batch = self.train.global_batch;
        let problem = if table.rows > MOST_ROWS {
            format!(
                "{} rows, of which a run counts at most {MOST_ROWS}; read fewer, as by take in [data]",
                table.rows
            )
        } else if self.data.remainder == Remainder::Drop && table.rows < global_batch {
            format!(
                "drop_remainder in [data] leaves no step of {} rows, for global_batch is {global_batch}; make \
                 it smaller, or leave drop_remainder out",
                table.rows
            )
        } else if self.data.augment.is_some() && self.augmentation(table).is_none() {
            format!(
                "augment in [data] varies images, rows of [height, width, channels], but rows are {}; say \
                 their shape by shape in [data]",
                table.shape
            )
        } else {
            return Ok(());
        };
        Err(DataError::Format {
            path: path.to_owned(),
            problem,
        })
    }

    /// Reads the features of rows to predict from; see [`data::load_features`].
    ///
    /// # Errors
    /// As [`Self::load_data`].
    pub fn load_features(&self, path: &Path, trained: &Description) -> Result<Table, DataError> {
        let table = data::load_features(&self.data, path, trained)?;
        self.check_indices(&table, path)?;
        Ok(table)
    }

    /// Reads the same rows as an exported model takes them, with numbers as they stand in the data; see
    /// [`crate::train::export_onnx`].
    ///
    /// # Errors
    /// As [`Self::load_data`].
    pub fn load_inputs(&self, path: &Path, trained: &Description) -> Result<Table, DataError> {
        let data = DataConfig {
            scale: 1.0,
            normalize: None,
            ..self.data.clone()
        };
        let trained = Description {
            encoding: trained.encoding.as_ref().map(Encoding::raw),
            ..trained.clone()
        };
        data::load_features(&data, path, &trained)
    }

    /// Refuses features that the model cannot look up.
    pub(super) fn check_indices(&self, table: &Table, path: &Path) -> Result<(), DataError> {
        let indices = match &self.model.architecture {
            Architecture::Layers(layers) => BuildModel::indices(layers),
            Architecture::Estimator(estimator) => BuildModel::indices(estimator),
            Architecture::Custom(custom) => BuildAnywhere::indices(custom.model()),
        };
        indices.map_or(Ok(()), |count| table.check_indices(count, path))
    }
}
