//! A replica's numbers on their way to and from a checkpoint. Padding stays behind.

use std::collections::BTreeMap;
use std::iter;
use std::path::{Path, PathBuf};

use super::inference::wanted;
use super::{TrainError, Trainer};
use crate::backend::{Backend, Memory};
use crate::checkpoint::{
    Checkpoint, CheckpointError, Facts, Named, Piece, Retention, Wanted, WantedPiece, Writer,
    write_part,
};
use crate::models::Model;
use crate::optim::Segment;

impl<B: Backend, M: Model<B>> Trainer<B, M> {
    /// Saves the run; collective. `facts` are completed with step, world, scales and skipped steps.
    /// Rank 0 gets the checkpoint's folder.
    ///
    /// # Errors
    /// If a rank cannot write, or a parameter, moving statistic or optimizer state is not finite;
    /// earlier checkpoints are untouched then.
    pub fn save(
        &mut self,
        checkpoints: &Path,
        mut facts: Facts,
        retention: &Retention,
    ) -> Result<Option<PathBuf>, TrainError> {
        let (rank, world) = (self.reducer().rank(), self.reducer().world());
        facts.step = self.step;
        facts.world = world;
        facts.exponents = self.named_exponents();
        facts.loss_scale = self.loss_scaling.scale();
        facts.skipped_steps = self.loss_scaling.skipped();
        let parts = if self.options.sharded { world } else { 1 };
        let optimizers = (rank < parts).then(|| self.host_optimizers());
        let tensors = (rank == 0).then(|| self.host_tensors());
        self.backend.synchronize()?;
        if let Some(tensor) = self.first_diverged(tensors.as_ref(), optimizers.as_ref()) {
            let step = self.step;
            return Err(TrainError::Diverged { step, rank, tensor });
        }
        // Nobody writes before all have looked.
        self.barrier()?;
        let writer = match rank {
            0 => Some(Writer::begin(checkpoints, self.step)?),
            _ => None,
        };
        self.barrier()?;
        if let Some(host) = optimizers {
            write_part(checkpoints, self.step, (rank, parts), &self.pieces(&host))?;
        }
        self.barrier()?;
        let folder = match (writer, tensors) {
            (Some(writer), Some(host)) => {
                let named: Vec<_> = self.named(&host).collect();
                Some(writer.finish(&facts, &named, parts, retention)?)
            }
            _ => None,
        };
        self.barrier()?;
        Ok(folder)
    }

    /// Goes on from a checkpoint of any number of ranks, sharded or not; each rank reads it itself.
    ///
    /// # Errors
    /// If it is damaged or of another model or optimizer.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.restore_model(checkpoint)?;
        self.restore_optimizer(checkpoint)?;
        let facts = checkpoint.facts();
        self.loss_scaling
            .restore(facts.loss_scale, facts.skipped_steps);
        let exponents = &facts.exponents;
        let lookup = |old: &[i32], names: Vec<String>| -> Vec<i32> {
            let of = |(name, &old): (&String, &i32)| exponents.get(name).copied().unwrap_or(old);
            names.iter().zip(old).map(of).collect()
        };
        let gradient_names = self.gradient_scale_names();
        let state_names = self.state_scale_names();
        let scales = self.reduction.scales();
        let restored = lookup(scales.exponents(), gradient_names);
        scales.restore(&restored);
        let restored = lookup(self.moving.scales().exponents(), state_names);
        self.moving.scales().restore(&restored);
        self.step = checkpoint.step();
        Ok(())
    }

    /// Takes the parameters and the state of a checkpoint, and nothing else.
    ///
    /// # Errors
    /// If it is damaged or of another model.
    pub fn restore_model(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let mut host = self.host_tensors();
        checkpoint.load(&mut self.wanted(&mut host))?;
        self.set_tensors(&host);
        Ok(())
    }

    /// Parameters and state by name, to be filled in on the host.
    pub(super) fn wanted<'a>(&'a self, host: &'a mut HostTensors) -> Vec<Wanted<'a>> {
        let HostTensors {
            parameters,
            state,
            tables,
        } = host;
        let mut wanted = wanted(&self.layout, self.model.states(), parameters, state);
        for (table, values) in self.tables.iter().zip(tables) {
            let tensor = &mut wanted[table.spec.tensor];
            (tensor.shape, tensor.values) = (&table.shape, values);
        }
        wanted
    }

    pub(super) fn set_tensors(&mut self, host: &HostTensors) {
        // SAFETY: outside collectives the parameters are this rank's own.
        let parameters = unsafe { B::region_mut(&self.parameters, 0..self.parameters.len()) };
        self.backend.upload(&host.parameters, parameters);
        self.backend
            .upload(&host.state, B::view_mut(&mut self.state));
        for (table, values) in self.tables.iter_mut().zip(&host.tables) {
            let field = (table.record.values(), &values[..]);
            table.upload(&mut self.backend, iter::once(field));
        }
    }

    fn restore_optimizer(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let mut host = self.host_optimizers();
        let mut wanted = Vec::new();
        for (part, arrays) in self.optimizers.parts().iter().zip(&mut host.arrays) {
            for (state, values) in part.optimizer.state_names().iter().zip(arrays) {
                let (mut values, mut cut) = (values.as_mut_slice(), 0);
                for segment in &part.segments {
                    let (_, rest) = values.split_at_mut(segment.state.start - cut);
                    let (own, rest) = rest.split_at_mut(segment.state.len());
                    (values, cut) = (rest, segment.state.end);
                    let (tensor, start) = self.place(segment);
                    if self.layout.tensors()[segment.tensor].rows.is_none() {
                        wanted.push(WantedPiece {
                            tensor,
                            state,
                            start,
                            values: own,
                        });
                    }
                }
            }
        }
        for (table, arrays) in self.tables.iter().zip(&mut host.tables) {
            let names = self.optimizers.parts()[table.optimizer]
                .optimizer
                .state_names();
            for (state, values) in names.iter().zip(arrays) {
                wanted.push(WantedPiece {
                    tensor: &self.layout.tensors()[table.spec.tensor].name,
                    state,
                    start: 0,
                    values,
                });
            }
        }
        checkpoint.load_optimizer(&mut wanted)?;
        for (part, arrays) in self.optimizers.parts_mut().iter_mut().zip(&host.arrays) {
            for (index, values) in arrays.iter().enumerate() {
                self.backend.upload(values, part.optimizer.state_mut(index));
            }
        }
        for (table, arrays) in self.tables.iter_mut().zip(&host.tables) {
            let arrays = arrays.iter().map(Vec::as_slice);
            table.upload(&mut self.backend, table.record.states().zip(arrays));
        }
        Ok(())
    }

    /// What in these copies is the first that is not finite.
    fn first_diverged(
        &self,
        tensors: Option<&HostTensors>,
        optimizer: Option<&HostOptimizers>,
    ) -> Option<String> {
        if let Some(bad) = tensors.and_then(|host| self.first_bad(host)) {
            return Some(bad);
        }
        let mut pieces = optimizer.into_iter().flat_map(|host| self.pieces(host));
        let bad = pieces.find(|piece| is_bad(piece.values))?;
        Some(format!("the optimizer's {} of '{}'", bad.state, bad.tensor))
    }

    /// The first parameter or moving statistic that is not finite.
    pub(super) fn first_bad(&self, host: &HostTensors) -> Option<String> {
        let bad = self.named(host).find(|named| is_bad(named.values))?;
        Some(format!("'{}'", bad.name))
    }

    /// The optimizers' state by tensor and name, from a copy on the host.
    fn pieces<'a>(&'a self, host: &'a HostOptimizers) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        for (part, arrays) in self.optimizers.parts().iter().zip(&host.arrays) {
            for (state, values) in part.optimizer.state_names().iter().zip(arrays) {
                for segment in &part.segments {
                    if self.layout.tensors()[segment.tensor].rows.is_some() {
                        continue;
                    }
                    let (tensor, start) = self.place(segment);
                    let values = &values[segment.state.clone()];
                    pieces.push(Piece {
                        tensor,
                        state,
                        start,
                        values,
                    });
                }
            }
        }
        for (table, arrays) in self.tables.iter().zip(&host.tables) {
            let names = self.optimizers.parts()[table.optimizer]
                .optimizer
                .state_names();
            pieces.extend(names.iter().zip(arrays).map(|(state, values)| Piece {
                tensor: &self.layout.tensors()[table.spec.tensor].name,
                state,
                start: 0,
                values,
            }));
        }
        pieces
    }

    /// The tensor of a segment, and where the segment starts in it.
    fn place(&self, segment: &Segment) -> (&str, usize) {
        let tensor = &self.layout.tensors()[segment.tensor];
        (&tensor.name, segment.arena.start - tensor.offset)
    }

    fn host_optimizers(&mut self) -> HostOptimizers {
        let mut backend = self.backend.clone();
        let mut download = |state| {
            let mut values = vec![0.0; B::len(state)];
            backend.download(state, &mut values);
            values
        };
        let parts = self.optimizers.parts().iter();
        let arrays = parts
            .map(|part| {
                let count = part.optimizer.state_names().len();
                (0..count)
                    .map(|index| download(part.optimizer.state(index)))
                    .collect()
            })
            .collect();
        let tables = self.tables.iter();
        let tables = tables
            .map(|table| table.download(&mut backend, table.record.states()))
            .collect();
        HostOptimizers { arrays, tables }
    }

    pub(super) fn host_tensors(&mut self) -> HostTensors {
        let mut parameters = vec![0.0; self.parameters.len()];
        let view = self.parameters_view();
        self.backend.clone().download(view, &mut parameters);
        let mut state = vec![0.0; <B as Memory>::len(B::view(&self.state))];
        self.backend.download(B::view(&self.state), &mut state);
        let tables = self.tables.iter();
        let tables = tables
            .flat_map(|table| table.download(&mut self.backend, iter::once(table.record.values())))
            .collect();
        HostTensors {
            parameters,
            state,
            tables,
        }
    }

    /// Parameters and state by name, from a copy on the host.
    fn named<'a>(&'a self, host: &'a HostTensors) -> impl Iterator<Item = Named<'a>> {
        let tensors = self.layout.tensors().iter().enumerate();
        let parameters = tensors.map(|(index, tensor)| {
            let mut tables = self.tables.iter().zip(&host.tables);
            let table = tables.find(|(table, _)| table.spec.tensor == index);
            Named {
                name: &tensor.name,
                shape: table.map_or(&tensor.shape, |(table, _)| &table.shape),
                values: table.map_or(&host.parameters[tensor.range()], |(_, values)| values),
            }
        });
        let states = self.model.states().iter().map(|state| Named {
            name: &state.name,
            shape: &state.shape,
            values: &host.state[state.range.clone()],
        });
        parameters.chain(states)
    }

    /// All parameters and state on the host, by name with shape, in order.
    pub fn tensors(&mut self) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let host = self.host_tensors();
        let owned = |named: Named<'_>| {
            (
                named.name.to_owned(),
                named.shape.to_vec(),
                named.values.to_vec(),
            )
        };
        self.named(&host).map(owned).collect()
    }

    fn gradient_scale_names(&self) -> Vec<String> {
        self.layout
            .tensors()
            .iter()
            .map(|tensor| tensor.name.clone())
            .collect()
    }

    fn state_scale_names(&self) -> Vec<String> {
        self.model
            .states()
            .iter()
            .map(|state| state.name.clone())
            .collect()
    }

    fn named_exponents(&mut self) -> BTreeMap<String, i32> {
        let names = [self.gradient_scale_names(), self.state_scale_names()].concat();
        let gradients = self.reduction.scales().exponents().to_vec();
        let exponents = gradients
            .iter()
            .chain(self.moving.scales().exponents())
            .copied();
        names.into_iter().zip(exponents).collect()
    }

    fn barrier(&mut self) -> Result<(), TrainError> {
        Ok(self
            .reduction
            .reducer()
            .call(|communicator| communicator.barrier())?)
    }
}

/// A copy of the arenas, padding included.
pub(super) struct HostTensors {
    parameters: Vec<f32>,
    state: Vec<f32>,
    tables: Vec<Vec<f32>>,
}

/// A copy of the optimizers' state: of each its arrays, padding included, and of each table its own.
struct HostOptimizers {
    arrays: Vec<Vec<Vec<f32>>>,
    tables: Vec<Vec<Vec<f32>>>,
}

fn is_bad(values: &[f32]) -> bool {
    values.iter().any(|value| !value.is_finite())
}
