//! Quotes of CSV: one that is never closed makes a single field of all that follows, and the `csv` crate says
//! nothing of it.

use std::io::{self, Read};

/// Counts the quotes that are read: an odd number tells, at next to no cost, that one is not closed, or stands within
/// a field without quotes.
pub(super) struct Quotes<R> {
    file: R,
    is_odd: bool,
}

impl<R> Quotes<R> {
    pub(super) fn new(file: R) -> Self {
        Self {
            file,
            is_odd: false,
        }
    }

    /// Whether their number is odd so far.
    pub(super) fn is_odd(&self) -> bool {
        self.is_odd
    }
}

impl<R: Read> Read for Quotes<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        // Whether it is odd, not how many they are: that is a byte for each of a vector's lanes.
        self.is_odd ^= buffer[..read]
            .iter()
            .fold(false, |is_odd, &byte| is_odd ^ (byte == b'"'));
        Ok(read)
    }
}

/// The line, from 1, on which a quote opens that nothing closes, where there is one in what can be read.
pub(super) fn unclosed(mut text: impl Read) -> Option<usize> {
    /// Where in a field a byte is.
    enum Place {
        Start,
        Plain,
        /// Since the quote on this line.
        Quoted(usize),
        /// Behind a quote that closes the field, unless another follows.
        Closed(usize),
    }
    use Place::{Closed, Plain, Quoted, Start};
    let (mut place, mut line, mut at) = (Start, 1, 0_u64);
    let mut buffer = [0; 1 << 16];
    while let Ok(read @ 1..) = text.read(&mut buffer) {
        for byte in &buffer[..read] {
            place = match (place, byte) {
                // Of a byte order mark.
                (Start, 0xef | 0xbb | 0xbf) if at < 3 => Start,
                (Quoted(opened), b'"') => Closed(opened),
                (Quoted(opened), _) | (Closed(opened), b'"') => Quoted(opened),
                (Start, b'"') => Quoted(line),
                (_, b',' | b'\n' | b'\r') => Start,
                _ => Plain,
            };
            line += usize::from(*byte == b'\n');
            at += 1;
        }
    }
    match place {
        Quoted(opened) => Some(opened),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_an_open_quote_is_found() {
        for (text, line) in [
            ("a,b\n1,2\n", None),
            ("\"a\",b\n\"1\n\n\",\"\"\"\"\n", None),
            ("a\"b,\"c\"\n", None),
            ("\"a\"b\"\n", None),
            ("a,b\n1,\"2\n3,4\n", Some(2)),
            ("\u{feff}\"a,b\n1,2\n", Some(1)),
            ("a\n\"x\n\"\r\n\"y\"\"\n\n", Some(4)),
            ("a\n\"\"\"", Some(2)),
        ] {
            assert_eq!(unclosed(text.as_bytes()), line, "{text:?}");
        }
    }
}
