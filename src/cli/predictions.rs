//! Predictions as CSV and as JSON.

use std::io::Write;

use serde_json::{Value, json};

use crate::data::Targets;

/// What a model says of rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Predictions<'a> {
    /// Numbers of a row.
    pub(super) width: usize,
    /// `[rows, width]`; one output for two classes is the probability of the second.
    pub(super) outputs: &'a [f32],
    /// The same before they became probabilities, or none where the model does not keep them.
    pub(super) logits: &'a [f32],
}

impl<'a> Predictions<'a> {
    /// Whether the output is the probability of the second of two classes.
    fn is_binary(self, classes: &[String]) -> bool {
        self.width == 1 && classes.len() == 2
    }

    /// Outputs and logits of each row.
    fn rows(self) -> impl Iterator<Item = (&'a [f32], Option<&'a [f32]>)> {
        let Self {
            width,
            outputs,
            logits,
        } = self;
        let rows = outputs.chunks_exact(width).enumerate();
        rows.map(move |(row, output)| (output, logits.get(row * width..(row + 1) * width)))
    }
}

/// Writes a header and one line for each row, under the keys of TensorFlow's Estimators, with what a number
/// belongs to behind it where a key has several: the most probable class, its number, the probability of
/// each, `logistic` and logits, or the numbers.
///
/// # Errors
/// If `out` cannot be written.
pub(super) fn write_csv(
    out: impl Write,
    targets: &Targets,
    predictions: Predictions<'_>,
) -> csv::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    let width = predictions.width;
    let several = |key: &str, of: &[String]| match of {
        [_] => vec![key.to_owned()],
        of => of.iter().map(|name| format!("{key}_{name}")).collect(),
    };
    let numbered: Vec<_> = (0..width).map(|index| index.to_string()).collect();
    match targets {
        Targets::Classes(classes) => {
            let is_binary = predictions.is_binary(classes);
            let of = if is_binary { &numbered } else { classes };
            let mut header = vec!["classes".to_owned(), "class_ids".to_owned()];
            header.extend(classes.iter().map(|class| format!("probabilities_{class}")));
            if !predictions.logits.is_empty() {
                header.extend(is_binary.then(|| "logistic".to_owned()));
                header.extend(several("logits", of));
            }
            writer.write_record(&header)?;
            for (output, logits) in predictions.rows() {
                let probabilities = probabilities(output, is_binary);
                let class = largest(&probabilities);
                let mut record = vec![classes[class].clone(), class.to_string()];
                record.extend(probabilities.iter().map(f32::to_string));
                if let Some(logits) = logits {
                    let logistic = output.iter().filter(|_| is_binary);
                    record.extend(logistic.chain(logits).map(f32::to_string));
                }
                writer.write_record(&record)?;
            }
        }
        Targets::Numbers(_) => {
            writer.write_record(several("predictions", &numbered))?;
            for (output, _) in predictions.rows() {
                writer.write_record(output.iter().map(f32::to_string))?;
            }
        }
    }
    writer.flush()?;
    Ok(())
}

/// Writes a JSON object for each row with the keys of TensorFlow's Estimators.
///
/// # Errors
/// If `out` cannot be written.
pub(super) fn write_json(
    mut out: impl Write,
    targets: &Targets,
    predictions: Predictions<'_>,
) -> std::io::Result<()> {
    for (output, logits) in predictions.rows() {
        let object = match targets {
            Targets::Numbers(_) => json!({ "predictions": output }),
            Targets::Classes(classes) => {
                classified(classes, output, logits, predictions.is_binary(classes))
            }
        };
        writeln!(out, "{object}")?;
    }
    Ok(())
}

fn classified(
    classes: &[String],
    output: &[f32],
    logits: Option<&[f32]>,
    is_binary: bool,
) -> Value {
    let probabilities = probabilities(output, is_binary);
    let class = largest(&probabilities);
    let mut object = json!({
        "probabilities": probabilities,
        "class_ids": [class],
        "classes": [classes[class]],
        "all_class_ids": (0..classes.len()).collect::<Vec<_>>(),
        "all_classes": classes,
    });
    if let Some(logits) = logits {
        object["logits"] = json!(logits);
        if is_binary {
            object["logistic"] = json!(output);
        }
    }
    object
}

/// The probability of each class.
fn probabilities(output: &[f32], is_binary: bool) -> Vec<f32> {
    match output {
        [second] if is_binary => vec![1.0 - second, *second],
        output => output.to_vec(),
    }
}

/// Index of the largest number, the first of equals.
fn largest(numbers: &[f32]) -> usize {
    let mut best = 0;
    for (index, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(targets: &Targets, width: usize, outputs: &[f32], logits: &[f32]) -> String {
        let mut out = Vec::new();
        let predictions = Predictions {
            width,
            outputs,
            logits,
        };
        write_csv(&mut out, targets, predictions).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn classes(names: &[&str]) -> Targets {
        Targets::Classes(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn classes_come_with_a_probability_each() {
        let outputs = [0.25, 0.25, 0.5, 0.5, 0.5, 0.0];
        let names = classes(&["a", "b,c", "d"]);
        let expected = "\
classes,class_ids,probabilities_a,\"probabilities_b,c\",probabilities_d
d,2,0.25,0.25,0.5
a,0,0.5,0.5,0
";
        assert_eq!(written(&names, 3, &outputs, &[]), expected);
        let expected = "\
classes,class_ids,probabilities_a,\"probabilities_b,c\",probabilities_d,logits_a,\"logits_b,c\",logits_d
d,2,0.25,0.25,0.5,1,2,3
";
        let logits = [1.0, 2.0, 3.0];
        assert_eq!(written(&names, 3, &outputs[..3], &logits), expected);
    }

    #[test]
    fn one_output_for_two_classes_is_the_probability_of_the_second() {
        let names = classes(&["no", "yes"]);
        let expected =
            "classes,class_ids,probabilities_no,probabilities_yes\nyes,1,0.25,0.75\nno,0,1,0\n";
        assert_eq!(written(&names, 1, &[0.75, 0.0], &[]), expected);
        let expected = "\
classes,class_ids,probabilities_no,probabilities_yes,logistic,logits
yes,1,0.25,0.75,0.75,1.5
";
        assert_eq!(written(&names, 1, &[0.75], &[1.5]), expected);
    }

    #[test]
    fn an_object_for_each_row_has_the_keys_of_estimators() {
        let written = |targets: &Targets, outputs: &[f32], logits: &[f32]| {
            let mut out = Vec::new();
            let predictions = Predictions {
                width: 1,
                outputs,
                logits,
            };
            write_json(&mut out, targets, predictions).unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = written(&classes(&["no", "yes"]), &[0.75, 0.25], &[1.5, -1.5]);
        let rows: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let expected = json!({
            "logits": [1.5], "logistic": [0.75], "probabilities": [0.25, 0.75], "class_ids": [1],
            "classes": ["yes"], "all_class_ids": [0, 1], "all_classes": ["no", "yes"],
        });
        assert_eq!((rows.len(), &rows[0]), (2, &expected));
        assert_eq!(rows[1]["classes"], json!(["no"]));
        assert_eq!(
            written(&Targets::Numbers(1), &[2.5], &[]),
            "{\"predictions\":[2.5]}\n"
        );
    }

    #[test]
    fn numbers_come_as_they_are() {
        assert_eq!(
            written(&Targets::Numbers(1), 1, &[0.1, -2.0], &[]),
            "predictions\n0.1\n-2\n"
        );
        let expected = "predictions_0,predictions_1\n1,2\n3,4\n";
        assert_eq!(
            written(&Targets::Numbers(2), 2, &[1.0, 2.0, 3.0, 4.0], &[]),
            expected
        );
    }
}
