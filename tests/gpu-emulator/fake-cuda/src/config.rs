//! Environment variables, read once.

use std::sync::OnceLock;

use crate::error::report;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StreamMode {
    /// Work runs as soon as it is enqueued, if its dependencies permit.
    Eager,
    /// Work runs when somebody waits for it, and what it waits for runs as late as possible.
    Deferred,
    /// Work runs when somebody waits for it, and what it waits for runs as early as possible.
    Ahead,
}

#[derive(Debug)]
pub(crate) struct Config {
    /// Physical numbers of the visible devices.
    pub visible: Vec<usize>,
    pub compute: (i32, i32),
    /// The version of CUDA that the driver is of, where it shall refuse PTX of a later one.
    pub version: Option<(i32, i32)>,
    /// Bytes of memory per device.
    pub memory: u64,
    pub streams: StreamMode,
    pub trace: bool,
    pub time: bool,
    pub launch_blocking: bool,
    pub require_real_gpu: bool,
}

fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

fn flag(name: &str) -> bool {
    var(name).is_some_and(|v| v != "0")
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    match var(name) {
        None => default,
        Some(text) => text.trim().parse().unwrap_or_else(|_| {
            report!("{name}={text} is not a number; using the default");
            default
        }),
    }
}

/// `CUDA_VISIBLE_DEVICES`: a list of numbers, cut at the first that does not exist.
fn visible_devices(count: usize) -> Vec<usize> {
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        Err(_) => (0..count).collect(),
        Ok(list) => (list.split(','))
            .map_while(|n| n.trim().parse().ok().filter(|&n: &usize| n < count))
            .collect(),
    }
}

impl Config {
    fn from_env() -> Config {
        let pair = |name| {
            let text = var(name)?;
            let (major, minor) = text.split_once('.')?;
            Some((major.trim().parse().ok()?, minor.trim().parse().ok()?))
        };
        Config {
            visible: visible_devices(number("FAKE_CUDA_DEVICES", 1)),
            compute: pair("FAKE_CUDA_CC").unwrap_or((9, 0)),
            version: pair("FAKE_CUDA_VERSION"),
            memory: number("FAKE_CUDA_MEMORY", 16 << 30),
            streams: match var("FAKE_CUDA_STREAMS").as_deref() {
                None | Some("eager") => StreamMode::Eager,
                Some("deferred") => StreamMode::Deferred,
                Some("ahead") => StreamMode::Ahead,
                Some(other) => {
                    report!("FAKE_CUDA_STREAMS={other} is unknown; using eager");
                    StreamMode::Eager
                }
            },
            trace: flag("FAKE_CUDA_TRACE"),
            time: flag("FAKE_CUDA_TIME"),
            launch_blocking: flag("CUDA_LAUNCH_BLOCKING"),
            require_real_gpu: flag("REQUIRE_REAL_GPU"),
        }
    }

    /// Largest shared memory of one block, with the opt-in attribute.
    pub(crate) fn max_shared(&self) -> i32 {
        match self.compute {
            (7, 0) => 98_304,
            (7, _) => 65_536,
            (8, 0) | (8, 7) => 166_912,
            (8, _) | (12, _) => 101_376,
            _ => 232_448,
        }
    }
}

pub(crate) fn config() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(Config::from_env)
}
