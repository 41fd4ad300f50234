//! Who started this process: several copies that know nothing of each other must never run.

/// A program that starts one process per rank, as seen in the environment it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// What it is called.
    pub name: &'static str,
    /// The variable that gave it away.
    pub variable: &'static str,
    /// Number of ranks it started, where it says.
    pub world: Option<usize>,
}

/// Why a start is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// Several processes, and no MPI to join them.
    #[error(
        "started as one of {count} ranks by {name} ({variable} is set), but this program was built \
         without MPI and would run unrelated copies; build it with `cargo build --release \
         --features mpi`, or start it directly with `--ranks N`"
    )]
    WithoutMpi {
        /// How many, in words.
        count: String,
        /// The launcher.
        name: &'static str,
        /// Its variable.
        variable: &'static str,
    },
    /// Several processes for what one does.
    #[error(
        "started as one of {count} ranks by {name} ({variable} is set), but this command \
         does not share its work with other processes, and every rank would do the same; start it \
         once, without the launcher"
    )]
    Copies {
        /// How many, in words.
        count: String,
        /// The launcher.
        name: &'static str,
        /// Its variable.
        variable: &'static str,
    },
    /// The launcher and the MPI library do not belong together.
    #[error(
        "{name} started {started} ranks ({variable}), but MPI counts {counted}; start with the \
         mpirun of the MPI that this program was built with"
    )]
    OtherMpi {
        /// The launcher.
        name: &'static str,
        /// Its variable.
        variable: &'static str,
        /// Ranks started.
        started: usize,
        /// Ranks of MPI.
        counted: usize,
    },
}

/// What Slurm sets for a whole allocation, its batch script included.
const BATCH: &str = "SLURM_NTASKS";

/// Variables that hold the number of ranks, most telling first.
const COUNTS: [(&str, &str); 6] = [
    ("OMPI_COMM_WORLD_SIZE", "OpenMPI's mpirun"),
    ("PMI_SIZE", "MPICH's mpirun"),
    ("MV2_COMM_WORLD_SIZE", "MVAPICH's mpirun"),
    ("SLURM_STEP_NUM_TASKS", "srun"),
    (BATCH, "Slurm"),
    ("WORLD_SIZE", "a launcher of ranks"),
];

/// Variables that only show that there is a launcher.
const SIGNS: [(&str, &str); 3] = [
    ("PMIX_RANK", "a PMIx launcher"),
    ("PMI_RANK", "a PMI launcher"),
    ("RANK", "a launcher"),
];

/// The launcher that started this process, by its environment.
pub fn here() -> Option<Launcher> {
    detect(|name| std::env::var(name).ok())
}

/// Finds the launcher in the environment variables that `variables` looks up.
///
/// ```
/// let variables = |name: &str| (name == "PMI_SIZE").then(|| "4".to_owned());
/// let launcher = ringstep::comm::launcher::detect(variables).unwrap();
/// assert_eq!(launcher.world, Some(4));
/// assert!(launcher.refuse_without_mpi().is_err());
/// ```
pub fn detect(variables: impl Fn(&str) -> Option<String>) -> Option<Launcher> {
    let count = |&(variable, name): &(&'static str, &'static str)| {
        let world = variables(variable)?.trim().parse().ok()?;
        Some(Launcher {
            name,
            variable,
            world: Some(world),
        })
    };
    let sign = |&(variable, name): &(&'static str, &'static str)| {
        variables(variable)?.trim().parse::<usize>().ok()?;
        Some(Launcher {
            name,
            variable,
            world: None,
        })
    };
    COUNTS
        .iter()
        .find_map(count)
        .or_else(|| SIGNS.iter().find_map(sign))
}

impl Launcher {
    /// For a program without MPI.
    ///
    /// # Errors
    /// Unless this is the only rank.
    pub fn refuse_without_mpi(&self) -> Result<(), LaunchError> {
        let (name, variable) = (self.name, self.variable);
        self.others().map_or(Ok(()), |count| {
            Err(LaunchError::WithoutMpi {
                count,
                name,
                variable,
            })
        })
    }

    /// For a command that does not share its work with other processes.
    ///
    /// # Errors
    /// Unless this is the only rank. A batch script of Slurm is one process in an allocation for
    /// many; its `srun` sets another variable.
    pub fn refuse_copies(&self) -> Result<(), LaunchError> {
        let (name, variable) = (self.name, self.variable);
        match self.others() {
            Some(count) if variable != BATCH => Err(LaunchError::Copies {
                count,
                name,
                variable,
            }),
            _ => Ok(()),
        }
    }

    /// How many ranks there are, in words; `None` where this is the only one.
    fn others(&self) -> Option<String> {
        match self.world {
            Some(1) => None,
            Some(world) => Some(world.to_string()),
            None => Some("several".to_owned()),
        }
    }

    /// For a program whose MPI counts `counted` ranks.
    ///
    /// # Errors
    /// If the launcher started another number.
    pub fn check(&self, counted: usize) -> Result<(), LaunchError> {
        match self.world {
            Some(started) if started != counted => {
                let (name, variable) = (self.name, self.variable);
                Err(LaunchError::OtherMpi {
                    name,
                    variable,
                    started,
                    counted,
                })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[(&str, &str)]) -> Option<Launcher> {
        detect(|name| {
            set.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("RANK", "high"), ("WORLD_SIZE", "")]), None);
        for (variable, world) in [
            ("OMPI_COMM_WORLD_SIZE", Some(3)),
            ("PMI_SIZE", Some(3)),
            ("SLURM_NTASKS", Some(3)),
            ("WORLD_SIZE", Some(3)),
            ("PMIX_RANK", None),
            ("RANK", None),
        ] {
            let launcher = with(&[(variable, "3")]).unwrap();
            assert_eq!((launcher.variable, launcher.world), (variable, world));
        }
        // mpirun inside a Slurm allocation: what started the process counts.
        let launcher = with(&[("SLURM_NTASKS", "8"), ("OMPI_COMM_WORLD_SIZE", "2")]).unwrap();
        assert_eq!(launcher.world, Some(2));
    }

    #[test]
    fn copies_without_mpi_are_refused_with_the_remedy() {
        let launcher = with(&[("OMPI_COMM_WORLD_SIZE", "4")]).unwrap();
        let error = launcher.refuse_without_mpi().unwrap_err().to_string();
        assert!(error.contains("one of 4 ranks"), "{error}");
        assert!(
            error.contains("cargo build --release --features mpi"),
            "{error}"
        );
        assert!(
            with(&[("PMIX_RANK", "0")])
                .unwrap()
                .refuse_without_mpi()
                .is_err()
        );
        assert_eq!(
            with(&[("PMI_SIZE", "1")]).unwrap().refuse_without_mpi(),
            Ok(())
        );
    }

    #[test]
    fn the_launcher_of_another_mpi_is_refused() {
        let launcher = with(&[("PMI_SIZE", "4")]).unwrap();
        assert_eq!(launcher.check(4), Ok(()));
        let error = launcher.check(1).unwrap_err().to_string();
        assert!(
            error.contains("started 4 ranks (PMI_SIZE), but MPI counts 1"),
            "{error}"
        );
    }
}
