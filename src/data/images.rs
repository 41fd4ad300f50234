//! Folders of JPEG and PNG files, one for each class.

use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use image::imageops::{FilterType, resize};
use image::{DynamicImage, ImageFormat, ImageReader};

use super::rows::Labels;
use super::{DataError, Table, Targets, Task, files, memory};
use crate::layers::Shape;
use crate::params::partition;

/// Endings of the files that are read, in small letters.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];

/// Progress is said after this many images, and multiples of it.
const PROGRESS: usize = 10_000;

/// What images become.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spec<'a> {
    /// `[height, width, channels]`, of 1 channel (grey), 3 (colours) or 4 (and opacity).
    pub(super) shape: &'a Shape,
    /// Every feature, a byte divided by 255, is multiplied by this.
    pub(super) scale: f64,
    /// Whether damaged files are passed over and counted.
    pub(super) skip_damaged: bool,
}

/// Reads the images in the folders within `folder`: the class of each is the name of its folder. Rows come in
/// the order of the paths.
pub(super) fn read(
    folder: &Path,
    task: Task,
    classes: Option<&[String]>,
    spec: Spec<'_>,
) -> Result<Table, DataError> {
    if task == Task::Regression {
        let problem = "folders are classes, but the loss asks for numbers; use a cross entropy";
        return Err(DataError::format(folder, problem));
    }
    let mut labels = Labels::new(classes, task);
    let (mut paths, mut targets) = (Vec::new(), Vec::new());
    let mut beside = 0;
    for class in entries(folder)? {
        if !class.is_dir() {
            beside += usize::from(ends_as_image(&class));
            continue;
        }
        let name = class.file_name().unwrap_or_default();
        let index = labels
            .index(name.as_encoded_bytes())
            .map_err(|problem| DataError::format(&class, problem))?;
        paths.append(&mut images_within(&class)?);
        targets.resize(paths.len(), index as f32);
    }
    if paths.is_empty() {
        let problem = "no images in it; it is to have a folder for each class, with .jpg, .jpeg or .png files";
        return Err(DataError::format(folder, problem));
    }
    if beside > 0 {
        tracing::warn!(
            "{}: {beside} images in no class's folder are passed over",
            folder.display()
        );
    }
    let names = labels.finish(&mut targets);
    let mut table = decode(folder, &paths, spec, Some(targets))?;
    table.target_kind = Targets::Classes(names);
    Ok(table)
}

/// Reads an image, those that a pattern names, or all within a folder, in the order of the paths.
pub(super) fn features(path: &Path, spec: Spec<'_>) -> Result<Table, DataError> {
    let paths = match path.is_dir() {
        true => images_within(path)?,
        false => files::find(&[path.to_owned()])?,
    };
    decode(path, &paths, spec, None)
}

/// Decodes the images on as many threads as there are processors. The first damaged file is the error, or
/// such rows are left out.
fn decode(
    folder: &Path,
    paths: &[PathBuf],
    spec: Spec<'_>,
    targets: Option<Vec<f32>>,
) -> Result<Table, DataError> {
    let width = spec.shape.elements();
    memory::check(folder, paths.len(), width)?;
    let mut features = vec![0.0; paths.len() * width];
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(paths.len());
    let decoded = AtomicUsize::new(0);
    let damaged = thread::scope(|scope| {
        let mut rest = &mut features[..];
        let mut running = Vec::new();
        for index in 0..threads {
            let rows = partition(paths.len(), threads, index);
            let (part, others) = rest.split_at_mut(rows.len() * width);
            rest = others;
            let decoded = &decoded;
            running.push(scope.spawn(move || {
                let mut damaged = Vec::new();
                for (row, features) in rows.zip(part.chunks_exact_mut(width)) {
                    if let Err(problem) = decode_one(&paths[row], spec, features) {
                        damaged.push((row, problem));
                        if !spec.skip_damaged {
                            break;
                        }
                    }
                    let decoded = decoded.fetch_add(1, Ordering::Relaxed) + 1;
                    if decoded.is_multiple_of(PROGRESS) {
                        tracing::info!("decoded {decoded} of {} images", paths.len());
                    }
                }
                damaged
            }));
        }
        let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(damaged) => damaged,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        running.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    // Predictions stand for rows, so that none may be missing.
    let remedy = match &targets {
        None => files::AGAIN,
        Some(_) => files::AGAIN_OR_SKIP,
    };
    let mut targets = targets.unwrap_or_default();
    if let Some((row, problem)) = damaged.first() {
        let path = &paths[*row];
        if !spec.skip_damaged {
            return Err(DataError::format(path, format!("{problem}; {remedy}")));
        }
        tracing::warn!(
            "{}: skipped {} of {} images; the first, {}: {problem}",
            folder.display(),
            damaged.len(),
            paths.len(),
            path.display()
        );
        let rows: Vec<_> = damaged.iter().map(|(row, _)| *row).collect();
        leave_out(&rows, width, &mut features);
        leave_out(&rows, 1, &mut targets);
    }
    let rows = features.len() / width;
    if rows == 0 {
        return Err(DataError::Empty {
            path: folder.to_owned(),
        });
    }
    Ok(Table {
        features,
        targets,
        ..Table::empty(spec.shape.clone(), Targets::Numbers(0), rows)
    })
}

/// Removes rows, in ascending order, of `width` numbers each.
fn leave_out(rows: &[usize], width: usize, numbers: &mut Vec<f32>) {
    let mut kept = 0;
    for row in 0..numbers.len() / width {
        if rows.binary_search(&row).is_err() {
            numbers.copy_within(row * width..(row + 1) * width, kept * width);
            kept += 1;
        }
    }
    numbers.truncate(kept * width);
}

/// Decodes one file into `features`, `[height, width, channels]`.
fn decode_one(path: &Path, spec: Spec<'_>, features: &mut [f32]) -> Result<(), String> {
    let file = fs::read(path).map_err(|error| error.to_string())?;
    let reader = ImageReader::new(Cursor::new(&file))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    if reader.format() == Some(ImageFormat::Jpeg) && !ends(&file) {
        return Err("cut off: a JPEG without its end".to_owned());
    }
    let image = reader.decode().map_err(|error| error.to_string())?;
    let bytes = bytes(&image, &spec.shape.0);
    for (feature, byte) in features.iter_mut().zip(bytes) {
        *feature = (f64::from(byte) / 255.0 * spec.scale) as f32;
    }
    Ok(())
}

/// Whether a JPEG has its end. Where it has none, the decoder makes up what is missing.
fn ends(jpeg: &[u8]) -> bool {
    /// What follows 0xff where no segment begins: nothing, a fill byte, or a marker that stands alone.
    const ALONE: [u8; 12] = [
        0x00, 0x01, 0xff, 0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8,
    ];
    const END: u8 = 0xd9;
    let mut rest = jpeg;
    loop {
        let is_marker = |pair: &[u8]| pair[0] == 0xff && !ALONE.contains(&pair[1]);
        let Some(at) = rest.windows(2).position(is_marker) else {
            return false;
        };
        if rest[at + 1] == END {
            return true;
        }
        // The length of a segment counts its own two bytes.
        let segment = &rest[at + 2..];
        let len = segment
            .first_chunk()
            .map_or(usize::MAX, |len| u16::from_be_bytes(*len).into());
        match segment.get(len..) {
            Some(after) => rest = after,
            None => return false,
        }
    }
}

/// The image in the size and the channels of `shape`.
fn bytes(image: &DynamicImage, shape: &[usize]) -> Vec<u8> {
    let (height, width) = (shape[0] as u32, shape[1] as u32);
    match shape[2] {
        1 => resize(&image.to_luma8(), width, height, FilterType::Triangle).into_raw(),
        3 => resize(&image.to_rgb8(), width, height, FilterType::Triangle).into_raw(),
        _ => resize(&image.to_rgba8(), width, height, FilterType::Triangle).into_raw(),
    }
}

/// The images within a folder and the folders in it, sorted.
fn images_within(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let walk = files::walk(folder).into_iter();
    let mut found = Vec::new();
    for entry in walk.filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.file_name())) {
        let entry = entry.map_err(|error| files::unwalkable(folder, error))?;
        if !entry.file_type().is_dir() && ends_as_image(entry.path()) {
            found.push(entry.into_path());
        }
    }
    Ok(found)
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether a path ends as those of images do.
pub(crate) fn ends_as_image(path: &Path) -> bool {
    let end = path.extension().unwrap_or_default().to_string_lossy();
    ENDINGS.contains(&end.to_ascii_lowercase().as_str())
}

/// What is in a folder and not hidden, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read = || {
        let mut paths = fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        paths.retain(|path| !is_hidden(path.file_name().unwrap_or_default()));
        paths.sort();
        Ok(paths)
    };
    read().map_err(|source| DataError::Read {
        path: folder.to_owned(),
        source,
    })
}
