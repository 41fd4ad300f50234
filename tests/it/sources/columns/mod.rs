//! Feature columns: the same rows from every format, what is found in the training split and applied to
//! others, TensorFlow's ids.

mod mistakes;

use ringstep::columns::{ColumnSpec, Columns, Normalize, Selection, Values};
use ringstep::data::{Split, Table, load};
use serde_json::Value;

use super::Folder;
use super::parquet::Values::{Double, Optional, Text};
use super::tfrecord::List::{Floats, Integers, Texts};
use super::tfrecord::{example, record};

impl Folder {
    /// The table of `columns`, all of them; with a test split what was found in the training split is
    /// applied to it.
    fn encoded(&self, columns: &str, split: Split) -> Result<Table, String> {
        let config = self.config()?;
        let columns: Columns = toml::from_str(columns).unwrap();
        // Written with every default, it is the same again.
        let written = toml::to_string(&columns).unwrap();
        assert_eq!(toml::from_str::<Columns>(&written).unwrap(), columns);
        let used: Vec<_> = columns.names().map(str::to_owned).collect();
        let selection = Selection {
            columns: &columns,
            used: &used,
        };
        let read = |split, trained| {
            load(&config.data, config.task(), Some(selection), split, trained)
                .map_err(|error| self.shown(error))
        };
        let trained = read(Split::Train, None)?;
        match split {
            Split::Train => Ok(trained),
            Split::Test => read(Split::Test, Some(&trained.description())),
        }
    }
}

/// A run of numbers in `format`, whose rows lie in `train`.
fn folder(format: &str, train: impl AsRef<[u8]>) -> Folder {
    let data = format!("format = \"{format}\"\ntrain = \"train\"\nlabel = \"y\"\n");
    Folder::regression(&data).with("train", train)
}

/// The slots of `column` in every row.
fn slots(table: &Table, column: &str) -> Vec<f32> {
    let encoding = table.encoding.as_ref().unwrap();
    let slots = &encoding.find(column).unwrap().slots;
    let rows = table.features.chunks_exact(encoding.width());
    rows.flat_map(|row| row[slots.clone()].to_vec()).collect()
}

#[test]
fn what_training_rows_had_may_be_missing_in_all_others() {
    let data = "format = \"jsonl\"\ntrain = \"train\"\ntest = \"test\"\nlabel = \"y\"\n";
    let folder = Folder::regression(data)
        .with(
            "train",
            "{\"a\":1,\"h\":5,\"y\":0}\n{\"a\":2,\"h\":7,\"y\":1}\n",
        )
        .with("test", "{\"a\":3,\"y\":0}\n");
    let columns = "a = \"numeric\"\nh = { kind = \"numeric\", default = 40 }\n";
    let table = folder.encoded(columns, Split::Test).unwrap();
    assert_eq!(table.features, [3.0, 40.0]);
    let misspelt = "a = \"numeric\"\nhh = { kind = \"numeric\", default = 40 }\n";
    let error = folder.encoded(misspelt, Split::Train).unwrap_err();
    assert!(error.contains("no feature column 'hh'"), "{error}");
}

#[test]
fn a_text_stands_for_a_missing_value_where_the_run_file_says_so() {
    let data = "format = \"csv\"\ntrain = \"train\"\nlabel = \"y\"\n";
    let columns = "a = { kind = \"numeric\", default = 40 }\nb = \"vocabulary\"";
    let table = |na_value: &str| {
        Folder::regression(&format!("{data}{na_value}"))
            .with("train", "a,b,y\nNA, NA,0\n7,x,1\n")
            .encoded(columns, Split::Train)
    };
    let read = table("na_value = \"NA\"").unwrap();
    assert_eq!(slots(&read, "a"), [40.0, 7.0]);
    // No id, and a vocabulary of one word.
    assert_eq!(slots(&read, "b"), [-1.0, 0.0]);
    assert_eq!(
        table("na_value = \" NA\"").unwrap_err(),
        "run.toml:5: data.na_value: expected a text without space around it; an empty field is missing anyway"
    );
    assert_eq!(
        table("").unwrap_err(),
        "train:2: column 'a': expected a number, found 'NA'; where that is a missing value, leave the \
         row out, or set na_value = \"NA\" in [data] and give the column a default in [columns]; \
         mend the row, or make it a vocabulary or hash column"
    );
}

#[test]
fn numbers_too_near_for_a_deviation_are_only_centred() {
    let folder = folder("csv", "x,y\n1e-40,0\n2e-40,1\n");
    let columns = "x = { kind = \"numeric\", normalize = \"standardize\" }";
    let table = folder.encoded(columns, Split::Train).unwrap();
    let Some(ColumnSpec::Numeric(spec)) = table.encoding.as_ref().unwrap().fitted.get("x") else {
        panic!("x is numeric");
    };
    assert!(matches!(
        spec.normalize,
        Normalize::Standardized { deviation: 1.0, .. }
    ));
    let written = serde_json::to_string(&table.encoding).unwrap();
    assert_eq!(
        serde_json::from_str::<Option<ringstep::columns::Encoding>>(&written).unwrap(),
        table.encoding
    );
}

const COLUMNS: &str = r#"
    age = { kind = "numeric", default = 40, normalize = "standardize" }
    age_bucketized = { kind = "bucketized", source = "age", boundaries = [30, 52] }
    double = { kind = "numeric", source = "wage", normalize = { scale = 2, offset = 1 } }
    rank = { kind = "identity", buckets = 3 }
    job = "vocabulary"
    job_hashed = { kind = "hash", source = "job", buckets = 1000 }
    age_X_job = { kind = "crossed", keys = ["age_bucketized", "job"], buckets = 1000 }
    job_weighted = { kind = "weighted", source = "job", weights = "wage" }
"#;

const CSV: &str = "age,job,rank,wage,y\n30,Sales,2,0.5,1\n,Craft-repair,-1,2,2\n52,,0,1.5,3\n";

const JSON: &str = r#"
{"age": 30, "job": "Sales", "rank": 2, "wage": 0.5, "y": 1}
{"job": "Craft-repair", "rank": -1, "wage": 2, "y": 2}
{"age": 52.0, "job": null, "rank": [0], "wage": 1.5, "y": 3}
"#;

/// As often as Parquet's file has them: twice.
fn formats() -> [(&'static str, Vec<u8>); 4] {
    let examples = [
        example(&[
            ("age", Floats(&[30.0])),
            ("job", Texts(&["Sales"])),
            ("rank", Integers(&[2])),
            ("wage", Floats(&[0.5])),
            ("y", Integers(&[1])),
        ]),
        example(&[
            ("job", Texts(&["Craft-repair"])),
            ("rank", Integers(&[-1])),
            ("wage", Floats(&[2.0])),
            ("y", Integers(&[2])),
        ]),
        example(&[
            ("age", Integers(&[52])),
            ("job", Texts(&[""])),
            ("rank", Floats(&[0.0])),
            ("wage", Floats(&[1.5])),
            ("y", Integers(&[3])),
        ]),
    ];
    let records: Vec<u8> = examples.iter().flat_map(|data| record(data)).collect();
    let parquet = super::parquet::file(
        "optional double age; required binary job (STRING); required double rank; \
         required double wage; required double y;",
        ::parquet::basic::Compression::UNCOMPRESSED,
        &[
            Optional(vec![1, 0, 1], vec![30.0, 52.0]),
            Text(vec!["Sales", "Craft-repair", ""]),
            Double(vec![2.0, -1.0, 0.0]),
            Double(vec![0.5, 2.0, 1.5]),
            Double(vec![1.0, 2.0, 3.0]),
        ],
    );
    let (header, rows) = CSV.split_once('\n').unwrap();
    [
        ("csv", format!("{header}\n{rows}{rows}").into()),
        ("jsonl", JSON.repeat(2).into()),
        ("parquet", parquet),
        ("tfrecord", records.repeat(2)),
    ]
}

#[test]
fn every_format_gives_the_same_rows() {
    let ages = [30.0, 40.0, 52.0_f64];
    let mean = ages.iter().sum::<f64>() / 3.0;
    let deviation = (ages.iter().map(|age| (age - mean).powi(2)).sum::<f64>() / 3.0).sqrt();
    let standard = |age: f64| (age as f32 - mean as f32) / deviation as f32;
    let golden = golden();
    let id = |keys: &str, of: &str| golden[of][keys].as_f64().unwrap() as f32;
    for (format, bytes) in formats() {
        let table = folder(format, bytes)
            .encoded(COLUMNS, Split::Train)
            .unwrap();
        let is = |column: &str, row: &[f32]| {
            assert_eq!(slots(&table, column), row.repeat(2), "{format}: {column}");
        };
        assert_eq!((table.rows, table.shape.elements()), (6, 9));
        is("age", &ages.map(standard));
        is("age_bucketized", &[1.0, 1.0, 2.0]);
        is("double", &[2.0, 5.0, 4.0]);
        is("rank", &[2.0, -1.0, 0.0]);
        is("job", &[1.0, 0.0, -1.0]);
        let of = "occupation_1000";
        is(
            "job_hashed",
            &[id("Sales", of), id("Craft-repair", of), -1.0],
        );
        is("job_weighted", &[1.0, 0.5, 0.0, 2.0, -1.0, 0.0]);
        let crosses = slots(&table, "age_X_job");
        assert_eq!(crosses[2], -1.0, "{format}");
        assert!(crosses[..2].iter().all(|&id| (0.0..1000.0).contains(&id)));
        // A bucket is another key than the text of its number.
        assert_ne!(crosses[0], crosses[1]);

        let encoding = table.encoding.unwrap();
        assert_eq!(
            encoding.find("job").unwrap().values,
            Values::Ids { count: 2 }
        );
        let weighted = encoding.find("job_weighted").unwrap();
        assert_eq!(weighted.values, Values::Weighted { count: 2 });
        let Some(ColumnSpec::Numeric(age)) = encoding.fitted.get("age") else {
            panic!("{encoding:?}");
        };
        let (mean, deviation) = (mean as f32, deviation as f32);
        assert_eq!(age.normalize, Normalize::Standardized { mean, deviation });
        // What a checkpoint writes is read again.
        let text = serde_json::to_string(&encoding).unwrap();
        assert_eq!(
            serde_json::from_str::<ringstep::columns::Encoding>(&text).unwrap(),
            encoding
        );
    }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../golden/hashes.json")).unwrap()
}

#[test]
fn what_the_training_split_has_is_applied_to_others() {
    let test = "y,wage,rank,job,age\n0,1,1,Tech-support,52\n0,3,1,Sales,\n";
    let folder =
        Folder::regression("format = \"csv\"\ntrain = \"train\"\ntest = \"test\"\nlabel = \"y\"\n")
            .with("train", CSV)
            .with("test", test);
    let columns = COLUMNS.replace(
        "job = \"vocabulary\"",
        "job = { kind = \"vocabulary\", oov_buckets = 4 }",
    );
    let trained = folder.encoded(&columns, Split::Train).unwrap();
    let tested = folder.encoded(&columns, Split::Test).unwrap();
    assert_eq!(tested.encoding, trained.encoding);
    let ages = slots(&trained, "age");
    assert_eq!(slots(&tested, "age"), [ages[2], ages[1]]);
    let jobs = slots(&tested, "job");
    assert!((2.0..6.0).contains(&jobs[0]) && jobs[1] == 1.0, "{jobs:?}");
    assert_eq!(slots(&tested, "job_weighted")[1], 1.0);
    let values = trained.encoding.unwrap().find("job").unwrap().values;
    assert_eq!(values, Values::Ids { count: 6 });
}

#[test]
fn rows_may_have_several_values() {
    let columns = r#"
        words = { kind = "vocabulary", values = ["a", "b", "c"], max_values = 3 }
        weighted = { kind = "weighted", source = "words", weights = "weight" }
        pair = { kind = "numeric", shape = 2, default = 7 }
        pair_bucketized = { kind = "bucketized", source = "pair", boundaries = [0] }
        crossed = { kind = "crossed", keys = ["words", "pair_bucketized"], buckets = 50 }
    "#;
    let json = r#"{"words": ["c", "?", "a"], "weight": [1, 2, 3], "pair": [-1, 0.5], "y": 0}
        {"words": ["b"], "weight": [4], "pair": [null, -2], "y": 0}
        {"y": 0}"#;
    let rows = [
        example(&[
            ("words", Texts(&["c", "?", "a"])),
            ("weight", Floats(&[1.0, 2.0, 3.0])),
            ("pair", Floats(&[-1.0, 0.5])),
            ("y", Integers(&[0])),
        ]),
        example(&[
            ("words", Texts(&["b"])),
            ("weight", Integers(&[4])),
            ("pair", Integers(&[7, -2])),
            ("y", Integers(&[0])),
        ]),
        example(&[("y", Integers(&[0]))]),
    ];
    let records: Vec<u8> = rows.iter().flat_map(|data| record(data)).collect();
    let table = folder("jsonl", json)
        .encoded(columns, Split::Train)
        .unwrap();
    let same = folder("tfrecord", records).encoded(columns, Split::Train);
    assert_eq!(same.unwrap(), table);
    let words = [2.0, -1.0, 0.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0];
    assert_eq!(slots(&table, "words"), words);
    let weighted = slots(&table, "weighted");
    // What is not in the vocabulary weighs nothing.
    assert_eq!(weighted[..6], [2.0, -1.0, 0.0, 1.0, 0.0, 3.0]);
    assert_eq!(weighted[6..12], [1.0, -1.0, -1.0, 4.0, 0.0, 0.0]);
    assert_eq!(weighted[12..], [-1.0, -1.0, -1.0, 0.0, 0.0, 0.0]);
    assert_eq!(slots(&table, "pair"), [-1.0, 0.5, 7.0, -2.0, 7.0, 7.0]);
    // Each of the two has buckets of its own.
    assert_eq!(
        slots(&table, "pair_bucketized"),
        [0.0, 3.0, 1.0, 2.0, 1.0, 3.0]
    );
    let crossed = slots(&table, "crossed");
    let some = |row: &[f32]| row.iter().filter(|&&id| id >= 0.0).count();
    // Words count by their text, known or not.
    assert_eq!(crossed.chunks(6).map(some).collect::<Vec<_>>(), [6, 2, 0]);
}

#[test]
fn ids_are_tensorflows() {
    let all: Value = serde_json::from_str(include_str!("../../../golden/vectors.json")).unwrap();
    let golden = &all["feature_columns"];
    let numbers = |value: &Value| -> Vec<f32> {
        let numbers = value.as_array().unwrap().iter();
        numbers
            .map(|number| number.as_f64().unwrap() as f32)
            .collect()
    };
    // Rows of ids as the golden file has them: how often each is in the row.
    let counts = |ids: &[f32], per_row: usize, count: usize| -> Vec<f32> {
        let mut counts = vec![0.0; ids.len() / per_row * count];
        for (place, &id) in ids.iter().enumerate().filter(|(_, id)| **id >= 0.0) {
            counts[place / per_row * count + id as usize] += 1.0;
        }
        counts
    };
    let xs = numbers(&golden["bucketized"]["x"]);
    let rows: String = xs.iter().map(|x| format!("{x},0\n")).collect();
    let columns = "x = { kind = \"bucketized\", boundaries = [0, 10, 100] }";
    let table = folder("csv", format!("x,y\n{rows}")).encoded(columns, Split::Train);
    let expected = numbers(&golden["bucketized"]["onehot"]["data"]);
    assert_eq!(counts(&table.unwrap().features, 1, 4), expected);

    let columns = r#"
        word = { kind = "vocabulary", values = ["a", "b", "c"] }
        words = { kind = "vocabulary", values = ["a", "b", "c"], max_values = 2 }
        number = { kind = "identity", buckets = 4, default = 0 }
        hashed = { kind = "hash", source = "number", buckets = 1000 }
    "#;
    let json = r#"{"word": "a", "words": ["a", "a"], "number": 0, "y": 0}
        {"word": "?", "words": ["b", "c"], "number": 3, "y": 0}
        {"word": "c", "words": [], "number": 4, "y": 0}
        {"words": "z", "number": -1, "y": 0}"#;
    let table = folder("jsonl", json)
        .encoded(columns, Split::Train)
        .unwrap();
    let ids = |column: &str| slots(&table, column);
    let expected = numbers(&golden["vocab_oov_default"]["data"]);
    assert_eq!(counts(&ids("word")[..3], 1, 3), expected);
    let expected = numbers(&golden["indicator_multivalent"]["data"]);
    assert_eq!(counts(&ids("words")[..4], 2, 3), expected);
    let expected = numbers(&golden["identity"]["data"]);
    assert_eq!(counts(&ids("number"), 1, 4), expected);
    // A number is hashed as its digits.
    let texts = json.replace("\"number\": 3", "\"number\": \"3\"");
    let columns = "hashed = { kind = \"hash\", source = \"number\", buckets = 1000 }";
    let same = folder("jsonl", texts)
        .encoded(columns, Split::Train)
        .unwrap();
    assert_eq!(same.features, ids("hashed"));
}

#[test]
fn vocabularies_lie_in_files_too() {
    let columns = |file: &str| {
        format!(
            "job = {{ kind = \"vocabulary\", file = \"{file}\", oov_buckets = 1, default = -1 }}"
        )
    };
    let folder = folder("csv", CSV).with("jobs.txt", "Sales\r\nTeacher\nCraft-repair\n");
    let path = folder.folder.path().join("jobs.txt");
    let table = folder
        .encoded(&columns(&path.to_string_lossy()), Split::Train)
        .unwrap();
    assert_eq!(table.features, [0.0, 2.0, -1.0]);
    // The texts are the checkpoint's, whatever becomes of the file.
    let Some(ColumnSpec::Vocabulary(job)) = table.encoding.as_ref().unwrap().fitted.get("job")
    else {
        panic!("{table:?}");
    };
    assert_eq!((job.values.as_ref().unwrap().len(), &job.file), (3, &None));
    // Texts that are integers are sorted as such.
    let rows = "n,y\n10,0\n9,0\n-1,0\n";
    let table = super::columns::folder("csv", rows).encoded("n = \"vocabulary\"", Split::Train);
    assert_eq!(table.unwrap().features, [2.0, 1.0, 0.0]);
}
