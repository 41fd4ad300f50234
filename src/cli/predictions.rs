//! Predictions as CSV and as JSON.

use std::io::Write;

use serde_json::{Value, json};

use crate::data::Targets;

/// Writes a header and one line for each row of `outputs`, `[rows, width]`, in order: the most
/// probable class and the probability of each for classes, else the numbers.
///
/// One output for two classes is the probability of the second.
///
/// # Errors
/// If `out` cannot be written.
pub(super) fn write_predictions(
    out: impl Write,
    targets: &Targets,
    width: usize,
    outputs: &[f32],
) -> csv::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    match targets {
        Targets::Classes(classes) => {
            let mut header = vec!["class".to_owned()];
            header.extend(classes.iter().map(|class| format!("probability_{class}")));
            writer.write_record(&header)?;
            for row in outputs.chunks_exact(width) {
                let (probabilities, _) = probabilities(classes, row);
                let mut record = vec![classes[largest(&probabilities)].clone()];
                record.extend(probabilities.iter().map(f32::to_string));
                writer.write_record(&record)?;
            }
        }
        Targets::Numbers(1) => {
            writer.write_record(["prediction"])?;
            for value in outputs {
                writer.write_record([value.to_string()])?;
            }
        }
        Targets::Numbers(_) => {
            writer.write_record((0..width).map(|index| format!("prediction_{index}")))?;
            for row in outputs.chunks_exact(width) {
                writer.write_record(row.iter().map(f32::to_string))?;
            }
        }
    }
    writer.flush()?;
    Ok(())
}

/// Writes a JSON object for each row of `outputs`, `[rows, width]`, with the keys of TensorFlow's
/// Estimators; `logits` are those of the same rows, or none where the model does not keep them.
///
/// # Errors
/// If `out` cannot be written.
pub(super) fn write_json(
    mut out: impl Write,
    targets: &Targets,
    width: usize,
    (outputs, logits): (&[f32], &[f32]),
) -> std::io::Result<()> {
    for (row, output) in outputs.chunks_exact(width).enumerate() {
        let logits = logits.get(row * width..(row + 1) * width);
        let object = match targets {
            Targets::Numbers(_) => json!({ "predictions": output }),
            Targets::Classes(classes) => classified(classes, output, logits),
        };
        writeln!(out, "{object}")?;
    }
    Ok(())
}

fn classified(classes: &[String], output: &[f32], logits: Option<&[f32]>) -> Value {
    let (probabilities, is_binary) = probabilities(classes, output);
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

/// The probability of each class, and whether the output is that of the second of two.
fn probabilities(classes: &[String], output: &[f32]) -> (Vec<f32>, bool) {
    match output {
        [second] if classes.len() == 2 => (vec![1.0 - second, *second], true),
        output => (output.to_vec(), false),
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

    fn written(targets: &Targets, width: usize, outputs: &[f32]) -> String {
        let mut out = Vec::new();
        write_predictions(&mut out, targets, width, outputs).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn classes(names: &[&str]) -> Targets {
        Targets::Classes(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn classes_come_with_a_probability_each() {
        let outputs = [0.25, 0.25, 0.5, 0.5, 0.5, 0.0];
        let expected = "\
class,probability_a,\"probability_b,c\",probability_d
d,0.25,0.25,0.5
a,0.5,0.5,0
";
        assert_eq!(written(&classes(&["a", "b,c", "d"]), 3, &outputs), expected);
    }

    #[test]
    fn one_output_for_two_classes_is_the_probability_of_the_second() {
        let expected = "class,probability_no,probability_yes\nyes,0.25,0.75\nno,1,0\n";
        assert_eq!(written(&classes(&["no", "yes"]), 1, &[0.75, 0.0]), expected);
    }

    #[test]
    fn an_object_for_each_row_has_the_keys_of_estimators() {
        let written = |targets: &Targets, outputs: &[f32], logits: &[f32]| {
            let mut out = Vec::new();
            write_json(&mut out, targets, 1, (outputs, logits)).unwrap();
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
            written(&Targets::Numbers(1), 1, &[0.1, -2.0]),
            "prediction\n0.1\n-2\n"
        );
        let expected = "prediction_0,prediction_1\n1,2\n3,4\n";
        assert_eq!(
            written(&Targets::Numbers(2), 2, &[1.0, 2.0, 3.0, 4.0]),
            expected
        );
    }
}
