//! CSV from several files, compressed, and by columns.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use super::{Folder, classes, gzip};

const PARTS: &str = "format = \"csv\"\ntrain = [\"first.csv\", \"part-*.csv\"]\nlabel = \"y\"";

/// Three files of which the pattern's come in the order of their names.
fn parts() -> Folder {
    Folder::new(PARTS)
        .with("part-2.csv", "a,b,y\n5,6,u\n")
        .with("part-1.csv", "a,b,y\n3,4,w\n3.5,4.5,u\n")
        .with("first.csv", "a,b,y\n1,2,v\n")
}

#[test]
fn files_are_read_in_the_order_given_and_those_of_a_pattern_sorted() {
    let table = parts().train().unwrap();
    assert_eq!(table.rows, 4);
    assert_eq!(table.features, [1.0, 2.0, 3.0, 4.0, 3.5, 4.5, 5.0, 6.0]);
    assert_eq!(table.targets, [1.0, 2.0, 0.0, 0.0]);
    assert_eq!(table.target_kind, classes(&["u", "v", "w"]));
    assert_eq!(table.names, ["a", "b"]);
}

#[test]
fn the_digest_is_that_of_the_rows_of_all_files() {
    let together = Folder::new("format = \"csv\"\ntrain = \"all.csv\"\nlabel = \"y\"")
        .with("all.csv", "a,b,y\n1,2,v\n3,4,w\n3.5,4.5,u\n5,6,u\n");
    let digest = parts().train().unwrap().digest();
    assert_eq!(together.train().unwrap().digest(), digest);
    let changed = parts().with("part-2.csv", "a,b,y\n5,6.5,u\n");
    assert_ne!(changed.train().unwrap().digest(), digest);
}

#[test]
fn files_whose_headers_differ_are_named() {
    let error = |text: &str| parts().with("part-2.csv", text).train().unwrap_err();
    assert_eq!(
        error("b,a,y\n1,2,u\n"),
        "part-2.csv: column 1 is 'b', but 'a' in first.csv; files that are read together have the \
         same columns"
    );
    assert_eq!(
        error("a,b,y,z\n1,2,u,0\n"),
        "part-2.csv: 4 columns, but first.csv has 3; files that are read together have the same \
         columns"
    );
    assert_eq!(
        error("a,b,y\n1,2,u\n1,x,u\n"),
        "part-2.csv:3: column 'b': expected a number, found 'x'; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
}

#[test]
fn patterns_without_files_and_files_named_twice_are_refused() {
    let folder = Folder::new(PARTS).with("first.csv", "a,b,y\n1,2,v\n");
    assert_eq!(
        folder.train().unwrap_err(),
        "part-*.csv: no file matches; mend the pattern"
    );
    let mut folder = parts();
    folder.data = PARTS.replace("[\"first.csv\", \"part-*.csv\"]", "\".\"");
    let error = folder.train().unwrap_err();
    assert!(
        error.contains("is a folder; name the files in it, as by "),
        "{error}"
    );
    let mut folder = parts();
    folder.data = PARTS.replace("first", "part-1");
    assert_eq!(
        folder.train().unwrap_err(),
        "part-1.csv: named twice: its rows would count twice; name it once"
    );
    folder.data = PARTS.replace("[\"first.csv\", \"part-*.csv\"]", "[]");
    assert_eq!(
        folder.train().unwrap_err(),
        "run.toml:3: data.train: names no files"
    );
    folder.data = format!("{PARTS}\ntest = [\"part-1.csv\", \"\"]");
    assert_eq!(
        folder.train().unwrap_err(),
        "run.toml:5: data.test: expected the path of a file, found ''; leave the key out where there is \
         no file"
    );
    folder.data = PARTS.replace("\"first.csv\"", "7");
    assert_eq!(
        folder.train().unwrap_err(),
        "run.toml:3: data.train entry 1: expected string, found integer"
    );
}

#[test]
fn a_pattern_finds_names_of_any_bytes_in_folders_it_passes() {
    let mut folder = Folder::new("format = \"csv\"\ntrain = \"[ab]*/**/x?.csv\"\nlabel = \"y\"")
        .with("a1/x1.csv", "a,y\n1,u\n")
        .with("a1/deep/er/x2.csv", "a,y\n2,u\n")
        .with("b/x10.csv", "a,y\n3,u\n")
        .with("c/x4.csv", "a,y\n4,u\n");
    let strange = folder.folder.path().join(OsStr::from_bytes(b"b/x\xff.csv"));
    fs::write(&strange, "a,y\n5,u\n").unwrap();
    assert_eq!(folder.train().unwrap().features, [2.0, 1.0, 5.0]);
    folder.data = folder.data.replace("[ab]*/**/x?", "b/*");
    assert_eq!(folder.train().unwrap().features, [3.0, 5.0]);
    // A link is another name, and what is hidden is not meant.
    let link = folder.folder.path().join("b/x5.csv");
    symlink("x10.csv", &link).unwrap();
    let error = folder.train().unwrap_err();
    assert!(error.contains("named twice"), "{error}");
    fs::rename(&link, folder.folder.path().join("b/.x5.csv")).unwrap();
    // A link to nothing is of no account, unless it is what is asked for.
    symlink("nowhere", folder.folder.path().join("b/link")).unwrap();
    folder.data = folder.data.replace("b/*.csv", "b/x*.csv");
    assert_eq!(folder.train().unwrap().features, [3.0, 5.0]);
    folder.data = folder.data.replace("b/x*.csv", "b/l*");
    let error = folder.train().unwrap_err();
    assert!(error.starts_with("cannot read b/link: "), "{error}");
}

#[test]
fn a_device_is_not_read() {
    let folder = Folder::new("format = \"csv\"\ntrain = \"/dev/zero\"\nlabel = \"y\"");
    assert_eq!(
        folder.train().unwrap_err(),
        "cannot read /dev/zero: it is a device; name a file or a pipe"
    );
}

#[test]
fn a_name_with_brackets_is_a_file_where_there_is_one() {
    let folder = Folder::new("format = \"csv\"\ntrain = \"a[1].csv\"\nlabel = \"y\"")
        .with("a[1].csv", "a,y\n7,v\n");
    assert_eq!(folder.train().unwrap().features, [7.0]);
}

#[test]
fn compressed_files_are_read_and_their_mistakes_have_lines() {
    let data = "format = \"csv\"\ntrain = \"a.csv.gz\"\ntest = \"b.csv\"\nlabel = \"y\"";
    let text = "a,y\n1,u\n\n2,v\n";
    let folder = Folder::new(data)
        .with("a.csv.gz", gzip(text))
        .with("b.csv", "y,a\nv,3\n");
    assert_eq!(folder.train().unwrap().features, [1.0, 2.0]);
    let test = folder.test().unwrap();
    assert_eq!((test.features, test.targets), (vec![3.0], vec![1.0]));
    let folder = folder.with("a.csv.gz", gzip("a,y\n1,u\n\nx,v\n"));
    assert_eq!(
        folder.train().unwrap_err(),
        "a.csv.gz:4: column 'a': expected a number, found 'x'; mend the row, make it a vocabulary or hash column in [columns], or leave it out by \
         features in [data]"
    );
    let packed = gzip(text);
    let message = folder
        .with("a.csv.gz", &packed[..packed.len() - 9])
        .train()
        .unwrap_err();
    assert!(
        message.starts_with("a.csv.gz: compressed data that are cut off or damaged: "),
        "{message}"
    );
}

#[test]
fn what_is_no_row_has_its_line_and_a_remedy() {
    let data = "format = \"csv\"\ntrain = \"a.csv\"\nlabel = \"y\"";
    let error = |text: &str| Folder::new(data).with("a.csv", text).train().unwrap_err();
    let more = "x,u\n".repeat(9);
    let open = "a quote opens a field here that nothing closes; close it, or write a quote within quotes \
                twice";
    // In a feature, in the label, where it takes too few fields, in the header, and at the very end.
    for (text, line) in [
        (format!("a,y\n1,u\n\n\"2,v\n{more}"), 4),
        (format!("a,y\r\n\"1\",\"u\r\n2,v\r\n{more}"), 2),
        (format!("a,y\n1,u\n2,\"v\n{more}"), 3),
        (format!("a,\"y\n1,u\n{more}"), 1),
        ("a,y\n1,u\n2,\"v".to_owned(), 3),
        ("a,y\n1,\"u\n".to_owned(), 2),
        // Of an even number of quotes.
        (format!("a,y\n1,6\" nail\n2,\"v\n{more}"), 3),
    ] {
        assert_eq!(error(&text), format!("a.csv:{line}: {open}"), "{text:?}");
    }
    // Which is no open one.
    let table = Folder::new(data)
        .with("a.csv", "a,y\n1,6\" and more\n2,\"u\"\"\"\n")
        .train();
    assert_eq!(
        table.unwrap().target_kind,
        classes(&["6\" and more", "u\""])
    );
    let length =
        "but the header has 2; mend the row, or put a field that has a comma of its own in quotes";
    assert_eq!(
        error("a,y\n1,u\n1,2,u\n"),
        format!("a.csv:3: 3 fields, {length}")
    );
    assert_eq!(error("a,y\n\n1\n"), format!("a.csv:3: 1 fields, {length}"));
    assert_eq!(
        error("b,a, b ,y\n1,2,3,u\n"),
        "a.csv:1: columns 1 and 3 are both called 'b'; rename one, or leave it out"
    );
    for (text, what) in [
        ("nan", "a number"),
        ("-NaN", "a number"),
        ("inf", "a finite number"),
    ] {
        let error = error(&format!("a,y\n1,u\n{text},u\n"));
        let start = format!("a.csv:3: column 'a': expected {what}, found '{text}'; ");
        assert!(error.starts_with(&start), "{error}");
        assert_eq!(error.contains("set na_value"), text != "inf", "{error}");
        assert!(error.contains("mend the row"), "{error}");
    }
    // A label has to be there.
    let label = Folder::regression(data).with("a.csv", "a,y\n1,2\n1,NA\n");
    assert_eq!(
        label.train().unwrap_err(),
        "a.csv:3: column 'y': expected a number, found 'NA'; where that is a missing value, leave the row \
         out; mend the row, or for classes take a classifier or a loss of cross entropy"
    );
}

#[test]
fn features_choose_columns_and_their_order() {
    let data = "format = \"csv\"\ntrain = \"a.csv\"\nlabel = \"y\"\nfeatures = [\"b\", \"a\"]";
    let folder = Folder::new(data)
        .with("a.csv", "id,a,b,y\nx,1,2,u\n")
        .with("rows.csv", "a,b\n3,4\n");
    let table = folder.train().unwrap();
    assert_eq!(
        (table.features, table.names),
        (vec![2.0, 1.0], vec!["b".into(), "a".into()])
    );
    assert_eq!(folder.features("rows.csv").unwrap().features, [4.0, 3.0]);
    let absent = Folder {
        data: data.replace("\"a\"]", "\"c\"]"),
        ..folder
    };
    assert_eq!(
        absent.train().unwrap_err(),
        "a.csv: no feature column 'c'; known are id, a, b, y"
    );
    let twice = Folder {
        data: data.replace("\"a\"]", "\"b\"]"),
        ..absent
    };
    assert_eq!(
        twice.train().unwrap_err(),
        "run.toml:5: data.features: 'b' is named twice"
    );
    let label = Folder {
        data: data.replace("\"a\"]", "\"y\"]"),
        ..twice
    };
    assert_eq!(
        label.train().unwrap_err(),
        "run.toml:5: data.features: 'y' is the label"
    );
}

#[test]
fn images_are_predicted_by_a_run_of_columns_only_where_its_rows_are_images() {
    let data = "format = \"csv\"\ntrain = \"a.csv\"\nlabel = \"y\"";
    let folder = Folder::new(data).with("a.csv", "a,y\n1,u\n");
    assert_eq!(
        folder.features("rows.png").unwrap_err(),
        "rows.png: images need a size; add shape = [height, width, channels] to [data], with 1 channel \
         (grey), 3 (colours) or 4 (and opacity)"
    );
}
