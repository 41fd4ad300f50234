//! What ranks do with their devices beside computing on them.

use super::{Reducer, TrainError};
use crate::backend::TimedMatmul;
use crate::backend::cpu::Cpu;
use crate::comm::CommError;

/// The devices that ranks compute on, as each of them sees its own.
pub(super) trait Devices<B> {
    /// Brings `backend` together with the devices of the other ranks, once all ranks are known to be set up
    /// alike. Collective.
    fn join(&self, backend: &B, reducer: &mut Reducer) -> Result<(), CommError>;

    /// Fixes what computes each product from the next one on, for all ranks alike: as `pinned` says, or by
    /// timing, on rank 0, what was asked for since the beginning. Collective.
    fn choose_products(
        &self,
        backend: &mut B,
        reducer: &mut Reducer,
        pinned: Option<&[TimedMatmul]>,
    ) -> Result<Vec<TimedMatmul>, TrainError>;
}

/// Threads of CPUs, which share memory and multiply in one way.
pub(super) struct Cpus;

impl Devices<Cpu> for Cpus {
    fn join(&self, _: &Cpu, _: &mut Reducer) -> Result<(), CommError> {
        Ok(())
    }

    fn choose_products(
        &self,
        _: &mut Cpu,
        _: &mut Reducer,
        _: Option<&[TimedMatmul]>,
    ) -> Result<Vec<TimedMatmul>, TrainError> {
        Ok(Vec::new())
    }
}
