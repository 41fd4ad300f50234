//! A run from its configuration to its last checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::control::{Control, check_metrics};
use super::devices::{Cpus, Devices};
use super::events::Events;
use super::export::onnx;
use super::fit::{Fit, Log, Outcome};
use super::gpus::Gpus;
use super::resume::compare;
use super::{
    Bits, Console, Existing, Hooks, MetricsWriter, Progress, Record, Reducer, ResumeError,
    RunFolder, TrainError, Trainer, TrainerOptions, connect_mpi, connect_threads, run_rank,
    run_threads,
};
use crate::backend::cpu::Cpu;
use crate::backend::{Backend, BackendError, DeviceChoice, MatmulChoice, Precision};
use crate::checkpoint::{Checkpoint, Facts};
use crate::comm::launcher::Launcher;
use crate::comm::{Options, agree};
use crate::config::{Export, ExportFormat, RunConfig};
use crate::data::{Description, Split, Table};
use crate::layers::{Build, WorkingSets};
use crate::models::{BuildAnywhere, BuildOn, Model};
use crate::optim::{LossScale, OptimizerSpec};

/// What to train, and how it is begun.
#[derive(Debug, Clone)]
pub struct Session {
    /// The run.
    pub config: RunConfig,
    /// Its folder.
    pub folder: PathBuf,
    /// What is done about a run that is there already.
    pub begin: Begin,
    /// Where ranks come from.
    pub ranks: Ranks,
    /// How ranks talk to each other; by which collective, the configuration says.
    pub comm: Options,
    /// Where progress is shown.
    pub console: Console,
    /// What is trained and evaluated on in place of what the configuration names.
    pub tables: Option<Tables>,
    /// What a program is told on the way.
    pub hooks: Hooks,
}

/// Rows in memory, shared by the ranks of a process.
#[derive(Debug, Clone)]
pub struct Tables {
    /// What is trained on.
    pub train: Arc<Table>,
    /// What is evaluated on.
    pub test: Option<Arc<Table>>,
}

/// How a run is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Anew; an existing run is kept (an error) or replaced.
    New(Existing),
    /// From its newest whole checkpoint, which has to be of the same run.
    Resume(Bits),
}

/// Where ranks come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ranks {
    /// Threads of this process.
    Threads(usize),
    /// This process is one rank of an MPI job.
    Mpi(Option<Launcher>),
}

/// The data of a run, shared by the ranks of a process.
struct RunData {
    /// What is trained on.
    train: Arc<Table>,
    /// What is evaluated on.
    test: Option<Arc<Table>>,
    /// What is known of the rows that are trained on.
    description: Description,
    /// Sizes and hashes of both, which ranks compare.
    digests: [(&'static str, String); 2],
}

impl Session {
    /// A session that shows no progress, with ranks that talk as they do by default.
    pub fn new(config: RunConfig, folder: impl Into<PathBuf>, begin: Begin, ranks: Ranks) -> Self {
        Self {
            config,
            folder: folder.into(),
            begin,
            ranks,
            comm: Options::default(),
            console: Console::quiet(),
            tables: None,
            hooks: Hooks::default(),
        }
    }

    /// Calls `hook` for each record that was written to `metrics.jsonl`, on rank 0 and between steps: training
    /// waits for it, and a panic in it ends the run.
    pub fn on_record(mut self, hook: impl Fn(&Record) + Send + Sync + 'static) -> Self {
        self.hooks.on_record(hook);
        self
    }

    /// Calls `hook` with the folder of each checkpoint that is whole, as [`Self::on_record`] does. Later ones may
    /// remove it.
    pub fn on_checkpoint(mut self, hook: impl Fn(&Path) + Send + Sync + 'static) -> Self {
        self.hooks.on_checkpoint(hook);
        self
    }

    /// Trains on `train` and evaluates on `test`, instead of reading what `[data]` names: what a program has,
    /// or a [`Dataset`](crate::data::stream::Dataset) gives by `into_table`. The rows are taken as they are;
    /// of `[data]`, `shuffle`, `drop_remainder` and `augment` go for them, too. Where there are no files at all,
    /// its source is [`Source::Program`](crate::data::Source::Program). Every process of a run, and one that
    /// resumes it, has to hand over the same rows.
    pub fn with_data(mut self, train: Table, test: Option<Table>) -> Self {
        self.tables = Some(Tables {
            train: Arc::new(train),
            test: test.map(Arc::new),
        });
        self
    }

    /// Trains the run's model.
    ///
    /// # Errors
    /// Whatever stops a rank first.
    pub fn train(&self) -> Result<Outcome, TrainError> {
        match &self.tables {
            Some(tables) => self.config.check_with(tables.test.is_some())?,
            None => self.config.check()?,
        }
        let mut session = self.clone();
        session.config = session.config.resolve();
        session.train_resolved()
    }

    /// Trains on the device that the configuration says.
    fn train_resolved(&self) -> Result<Outcome, TrainError> {
        let train = &self.config.train;
        let is_cpu = !matches!(train.device, DeviceChoice::Cuda(_));
        if is_cpu && train.matmul == MatmulChoice::Cublaslt {
            return Err(TrainError::Backend(BackendError::NoDevice {
                problem: "cuBLASLt multiplies on GPUs, and ranks compute on CPUs".to_owned(),
                remedy: "use `--device cuda`, or `--matmul auto`",
            }));
        }
        let data = self.load()?;
        let collective = train.collective;
        let DeviceChoice::Cuda(number) = train.device else {
            let body = |reducer: Reducer| {
                let cpu = Cpu::new().with_precision(train.precision);
                self.rank(cpu, reducer, &data, &Cpus)
            };
            let options = self.comm.clone().with_collective(collective);
            return self.run(&options, body);
        };
        let gpus = Gpus::find(number, train)?;
        let body = |mut reducer: Reducer| {
            let local = reducer.call(|communicator| Ok(communicator.local_rank()))?;
            self.rank(gpus.open(local)?, reducer, &data, &gpus)
        };
        let options = Options {
            collective: collective.of_hosts(),
            overlap: Some(true),
            ..self.comm.clone()
        };
        self.run(&options, body)
    }

    /// Runs `body` on every rank of this process.
    fn run(
        &self,
        options: &Options,
        body: impl Fn(Reducer) -> Result<Outcome, TrainError> + Sync,
    ) -> Result<Outcome, TrainError> {
        match &self.ranks {
            Ranks::Threads(world) => {
                let connects = connect_threads(*world, options)?;
                let mut outcomes = run_threads(connects, body)?;
                Ok(outcomes.swap_remove(0))
            }
            Ranks::Mpi(launcher) => run_rank(connect_mpi(options, launcher.clone()), &body),
        }
    }

    fn load(&self) -> Result<RunData, TrainError> {
        let Tables { train, test } = match &self.tables {
            Some(tables) => {
                let Tables { train, test } = tables;
                self.config.check_tables(train, test.as_deref())?;
                tables.clone()
            }
            None => self.read()?,
        };
        let digest = |table: &Table| format!("{} rows, {}", table.rows, table.digest());
        let test_digest = test.as_deref().map_or_else(|| "none".to_owned(), digest);
        Ok(RunData {
            description: train.description(),
            digests: [
                ("training data", digest(&train)),
                ("test data", test_digest),
            ],
            train,
            test,
        })
    }

    /// Reads what the configuration names.
    fn read(&self) -> Result<Tables, TrainError> {
        let train = self.config.load_data(Split::Train, None)?;
        let test = match self.config.data.has_test() {
            true => {
                let trained = train.description();
                let test = self.config.load_data(Split::Test, Some(&trained))?;
                RunConfig::check_alike(&test, &trained, Path::new("test data"))?;
                Some(Arc::new(test))
            }
            false => None,
        };
        Ok(Tables {
            train: Arc::new(train),
            test,
        })
    }

    /// What one rank does.
    fn rank<B: Backend>(
        &self,
        mut backend: B,
        mut reducer: Reducer,
        data: &RunData,
        devices: &dyn Devices<B>,
    ) -> Result<Outcome, TrainError>
    where
        dyn BuildAnywhere: BuildOn<B>,
    {
        let train = &self.config.train;
        let optimizers = self.config.optimizers();
        // However large they are called, batches have no more rows than there are.
        let global_batch = train.global_batch.min(data.train.rows);
        let tested = data.test.as_ref().map_or(0, |test| test.rows);
        let micro_batch = train.micro_batch.min(data.train.rows.max(tested));
        let build = Build::new(&mut backend, micro_batch).with_working_sets(WorkingSets {
            // Evaluation looks up as many rows as a micro-batch has, however few are trained on.
            batch: global_batch.max(micro_batch),
            rows: optimizers.iter().map(OptimizerSpec::rows).collect(),
            is_sharded: train.sharded,
        });
        let model = self.config.model.build(build, &data.description)?;
        let fingerprint = self.fingerprint(&backend, &model, data);
        let fields = fingerprint.clone();
        reducer.call(move |communicator| Ok(agree(communicator, &fields)))??;
        devices.join(&backend, &mut reducer)?;
        let facts = self.facts(fingerprint, data);
        let (rank, world) = (reducer.rank(), reducer.world());
        let options = TrainerOptions {
            seed: train.seed,
            micro_batch,
            micro_batches: global_batch.div_ceil(micro_batch),
            reduce: train.reduce(),
            bucket_bytes: train.bucket_bytes(),
            sharded: train.sharded,
            loss_reduction: self.config.loss_reduction(),
            optimizers: self.config.optimizers(),
            clip: train.clip,
            loss_scale: (train.precision == Precision::F16).then(LossScale::default),
        };
        let micro_batches = options.micro_batches;
        let mut trainer = Trainer::new(backend, model, options, reducer)?;
        check_metrics(&self.config, &data.description)?;
        let exports_onnx = |export: &Export| export.formats.contains(&ExportFormat::Onnx);
        if rank == 0 && train.export.as_ref().is_some_and(exports_onnx) {
            // A model that cannot be exported is not to be found out after hours.
            onnx(&self.config, &data.description, &trainer.tensors())?;
        }
        if let (Begin::New(_), Some(warm)) = (self.begin, &train.warm_start) {
            trainer.warm_start(warm)?;
        }
        // Only what can be trained takes the place of a run that is there.
        let (folder, checkpoint) = self.open(trainer.reducer())?;
        if let (Begin::Resume(bits), Some(checkpoint)) = (self.begin, &checkpoint)
            && let Some(differences) = compare(checkpoint, &facts, bits)?
            && rank == 0
        {
            tracing::warn!("going on with other bits: {differences}");
        }
        if world > micro_batches && rank == 0 {
            tracing::warn!(
                "{world} ranks share {micro_batches} micro-batches, so some have nothing to do: make \
                 micro_batch smaller or global_batch larger"
            );
        }
        let log = match rank {
            0 => Some(self.log(&folder, checkpoint.as_ref(), data)?),
            _ => None,
        };
        let per_epoch = self.config.sampler(&data.train).steps_per_epoch();
        let mut fit = Fit {
            trainer,
            config: &self.config,
            train: Arc::clone(&data.train),
            test: data.test.clone(),
            folder: &folder,
            devices,
            facts,
            control: Control::new(train, per_epoch),
            log,
        };
        match (&checkpoint, self.begin, &train.warm_start) {
            (Some(checkpoint), _, _) => fit.restore(checkpoint)?,
            (None, Begin::Resume(_), Some(warm)) => fit.trainer.warm_start(warm)?,
            _ => {}
        }
        if let (0, Begin::Resume(_)) = (rank, self.begin) {
            // Whoever reads the run finds its data where they lie now.
            folder.write_config(&self.config.to_toml())?;
        }
        fit.run()
    }

    /// Rank 0 makes or finds the folder; the others read it once it is there.
    fn open(&self, reducer: &mut Reducer) -> Result<(RunFolder, Option<Checkpoint>), TrainError> {
        let rank = reducer.rank();
        let made = match (rank, self.begin) {
            (0, Begin::New(existing)) => Some(RunFolder::create(
                &self.folder,
                existing,
                &self.config.to_toml(),
            )?),
            (0, Begin::Resume(_)) => Some(RunFolder::resume(&self.folder)?),
            _ => None,
        };
        reducer.call(|communicator| communicator.barrier())?;
        let folder = match made {
            Some(folder) => folder,
            None => RunFolder::open(&self.folder)?,
        };
        let checkpoint = match self.begin {
            Begin::New(_) => None,
            Begin::Resume(_) => {
                let newest = Checkpoint::newest(&folder.checkpoints())?;
                if rank == 0 {
                    for skipped in &newest.skipped {
                        tracing::warn!("skipped: {}", skipped.error);
                    }
                    match &newest.checkpoint {
                        Some(found) => tracing::info!("resuming from {}", found.folder().display()),
                        None if newest.skipped.is_empty() => {
                            tracing::warn!("no checkpoint yet: starting at step 0");
                        }
                        None => {}
                    }
                }
                if newest.checkpoint.is_none() && !newest.skipped.is_empty() {
                    return Err(TrainError::Resume(ResumeError::AllDamaged {
                        folder: folder.checkpoints(),
                        count: newest.skipped.len(),
                    }));
                }
                newest.checkpoint
            }
        };
        // Ranks on several hosts may see another folder, or one of them a file that it cannot read.
        let resumed = checkpoint.as_ref().map_or_else(
            || "none".to_owned(),
            |checkpoint| {
                format!(
                    "step {}, {:?}",
                    checkpoint.step(),
                    checkpoint.manifest().files
                )
            },
        );
        let fields = [("checkpoint to go on from", resumed)];
        reducer.call(move |communicator| Ok(agree(communicator, &fields)))??;
        Ok((folder, checkpoint))
    }

    fn log(
        &self,
        folder: &RunFolder,
        checkpoint: Option<&Checkpoint>,
        data: &RunData,
    ) -> Result<Log, TrainError> {
        let step = checkpoint.map_or(0, Checkpoint::step);
        let metrics = match self.begin {
            Begin::Resume(_) => MetricsWriter::resume(&folder.metrics_path(), step)?,
            Begin::New(_) => MetricsWriter::append(&folder.metrics_path())?,
        };
        let per_epoch = self.config.sampler(&data.train).steps_per_epoch();
        let end = self.config.train.length.steps(per_epoch);
        let events = match self.config.train.tensorboard {
            true => Some(Events::begin(&folder.events(), step)?),
            false => None,
        };
        Ok(Log {
            metrics,
            events,
            progress: Progress::new(&self.console, step..end),
            hooks: self.hooks.clone(),
        })
    }

    /// What every checkpoint of the run notes.
    fn facts(&self, fingerprint: Vec<(&'static str, String)>, data: &RunData) -> Facts {
        Facts {
            seed: self.config.train.seed,
            config: self.config.to_toml(),
            data: data.description.clone(),
            fingerprint: fingerprint
                .into_iter()
                .map(|(name, text)| (name.to_owned(), text))
                .collect(),
            ..Facts::default()
        }
    }

    /// What has to be equal on all ranks for their sums to mean anything.
    fn fingerprint<B: Backend>(
        &self,
        backend: &B,
        model: &dyn Model<B>,
        data: &RunData,
    ) -> Vec<(&'static str, String)> {
        let [train, test] = data.digests.clone();
        vec![
            ("program version", env!("CARGO_PKG_VERSION").to_owned()),
            ("layout", model.layout().describe()),
            ("configuration", self.config.to_toml()),
            train,
            test,
            ("arithmetic", backend.fingerprint()),
        ]
    }
}
