//! Whether there is memory for what is built.

use super::Build;
use crate::backend::Backend;
use crate::layers::{LayerError, Shape};
use crate::params::elements;

/// Bytes below which nobody asks how much memory is free.
const WORTH_ASKING: u64 = 64 << 20;

/// More than any machine has, and so few that the numbers in them can be multiplied by those of rows, ranks and
/// states of an optimizer.
const MOST_BYTES: u64 = 1 << 44;

impl<B: Backend> Build<'_, B> {
    /// Refuses the layer being built where the parameters with it, or its output for a micro-batch, are more than
    /// there is memory for: by its name, before those are allocated or their numbers multiplied any further.
    ///
    /// # Errors
    /// With what is needed and what is there.
    pub fn check_room(&self, output: &Shape) -> Result<(), LayerError> {
        let tables = self.tables.iter();
        let tables = tables.map(|table| elements(&[table.rows, table.width]));
        let parameters = tables.fold(self.layout.end(), usize::saturating_add);
        let rows = self.max_rows.saturating_mul(output.elements());
        let bytes = |elements: usize| elements.saturating_mul(size_of::<f32>()) as u64;
        if bytes(parameters.max(rows)) < WORTH_ASKING {
            return Ok(());
        }
        let free = self.is_allocated.then(|| self.backend.room()).flatten();
        let room = free.unwrap_or(MOST_BYTES).min(MOST_BYTES);
        let mib = |bytes: u64| bytes >> 20;
        let problem = if bytes(parameters) > room {
            format!(
                "with it the model has {parameters} parameters, which take {} MiB; {} MiB are free: make it \
                 smaller",
                mib(bytes(parameters)),
                mib(room)
            )
        } else if bytes(rows) > room {
            format!(
                "its output for the {} rows of a micro-batch, {output} each, takes {} MiB; {} MiB are free: make \
                 micro_batch or the layer smaller",
                self.max_rows,
                mib(bytes(rows)),
                mib(room)
            )
        } else {
            return Ok(());
        };
        Err(self.argument_error(problem))
    }
}
