//! Folders of images: sizes, channels, classes, damaged files.

use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};

use super::{Folder, classes};
use crate::commands::ringstep;

const GREY: &str = "format = \"images\"\ntrain = \"train\"\ntest = \"test\"\nshape = [2, 3, 1]";

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A grey image of 3 x 2 pixels from `first` upwards, 10 apart.
fn steps(first: u8) -> Vec<u8> {
    let image = GrayImage::from_fn(3, 2, |x, y| Luma([first + 10 * (y * 3 + x) as u8]));
    encoded(image, ImageFormat::Png)
}

fn bytes(values: &[u8]) -> Vec<f32> {
    values
        .iter()
        .map(|&byte| (f64::from(byte) / 255.0) as f32)
        .collect()
}

/// Two classes, three images to train on and one to test.
fn folder(data: &str) -> Folder {
    Folder::new(data)
        .with("train/dog/b.png", steps(100))
        .with("train/dog/a.PNG", steps(50))
        .with("train/dog/notes.txt", "no image")
        .with("train/.hidden/c.png", "no image")
        .with("train/cat/z.png", steps(0))
        .with("test/dog/b.png", steps(7))
}

#[test]
fn classes_are_folders_and_rows_come_in_the_order_of_paths() {
    let folder = folder(GREY);
    let table = folder.train().unwrap();
    assert_eq!((table.rows, &table.shape), (3, &[2, 3, 1].into()));
    assert_eq!(table.target_kind, classes(&["cat", "dog"]));
    assert_eq!(table.targets, [0.0, 1.0, 1.0]);
    let expected = [
        0, 10, 20, 30, 40, 50, 50, 60, 70, 80, 90, 100, 100, 110, 120, 130, 140, 150,
    ];
    assert_eq!(table.features, bytes(&expected));
    let test = folder.test().unwrap();
    assert_eq!(
        (test.targets, test.features[0]),
        (vec![1.0], bytes(&[7])[0])
    );
    let predicted = folder.features("train").unwrap();
    assert_eq!(predicted.features, table.features);
    for one in ["train/dog/b.png", "train/*/b.png"] {
        let predicted = folder.features(one).unwrap().features;
        assert_eq!(predicted, table.features[12..], "{one}");
    }
}

#[test]
fn a_folder_without_a_name_of_letters_is_no_class() {
    let folder = folder(GREY);
    let strange = folder.folder.path().join(OsStr::from_bytes(b"train/\xff"));
    fs::create_dir(strange).unwrap();
    let error = folder.train().unwrap_err();
    assert!(
        error.ends_with("the label is not UTF-8; write it as UTF-8"),
        "{error}"
    );
}

#[test]
fn a_circle_of_links_is_named() {
    let folder = folder(GREY);
    let dog = folder.folder.path().join("train/dog");
    symlink(&dog, dog.join("again")).unwrap();
    let error = folder.train().unwrap_err();
    assert!(
        error.starts_with("cannot read train/dog/again: ") && error.contains("loop"),
        "{error}"
    );
}

#[test]
fn images_get_the_size_and_the_channels_of_the_shape() {
    let red = RgbImage::from_pixel(8, 4, Rgb([255, 0, 0]));
    let halves = GrayImage::from_fn(8, 8, |x, _| Luma([if x < 4 { 0 } else { 255 }]));
    let data = GREY.replace("[2, 3, 1]", "[1, 2, 3]");
    let folder = Folder::new(&data)
        .with("train/a/1.png", encoded(red.clone(), ImageFormat::Png))
        .with("train/a/2.jpg", encoded(red, ImageFormat::Jpeg))
        .with("train/a/3.png", encoded(halves, ImageFormat::Png));
    let features = folder.train().unwrap().features;
    assert_eq!(features[..6], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    // JPEG loses a little.
    let near = |x: f32, y: f32| (x - y).abs() < 0.02;
    assert!(
        (0..6).all(|i| near(features[6 + i], features[i])),
        "{features:?}"
    );
    // Grey is equal in all channels; the filter mixes neighbours a little.
    let (dark, bright) = (features[12], features[15]);
    assert_eq!(features[12..], [dark, dark, dark, bright, bright, bright]);
    assert!(
        dark < 0.2 && bright > 0.8 && near(dark, 1.0 - bright),
        "{features:?}"
    );
    let grey = Folder {
        data: GREY.replace("[2, 3, 1]", "[1, 1, 1]"),
        ..folder
    };
    // Rec. 709's share of red.
    assert!(near(grey.train().unwrap().features[0], 0.2126));
}

#[test]
fn damaged_files_are_named_or_skipped() {
    let cut = |image: Vec<u8>| image[..image.len() - 30].to_vec();
    let damaged = |data: &str| folder(data).with("train/dog/b.png", cut(steps(100)));
    let message = damaged(GREY).train().unwrap_err();
    assert!(message.starts_with("train/dog/b.png: "), "{message}");
    assert!(
        message.ends_with(
            "; bring back the file, or set skip_damaged = true in [data] to go on without it"
        ),
        "{message}"
    );
    // Predictions stand for rows, so that none may be missing.
    let message = folder(GREY)
        .with("rows/1.png", cut(steps(9)))
        .features("rows")
        .unwrap_err();
    assert!(
        message.ends_with("; copy or write the file again"),
        "{message}"
    );
    let skipping = damaged(&format!("{GREY}\nskip_damaged = true"));
    let table = skipping.train().unwrap();
    assert_eq!((table.rows, table.targets), (2, vec![0.0, 1.0]));
    assert_eq!(
        table.features,
        bytes(&[0, 10, 20, 30, 40, 50, 50, 60, 70, 80, 90, 100])
    );
    // Six pixels and two classes.
    let run = [
        "train",
        "run.toml",
        "--set",
        "model.layers=[\"flatten\", {kind=\"dense\",units=2}]",
    ];
    let said = ringstep(skipping.folder.path(), &run);
    assert!(said.status.success(), "{said:?}");
    let said = skipping.shown(String::from_utf8(said.stderr).unwrap());
    let counted = "train: skipped 1 of 3 images; the first, train/dog/b.png: ";
    assert!(said.contains(counted), "{said}");
    // The decoder would fill a JPEG that is cut off with grey.
    let jpeg = encoded(
        RgbImage::from_pixel(64, 64, Rgb([200, 100, 50])),
        ImageFormat::Jpeg,
    );
    let whole = folder(GREY).with("train/cat/z.png", [&jpeg[..], b"more"].concat());
    assert_eq!(whole.train().unwrap().rows, 3);
    let message = whole
        .with("train/cat/z.png", &jpeg[..jpeg.len() - 3])
        .train()
        .unwrap_err();
    assert!(
        message.starts_with("train/cat/z.png: cut off: a JPEG without its end"),
        "{message}"
    );
    let text = folder(GREY)
        .with("train/cat/z.png", "no image")
        .train()
        .unwrap_err();
    assert!(text.starts_with("train/cat/z.png: "), "{text}");
}

#[test]
fn mistakes_are_named() {
    let error = |from: &str, to: &str| folder(&GREY.replace(from, to)).train().unwrap_err();
    let size = "images need [height, width, channels], with 1 channel (grey), 3 (colours) or 4 (and \
                opacity)";
    assert_eq!(
        error("[2, 3, 1]", "[2, 3]"),
        format!("run.toml:5: data.shape: {size}")
    );
    assert_eq!(
        error("\nshape = [2, 3, 1]", ""),
        format!("run.toml:1: data.shape: {size}")
    );
    assert_eq!(
        error("\"train\"", "\"train/dog\""),
        "train/dog: no images in it; it is to have a folder for each class, with .jpg, .jpeg or .png \
         files"
    );
    assert_eq!(
        error("\"train\"", "\"nowhere\""),
        "cannot read nowhere: No such file or directory (os error 2); mend the path, or bring the file back"
    );
    assert_eq!(
        folder(GREY)
            .with("test/cow/a.png", steps(0))
            .test()
            .unwrap_err(),
        "test/cow: unknown label 'cow'; known are cat, dog; mend it, or add it to classes in [data]"
    );
    let numbers = Folder {
        loss: "squared_error",
        ..folder(GREY)
    };
    assert_eq!(
        numbers.train().unwrap_err(),
        "train: folders are classes, but the loss asks for numbers; use a cross entropy"
    );
}
