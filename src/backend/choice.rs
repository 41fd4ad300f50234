//! What a user may choose about where kernels run.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Unexpected};
use serde::ser::{Serialize, Serializer};

use super::cuda::Cuda;

/// Which device a rank computes on; written `auto`, `cpu`, `cuda` or `cuda:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// GPUs where there are any, else the CPU.
    #[default]
    Auto,
    /// A thread of the CPU for each rank.
    Cpu,
    /// The GPU with this number for all ranks, or one after the other.
    Cuda(Option<usize>),
}

impl DeviceChoice {
    /// The choice with [`Self::Auto`] decided by what this machine has.
    pub fn resolve(self) -> Self {
        if self != Self::Auto {
            return self;
        }
        match Cuda::find() {
            Ok(()) => Self::Cuda(None),
            Err(error) => {
                // Nobody misses a GPU that is not there.
                if Cuda::count().is_ok_and(|count| count > 0) {
                    tracing::warn!("the CPU computes, although there is a GPU: {error}");
                }
                Self::Cpu
            }
        }
    }
}

/// How errors list the choices.
const CHOICES: &str = "auto, cpu, cuda or cuda:N";

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.strip_prefix("cuda:")?.parse().ok();
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(None)),
            _ => match number(text) {
                Some(number) => Ok(Self::Cuda(Some(number))),
                None => Err(format!("unknown device '{text}': choose {CHOICES}")),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(number)) => write!(f, "cuda:{number}"),
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &CHOICES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_read_as_they_are_written() {
        for text in ["auto", "cpu", "cuda", "cuda:0", "cuda:12"] {
            let choice: DeviceChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
            let json = serde_json::to_string(&choice).unwrap();
            assert_eq!(serde_json::from_str::<DeviceChoice>(&json).unwrap(), choice);
        }
        for text in ["gpu", "cuda:", "cuda:-1", "cuda1", ""] {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert_eq!(
                error,
                format!("unknown device '{text}': choose auto, cpu, cuda or cuda:N")
            );
        }
    }

    #[test]
    fn only_auto_is_decided_by_the_machine() {
        let has_gpu = Cuda::find().is_ok();
        let expected = if has_gpu {
            DeviceChoice::Cuda(None)
        } else {
            DeviceChoice::Cpu
        };
        assert_eq!(DeviceChoice::Auto.resolve(), expected);
        for choice in [DeviceChoice::Cpu, DeviceChoice::Cuda(Some(7))] {
            assert_eq!(choice.resolve(), choice);
        }
    }
}
