//! Which rows there are and what becomes of them, whatever their format.

use super::Folder;

/// Rows 0 to 7 with two features and a label.
fn table(keys: &str) -> Folder {
    let data =
        format!("format = \"csv\"\ntrain = \"a.csv\"\ntest = \"a.csv\"\nlabel = \"y\"\n{keys}");
    let rows: String = (0..8)
        .map(|row| format!("{row},{},{row}\n", 10 * row))
        .collect();
    Folder::regression(&data).with("a.csv", format!("x,z,y\n{rows}"))
}

#[test]
fn a_part_of_the_training_rows_is_trained_on() {
    for (keys, rows) in [
        ("skip = 3", &[3.0, 4.0, 5.0, 6.0, 7.0][..]),
        ("take = 2", &[0.0, 1.0]),
        ("skip = 6\ntake = 5", &[6.0, 7.0]),
        ("shard = { count = 3, index = 1 }", &[1.0, 4.0, 7.0]),
        (
            "skip = 1\ntake = 6\nshard = { count = 3, index = 2 }",
            &[3.0, 6.0],
        ),
    ] {
        let folder = table(keys);
        let table = folder.train().unwrap();
        assert_eq!(
            (table.rows, &table.targets[..]),
            (rows.len(), rows),
            "{keys}"
        );
        let features = rows.iter().flat_map(|row| [*row, 10.0 * row]);
        assert_eq!(table.features, features.collect::<Vec<_>>(), "{keys}");
        assert_eq!(folder.test().unwrap().rows, 8);
    }
    let weighed = table("weight = \"x\"\nfeatures = [\"z\"]\nskip = 5");
    assert_eq!(weighed.train().unwrap().weights.unwrap(), [5.0, 6.0, 7.0]);
    assert_eq!(
        table("skip = 8").train().unwrap_err(),
        "a.csv: skip, take and shard in [data] leave none of its 8 rows; take more of them"
    );
    assert_eq!(
        table("take = 0").train().unwrap_err(),
        "run.toml:6: data.take: must be at least 1"
    );
    assert_eq!(
        table("shard = { count = 2, index = 2 }")
            .train()
            .unwrap_err(),
        "run.toml:6: data.shard: index 2 of count 2: shards are 0 to below count"
    );
}

#[test]
fn features_are_normalised_wherever_they_are_read() {
    let folder = table("scale = 2\nmean = [4, 20]\nstd = [0.5]");
    let table_of = |x: f32| [(2.0 * x - 4.0) / 0.5, (20.0 * x - 20.0) / 0.5];
    let expected: Vec<_> = (0..8).flat_map(|row| table_of(row as f32)).collect();
    assert_eq!(folder.train().unwrap().features, expected);
    assert_eq!(folder.test().unwrap().features, expected);
    assert_eq!(folder.features("a.csv").unwrap().features, expected);
    assert_eq!(
        table("mean = [1, 2, 3]").train().unwrap_err(),
        "a.csv: [data] mean has 3 numbers, but rows of [2] have 2 channels; give one for each, or one for \
         all"
    );
    assert_eq!(
        table("std = [1, 0]").train().unwrap_err(),
        "run.toml:6: data.std: expected a number above 0 for each channel, or one for all"
    );
    assert_eq!(
        table("std = [2]\n[columns]\nx = \"numeric\"")
            .train()
            .unwrap_err(),
        "run.toml:1: data: [columns] says what is done to numbers, by normalize; leave mean and std out"
    );
    assert_eq!(
        table("mean = [inf]").train().unwrap_err(),
        "run.toml:6: data.mean: expected a finite number for each channel, or one for all"
    );
}

#[test]
fn what_no_step_can_be_made_of_is_refused() {
    // Of two rows each.
    assert_eq!(
        table("drop_remainder = true\ntake = 2")
            .train()
            .unwrap()
            .rows,
        2
    );
    assert_eq!(
        table("drop_remainder = true\ntake = 1")
            .train()
            .unwrap_err(),
        "a.csv: drop_remainder in [data] leaves no step of 1 rows, for global_batch is 2; make it smaller, \
         or leave drop_remainder out"
    );
    let augment = |lines: &str| {
        table(&format!(
            "{lines}\naugment = {{ crop = 1, flip = \"horizontal\" }}"
        ))
    };
    assert_eq!(
        augment("shape = [1, 2, 1]").train().unwrap().shape,
        [1, 2, 1].into()
    );
    assert_eq!(
        augment("").train().unwrap_err(),
        "a.csv: augment in [data] varies images, rows of [height, width, channels], but rows are [2]; say \
         their shape by shape in [data]"
    );
    assert_eq!(
        table("augment = {}").train().unwrap_err(),
        "run.toml:6: data.augment: says nothing to vary; give flip or crop, or leave it out"
    );
    assert_eq!(
        table("augment = { flip = \"diagonal\" }")
            .train()
            .unwrap_err(),
        "run.toml:6: data.augment.flip: unknown name 'diagonal'; known are horizontal, vertical"
    );
}
