//! What an evaluation says of a model's outputs, under TensorFlow's names and by its definitions.
//!
//! Of each row two numbers are kept, its loss and what is predicted; a rank computes those of its rows, all
//! ranks get all of them, and everything else is computed from them in the order of the rows. So
//! the number of ranks does not change a metric.

use std::collections::BTreeMap;

use super::LossReduction;

/// Thresholds at which areas under curves are measured.
const THRESHOLDS: usize = 200;

/// How rows are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Two classes from one logit.
    Binary,
    /// Classes from as many logits.
    Classes(usize),
    /// Numbers.
    Numbers(usize),
}

/// How a table is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judging {
    /// How its rows are.
    pub judge: Judge,
    /// Rows of a batch of the evaluation.
    pub batch: usize,
    /// What becomes of a batch's losses.
    pub reduction: LossReduction,
}

/// Numbers that are kept of a row: its loss, and what is predicted: the probability of the second of two
/// classes, whether the most probable of several is right (1) or not (0), the mean of numbers.
pub const JUDGED: usize = 2;

impl Judge {
    /// Outputs of a row.
    pub fn outputs(self) -> usize {
        match self {
            Self::Binary => 1,
            Self::Classes(outputs) | Self::Numbers(outputs) => outputs,
        }
    }

    /// What is kept of a row with these outputs (logits or numbers) and targets.
    pub fn row(self, outputs: &[f32], targets: &[f32]) -> [f64; JUDGED] {
        let outputs = || outputs.iter().map(|&output| f64::from(output));
        let target = f64::from(targets[0]);
        match self {
            Self::Binary => {
                let logit = outputs().next().unwrap_or_default();
                let loss = logit.max(0.0) - logit * target + (-logit.abs()).exp().ln_1p();
                [loss, f64::from(sigmoid(logit) as f32)]
            }
            Self::Classes(_) => {
                let largest = outputs().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = outputs().map(|logit| (logit - largest).exp()).sum();
                let logit = outputs().nth(target as usize).unwrap_or(f64::NAN);
                let loss = sum.ln() + largest - logit;
                let first = outputs().position(|logit| logit == largest);
                [loss, f64::from(first == Some(target as usize))]
            }
            Self::Numbers(count) => {
                let differences = outputs().zip(targets);
                let differences = differences.map(|(output, &target)| output - f64::from(target));
                let squares: f64 = differences.map(|difference| difference.powi(2)).sum();
                let sum: f64 = outputs().sum();
                [squares / count as f64, sum / count as f64]
            }
        }
    }
}

impl Judging {
    /// The metrics of rows by what was kept of each.
    pub fn metrics(
        self,
        rows: &[[f64; JUDGED]],
        targets: &[f32],
        weights: Option<&[f32]>,
    ) -> BTreeMap<String, f64> {
        let weight = |row: usize| weights.map_or(1.0, |weights| f64::from(weights[row]));
        let total: f64 = (0..rows.len()).map(weight).sum();
        let mean = |value: &dyn Fn(usize) -> f64| {
            let sum: f64 = (0..rows.len()).map(|row| weight(row) * value(row)).sum();
            if total == 0.0 { 0.0 } else { sum / total }
        };
        let width = targets.len() / rows.len().max(1);
        let label = |row: usize| {
            let targets = targets[row * width..(row + 1) * width].iter();
            let sum: f64 = targets.map(|&target| f64::from(target)).sum();
            sum / width as f64
        };
        let mut metrics = BTreeMap::new();
        let mut put = |name: &str, value: f64| metrics.insert(name.to_owned(), value);
        put("average_loss", mean(&|row| rows[row][0]));
        put("loss", batch_loss(rows, weight, self.batch, self.reduction));
        match self.judge {
            Judge::Classes(_) => {
                put("accuracy", mean(&|row| rows[row][1]));
            }
            Judge::Numbers(_) => {
                put("label/mean", mean(&label));
                put("prediction/mean", mean(&|row| rows[row][1]));
            }
            Judge::Binary => {
                let is_second = |row: usize| rows[row][1] > 0.5;
                let is_right = |row: usize| is_second(row) == (label(row) > 0.5);
                let frequency = mean(&label);
                put("accuracy", mean(&|row| f64::from(is_right(row))));
                put("accuracy_baseline", frequency.max(1.0 - frequency));
                put("label/mean", frequency);
                put("prediction/mean", mean(&|row| rows[row][1]));
                let found = mean(&|row| f64::from(is_second(row) && label(row) > 0.5));
                let second = mean(&|row| f64::from(is_second(row)));
                put("precision", ratio(found, second));
                put("recall", ratio(found, frequency));
                let curve = Curve::new(
                    rows.iter()
                        .enumerate()
                        .map(|(row, judged)| (judged[1], label(row) > 0.5, weight(row))),
                );
                put("auc", curve.roc());
                put("auc_precision_recall", curve.precision_recall());
            }
        }
        metrics
    }
}

/// `1 / (1 + e^-x)`.
fn sigmoid(x: f64) -> f64 {
    (1.0 + (-x).exp()).recip()
}

/// The plain mean over batches, the last of which may be short, of what `reduction` makes of each.
fn batch_loss(
    rows: &[[f64; JUDGED]],
    weight: impl Fn(usize) -> f64,
    batch: usize,
    reduction: LossReduction,
) -> f64 {
    let mut sum = 0.0;
    for (index, batch_rows) in rows.chunks(batch).enumerate() {
        let weight = |place: usize| weight(index * batch + place);
        let losses = batch_rows.iter().enumerate();
        let loss: f64 = losses.map(|(place, row)| weight(place) * row[0]).sum();
        let weights = (0..batch_rows.len()).map(weight).sum();
        sum += loss * reduction.gradient_scale(weights, batch_rows.len() as f64);
    }
    sum / rows.len().div_ceil(batch).max(1) as f64
}

/// 0 where there is nothing to divide by.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

/// Of each threshold, from the lowest to the highest, the weights of positive and of negative rows above it.
struct Curve {
    true_positives: Vec<f64>,
    false_positives: Vec<f64>,
    positives: f64,
    negatives: f64,
}

impl Curve {
    /// Of rows by their probability, whether they are positive, and their weight.
    fn new(rows: impl Iterator<Item = (f64, bool, f64)>) -> Self {
        let thresholds: Vec<f64> = (0..THRESHOLDS).map(threshold).collect();
        // What lies between threshold number i - 1 and number i.
        let mut between = vec![[0.0; 2]; THRESHOLDS + 1];
        for (probability, is_positive, weight) in rows {
            let above = thresholds.partition_point(|&threshold| threshold < probability);
            between[above][usize::from(is_positive)] += weight;
        }
        let mut sums = [0.0; 2];
        let mut curve = Self {
            true_positives: vec![0.0; THRESHOLDS],
            false_positives: vec![0.0; THRESHOLDS],
            positives: 0.0,
            negatives: 0.0,
        };
        for index in (0..=THRESHOLDS).rev() {
            if index < THRESHOLDS {
                curve.false_positives[index] = sums[0];
                curve.true_positives[index] = sums[1];
            }
            sums[0] += between[index][0];
            sums[1] += between[index][1];
        }
        [curve.negatives, curve.positives] = sums;
        curve
    }

    /// Area under the receiver's operating characteristic, by trapezoids.
    fn roc(&self) -> f64 {
        let x = |i: usize| ratio(self.false_positives[i], self.negatives);
        let y = |i: usize| ratio(self.true_positives[i], self.positives);
        let trapezoid = |i: usize| (x(i) - x(i + 1)) * (y(i) + y(i + 1)) / 2.0;
        (0..THRESHOLDS - 1).map(trapezoid).sum()
    }

    /// Area under precision over recall, interpolated between thresholds as true positives are (Davis and
    /// Goadrich, 2006).
    fn precision_recall(&self) -> f64 {
        let true_positives = &self.true_positives;
        let all = |i: usize| true_positives[i] + self.false_positives[i];
        let part = |i: usize| {
            let gained = true_positives[i] - true_positives[i + 1];
            let slope = ratio(gained, (all(i) - all(i + 1)).max(0.0));
            let intercept = true_positives[i + 1] - slope * all(i + 1);
            let growth = match all(i) > 0.0 && all(i + 1) > 0.0 {
                true => all(i) / all(i + 1),
                false => 1.0,
            };
            ratio(slope * (gained + intercept * growth.ln()), self.positives)
        };
        (0..THRESHOLDS - 1).map(part).sum()
    }
}

/// Threshold number `index`: evenly from 0 to 1, the ends moved out by 1e-7.
fn threshold(index: usize) -> f64 {
    match index {
        0 => -1e-7,
        index if index == THRESHOLDS - 1 => 1.0 + 1e-7,
        index => index as f64 / (THRESHOLDS - 1) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(rows: &[(f32, f32)], weights: Option<&[f32]>) -> BTreeMap<String, f64> {
        let judged: Vec<_> = rows
            .iter()
            .map(|&(logit, target)| Judge::Binary.row(&[logit], &[target]))
            .collect();
        let targets: Vec<_> = rows.iter().map(|row| row.1).collect();
        let judging = Judging {
            judge: Judge::Binary,
            batch: 3,
            reduction: LossReduction::Sum,
        };
        judging.metrics(&judged, &targets, weights)
    }

    #[test]
    fn a_perfect_order_has_an_area_of_one_and_a_constant_one_half() {
        let metrics = binary(&[(3.0, 1.0), (-2.0, 0.0), (2.0, 1.0), (-1.0, 0.0)], None);
        assert!((metrics["auc"] - 1.0).abs() < 1e-12);
        assert!((metrics["auc_precision_recall"] - 1.0).abs() < 1e-12);
        let metrics = binary(&[(-1.0, 1.0), (-1.0, 0.0), (-1.0, 0.0), (-1.0, 0.0)], None);
        assert!((metrics["auc"] - 0.5).abs() < 1e-12);
        assert!((metrics["auc_precision_recall"] - 0.25).abs() < 1e-12);
        assert_eq!((metrics["precision"], metrics["recall"]), (0.0, 0.0));
        assert_eq!(
            (metrics["accuracy"], metrics["accuracy_baseline"]),
            (0.75, 0.75)
        );
    }

    #[test]
    fn weights_count_in_everything_but_the_number_of_batches() {
        let rows = [(1.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (-1.0, 0.0)];
        let metrics = binary(&rows, Some(&[3.0, 1.0, 0.0, 4.0]));
        assert_eq!((metrics["accuracy"], metrics["label/mean"]), (0.875, 0.375));
        assert_eq!((metrics["precision"], metrics["recall"]), (0.75, 1.0));
        let (right, wrong) = ((-1f64).exp().ln_1p(), 1.0 + (-1f64).exp().ln_1p());
        let sum = 7.0 * right + wrong;
        assert!((metrics["average_loss"] - sum / 8.0).abs() < 1e-12);
        // Two batches, of three rows and of one.
        assert!((metrics["loss"] - sum / 2.0).abs() < 1e-12);
    }

    #[test]
    fn classes_and_numbers_are_judged_by_row() {
        let [loss, right] = Judge::Classes(3).row(&[1.0, 3.0, 3.0], &[1.0]);
        assert!((loss - (2.0 + (-2f64).exp()).ln()).abs() < 1e-12);
        assert_eq!(
            (right, Judge::Classes(3).row(&[1.0, 3.0, 3.0], &[2.0])[1]),
            (1.0, 0.0)
        );
        let judged = Judge::Numbers(2).row(&[1.0, 4.0], &[0.0, 2.0]);
        assert_eq!(judged, [2.5, 2.5]);
        let judging = Judging {
            judge: Judge::Numbers(2),
            batch: 1,
            reduction: LossReduction::Mean,
        };
        let metrics = judging.metrics(&[judged], &[0.0, 2.0], None);
        assert_eq!(
            (
                metrics["loss"],
                metrics["label/mean"],
                metrics["prediction/mean"]
            ),
            (2.5, 1.0, 2.5)
        );
    }
}
