//! Whether a run can be trained on tables that a program hands over.

use std::path::Path;

use super::RunConfig;
use crate::data::{DataError, Description, Table};

impl RunConfig {
    /// Refuses tables that reading files would not give for this run.
    pub(crate) fn check_tables(
        &self,
        train: &Table,
        test: Option<&Table>,
    ) -> Result<(), DataError> {
        let training = Path::new("training data");
        self.check_given(train, training)?;
        self.check_steps(train, training)?;
        let Some(test) = test else {
            return Ok(());
        };
        self.check_test(test, &train.description())
    }

    /// Refuses a table that a model trained on rows as `trained` describes them cannot be tested on.
    pub(crate) fn check_test(&self, test: &Table, trained: &Description) -> Result<(), DataError> {
        let path = Path::new("test data");
        self.check_given(test, path)?;
        Self::check_alike(test, trained, path)
    }

    /// Refuses rows of another kind than those trained on, which `trained` describes.
    pub(crate) fn check_alike(
        test: &Table,
        trained: &Description,
        path: &Path,
    ) -> Result<(), DataError> {
        let test = Description {
            rows: trained.rows,
            ..test.description()
        };
        if test != *trained {
            let problem = "shape, columns, targets or encoding are not those of the training data; make \
                           both alike";
            return Err(DataError::format(path, problem));
        }
        Ok(())
    }

    fn check_given(&self, table: &Table, path: &Path) -> Result<(), DataError> {
        table
            .check()
            .map_err(|problem| DataError::format(path, problem))?;
        if let Some(shape) = &self.data.shape
            && *shape != table.shape
        {
            let problem = format!("rows are {}, but shape in [data] is {shape}", table.shape);
            return Err(DataError::format(path, problem));
        }
        self.check_indices(table, path)
    }
}
