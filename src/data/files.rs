//! Which files are read, and what lies in them where they are compressed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use flate2::bufread::GzDecoder;
use walkdir::WalkDir;

use super::{DataError, numpy};

/// First bytes of a gzip file.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Bytes read at a time.
pub(super) const BUFFER: usize = 1 << 20;

/// What is done about a file that is damaged.
pub(super) const AGAIN: &str = "copy or write the file again";

/// The same, where a run can do without what is damaged.
pub(super) const AGAIN_OR_SKIP: &str =
    "bring back the file, or set skip_damaged = true in [data] to go on without it";

/// The files that paths and patterns (`*`, `?`, `[a-z]`, `**`) name: in the order given, those of a
/// pattern sorted.
pub(crate) fn find(patterns: &[PathBuf]) -> Result<Vec<PathBuf>, DataError> {
    let (mut files, mut known) = (Vec::new(), BTreeSet::new());
    for pattern in patterns {
        let before = files.len();
        refuse_folder(pattern)?;
        // A name may have brackets of its own.
        if !is_pattern(pattern) || pattern.exists() {
            files.push(pattern.clone());
        } else {
            files.append(&mut matching(pattern)?);
            if files.len() == before {
                let problem = "no file matches; mend the pattern";
                return Err(DataError::format(pattern, problem));
            }
        }
        for file in &files[before..] {
            // Links are other names of what they lead to.
            let is_new = known.insert(file.canonicalize().unwrap_or_else(|_| file.clone()));
            if !is_new {
                let problem = "named twice: its rows would count twice; name it once";
                return Err(DataError::format(file, problem));
            }
        }
    }
    Ok(files)
}

/// What a pattern matches, those in a folder in the order of their names. Names may be of any bytes.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, DataError> {
    let part = |text: &str| {
        glob::Pattern::new(text).map_err(|error| DataError::format(pattern, error.to_string()))
    };
    let is_part = |name: &Component<'_>| is_pattern(Path::new(name));
    let fixed = pattern.components().take_while(|name| !is_part(name));
    let root: PathBuf = fixed.collect();
    let rest = pattern.strip_prefix(&root).unwrap_or(pattern);
    // Each part says where there is something to find, until `**`, which may be at any depth.
    let names = rest
        .components()
        .map(|name| name.as_os_str().to_string_lossy());
    let parts = names.take_while(|name| name != "**");
    let parts = parts
        .map(|name| part(&name))
        .collect::<Result<Vec<_>, _>>()?;
    let depth = match rest.components().count() {
        depth if depth > parts.len() => usize::MAX,
        depth => depth,
    };
    let whole = part(&rest.to_string_lossy())?;
    let options = glob::MatchOptions {
        require_literal_separator: true,
        // Hidden files are matched by what names the point, as by a shell.
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let may_match = |depth: usize, path: &Path| match depth.checked_sub(1) {
        Some(index) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            parts
                .get(index)
                .is_none_or(|part| part.matches_with(&name, options))
        }
        None => true,
    };
    let start = match root.as_os_str().is_empty() {
        true => Path::new("."),
        false => &root,
    };
    let walk = walk(start).max_depth(depth).into_iter();
    let walk = walk.filter_entry(|entry| may_match(entry.depth(), entry.path()));
    let mut found = Vec::new();
    for entry in walk {
        let path = match entry {
            Ok(entry) => entry.into_path(),
            // Such as a link to nothing.
            Err(error)
                if !error
                    .path()
                    .is_some_and(|path| may_match(error.depth(), path)) =>
            {
                continue;
            }
            Err(error) => return Err(unwalkable(pattern, error)),
        };
        let relative = path.strip_prefix(start).unwrap_or(&path);
        if whole.matches_with(&relative.to_string_lossy(), options) {
            found.push(root.join(relative));
        }
    }
    Ok(found)
}

/// All that is within a folder, those in a folder in the order of their names, links followed.
pub(super) fn walk(folder: &Path) -> WalkDir {
    WalkDir::new(folder).follow_links(true).sort_by_file_name()
}

/// The error of [`walk`], which goes round no circle of links.
pub(super) fn unwalkable(path: &Path, error: walkdir::Error) -> DataError {
    DataError::Read {
        path: error.path().unwrap_or(path).to_owned(),
        source: error.into(),
    }
}

/// The files and folders that paths and patterns name, without those that are not there: of an array in an
/// archive, the archive.
pub(crate) fn present(patterns: &[PathBuf]) -> Vec<PathBuf> {
    let found = patterns.iter().flat_map(|pattern| match pattern.is_dir() {
        true => vec![pattern.clone()],
        false => find(std::slice::from_ref(pattern)).unwrap_or_default(),
    });
    let file = |path: PathBuf| numpy::archive_of(&path).map_or(path.clone(), Path::to_owned);
    found.map(file).filter(|path| path.exists()).collect()
}

/// Refuses a folder where there has to be a file.
fn refuse_folder(path: &Path) -> Result<(), DataError> {
    if path.is_dir() {
        let text = format!(
            "is a folder; name the files in it, as by {}",
            path.join("*").display()
        );
        return Err(DataError::format(path, text));
    }
    Ok(())
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

/// A file or a pipe, but no device, which may have no end.
pub(crate) fn opened(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    match file.metadata()?.file_type().is_char_device() {
        true => Err(io::Error::other("it is a device; name a file or a pipe")),
        false => Ok(file),
    }
}

/// What lies in a file, as its reader sees it.
pub(super) type Contents = Box<dyn Read + Send>;

/// What lies in a file, unpacked where it is gzip: known by its first two bytes.
pub(super) fn open(path: &Path) -> Result<Contents, DataError> {
    refuse_folder(path)?;
    let failed = |source| DataError::Read {
        path: path.to_owned(),
        source,
    };
    let file = opened(path).map_err(failed)?;
    let mut file = BufReader::with_capacity(BUFFER, file);
    Ok(match file.fill_buf().map_err(failed)?.starts_with(&GZIP) {
        true => Box::new(Gzip::new(file)),
        false => Box::new(file),
    })
}

/// The contents of the members of a gzip file, one behind another.
pub(super) struct Gzip<R> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gzip<R> {
    pub(super) fn new(file: R) -> Self {
        Self {
            member: Some(GzDecoder::new(file)),
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match member.get_mut().fill_buf()? {
                [] => self.member = None,
                // The second byte may not be read yet.
                [first, ..] if *first == GZIP[0] => {
                    let ended = self.member.take();
                    self.member = ended.map(|member| GzDecoder::new(member.into_inner()));
                }
                _ => {
                    let problem = "bytes that are no gzip follow their end";
                    return Err(io::Error::new(ErrorKind::InvalidData, problem));
                }
            }
        }
        Ok(0)
    }
}

/// The error of reading from [`open`]'s reader.
pub(super) fn unreadable(path: &Path, error: io::Error) -> DataError {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput => {
            DataError::format(
                path,
                format!("compressed data that are cut off or damaged: {error}; {AGAIN}"),
            )
        }
        _ => DataError::Read {
            path: path.to_owned(),
            source: error,
        },
    }
}

/// The error itself, unless the file that it blames is compressed and cannot be unpacked to its end: what comes
/// out of damage before that is found is blamed for nothing.
pub(super) fn cause(
    error: DataError,
    open: impl Fn(&Path) -> Result<Contents, DataError>,
) -> DataError {
    // What is no file, such as a pipe, is read once.
    let Some(path) = error
        .path()
        .filter(|path| path.is_file() && may_be_compressed(path))
    else {
        return error;
    };
    let read = open(path).and_then(|mut contents| {
        io::copy(&mut contents, &mut io::sink()).map_err(|error| unreadable(path, error))
    });
    match read {
        Ok(_) => error,
        Err(damage) => damage,
    }
}

/// Whether zlib may begin so: the first byte names the method, 8, and the two are a multiple of 31.
pub(super) fn is_zlib(start: [u8; 2]) -> bool {
    start[0] & 15 == 8 && u16::from_be_bytes(start).is_multiple_of(31)
}

/// Whether a file begins as gzip or zlib does.
fn may_be_compressed(path: &Path) -> bool {
    let mut start = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && (start == GZIP || is_zlib(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Is interrupted before every read, as a file of a network may be.
    struct Interrupted<'a> {
        rest: &'a [u8],
        is_next: bool,
    }

    impl Read for Interrupted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.is_next = !self.is_next;
            match self.is_next {
                true => Err(ErrorKind::Interrupted.into()),
                false => self.rest.read(buffer),
            }
        }
    }

    #[test]
    fn members_are_whole_however_often_reading_is_interrupted() {
        let member = |text: &[u8]| {
            let mut packed = Vec::new();
            let mut encoder = flate2::read::GzEncoder::new(text, flate2::Compression::fast());
            encoder.read_to_end(&mut packed).unwrap();
            packed
        };
        let packed = [member(b"one "), member(b"two")].concat();
        let file = Interrupted {
            rest: &packed,
            is_next: false,
        };
        let mut text = String::new();
        let mut file = Gzip::new(BufReader::with_capacity(16, file));
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
    }
}
