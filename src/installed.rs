//! Libraries that Python packages have installed.

use std::path::{Path, PathBuf};

/// Where `file` lies among the packages of the active environment, virtual or of conda.
pub(crate) fn in_python(file: &str) -> Vec<PathBuf> {
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter();
    let environments = environments.filter_map(std::env::var_os).map(PathBuf::from);
    environments
        .flat_map(|environment| within(&environment, file))
        .collect()
}

/// The same of one environment, which has one Python; several are sorted.
fn within(environment: &Path, file: &str) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(environment.join("lib"));
    let mut found: Vec<PathBuf> = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|folder| folder.path().join("site-packages").join(file))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_of_a_python_environment_is_found() {
        let environment = tempfile::tempdir().unwrap();
        let file = "nvidia/nccl/lib/libnccl.so.2";
        let library = |python: &str| {
            let packages = environment
                .path()
                .join("lib")
                .join(python)
                .join("site-packages");
            packages.join(file)
        };
        for python in ["python3.11", "python3.12"] {
            std::fs::create_dir_all(library(python).parent().unwrap()).unwrap();
            std::fs::write(library(python), "").unwrap();
        }
        let expected = ["python3.11", "python3.12"].map(library);
        assert_eq!(within(environment.path(), file), expected);
        assert!(within(environment.path(), "another").is_empty());
        assert!(within(Path::new("/nowhere"), file).is_empty());
    }
}
