//! How precisely products are taken.

use std::fmt;
use std::str::FromStr;

/// What the operands of matrix products and convolutions are rounded to. Everything is stored in `f32`,
/// and products are added in `f32`; all other kernels compute in `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// 8 bits of exponent and 10 of fraction, as tensor cores take `f32`.
    Tf32,
    /// 8 bits of exponent and 7 of fraction.
    Bf16,
    /// 5 bits of exponent and 10 of fraction: numbers from 6e-8 to 65504.
    F16,
}

impl Precision {
    /// Every one, from whole to least.
    pub const ALL: [Self; 4] = [Self::F32, Self::Tf32, Self::Bf16, Self::F16];

    /// As run files and the command line name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|precision| precision.name() == text)
            .ok_or_else(|| format!("unknown precision '{text}': choose f32, tf32, bf16 or f16"))
    }
}
