//! Whether a run can be trained on tables that a program hands over.

use std::path::Path;

use super::{ConfigError, RunConfig, control};
use crate::data::{DataError, Table};

impl RunConfig {
    /// Refuses tables that reading files would not give for this run.
    pub(crate) fn check_tables(
        &self,
        train: &Table,
        test: Option<&Table>,
    ) -> Result<(), DataError> {
        let (training, tested) = (Path::new("training data"), Path::new("test data"));
        self.check_given(train, training)?;
        self.check_steps(train, training)?;
        let Some(test) = test else {
            return Ok(());
        };
        self.check_given(test, tested)?;
        let meaning = |table: &Table| {
            let mut meaning = table.description();
            meaning.rows = 0;
            meaning
        };
        if meaning(test) != meaning(train) {
            let problem = "shape, columns, targets or encoding are not those of the training data; make \
                           both alike";
            return Err(DataError::format(tested, problem));
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

    /// Refuses what goes by the test rows where there are none.
    pub(crate) fn check_without_test(&self) -> Result<(), ConfigError> {
        control::check(self, false).map_err(|problem| problem.of(self))
    }
}
