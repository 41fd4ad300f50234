//! The factor of losses under `f16`.

/// A power of two that losses are multiplied by, so that gradients lie where `f16` has numbers: below
/// 6e-8 it has none, and gradients often are. The update divides by it again, so that apart from what
/// `f16` can hold it changes no bit.
///
/// It follows the gradients as in Micikevicius et al., "Mixed precision training" (2018), and as
/// PyTorch's `GradScaler` does: a step whose gradients come out infinite is not applied and halves it,
/// and 2000 steps in a row without one double it.
///
/// ```
/// use ringstep::optim::LossScale;
///
/// let mut scale = LossScale::default();
/// assert_eq!(scale.factor(), 32768.0);
/// scale.overflowed();
/// assert_eq!(scale.factor(), 16384.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LossScale {
    exponent: i32,
    finite_steps: u32,
}

/// Logarithm of the first factor.
const FIRST: i32 = 15;

/// Logarithm of the largest factor: where all gradients are zero nothing else would end its growth.
const LARGEST: i32 = 40;

/// Finite steps in a row that double the factor.
const INTERVAL: u32 = 2000;

impl Default for LossScale {
    fn default() -> Self {
        Self {
            exponent: FIRST,
            finite_steps: 0,
        }
    }
}

impl LossScale {
    /// What losses are multiplied by: a power of two from 1 to 2^40.
    pub fn factor(&self) -> f64 {
        f64::from(self.exponent).exp2()
    }

    /// A step was applied.
    pub fn applied(&mut self) {
        self.finite_steps += 1;
        if self.finite_steps == INTERVAL {
            self.exponent = LARGEST.min(self.exponent + 1);
            self.finite_steps = 0;
        }
    }

    /// A gradient came out infinite or as no number, and the step was not applied.
    pub fn overflowed(&mut self) {
        self.exponent = 0.max(self.exponent - 1);
        self.finite_steps = 0;
    }

    /// Whether the factor is 1, so that what is not finite is not its doing.
    pub fn is_one(&self) -> bool {
        self.exponent == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(scale: &mut LossScale, steps: u32) {
        (0..steps).for_each(|_| scale.applied());
    }

    #[test]
    fn two_thousand_finite_steps_in_a_row_double_it() {
        let mut scale = LossScale::default();
        apply(&mut scale, 1999);
        assert_eq!(scale.factor(), 32768.0);
        scale.applied();
        assert_eq!(scale.factor(), 65536.0);
        apply(&mut scale, 1999);
        scale.overflowed();
        apply(&mut scale, 1999);
        assert_eq!(scale.factor(), 32768.0, "they count from the overflow on");
        scale.applied();
        assert_eq!(scale.factor(), 65536.0);
    }

    #[test]
    fn it_is_halved_down_to_one_and_doubled_up_to_a_bound() {
        let mut scale = LossScale::default();
        for exponent in (0..15).rev() {
            assert!(!scale.is_one());
            scale.overflowed();
            assert_eq!(scale.factor(), 2f64.powi(exponent));
        }
        assert!(scale.is_one());
        scale.overflowed();
        assert_eq!(scale.factor(), 1.0);
        apply(&mut scale, 50 * INTERVAL);
        assert_eq!(scale.factor(), 2f64.powi(40));
    }
}
