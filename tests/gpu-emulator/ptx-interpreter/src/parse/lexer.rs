//! Cutting PTX text into module items and body statements, with line numbers.

use crate::error::Error;

/// Directives that end at the end of their line, not with a semicolon.
const LINE_DIRECTIVES: [&str; 5] = [".version", ".target", ".address_size", ".file", ".loc"];

/// Replaces comments by blanks, keeping newlines, so that positions still give line numbers.
pub(super) fn blank_comments(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    let mut in_string = false;
    while i < bytes.len() {
        let rest = &bytes[i..];
        if in_string {
            in_string = bytes[i] != b'"' && bytes[i] != b'\n';
        } else if rest.starts_with(b"//") {
            while i < bytes.len() && bytes[i] != b'\n' {
                out.push(b' ');
                i += 1;
            }
            continue;
        } else if rest.starts_with(b"/*") {
            while i < bytes.len() && !bytes[i..].starts_with(b"*/") {
                out.push(if bytes[i] == b'\n' { b'\n' } else { b' ' });
                i += 1;
            }
            out.extend_from_slice(b"  ");
            i += 2;
            continue;
        } else {
            in_string = bytes[i] == b'"';
        }
        out.push(bytes[i]);
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// One item at module scope.
pub(super) enum Item<'s> {
    /// `.version`, `.target`, `.file`, ...
    Line { text: &'s str },
    /// Anything that ends with a semicolon.
    Statement { text: String, line: u32 },
    Function {
        head: String,
        body: &'s str,
        line: u32,
        body_line: u32,
    },
}

/// A position in the text that knows its line.
struct Cursor<'s> {
    text: &'s str,
    position: usize,
    line: u32,
}

impl<'s> Cursor<'s> {
    fn new(text: &'s str, line: u32) -> Self {
        Cursor {
            text,
            position: 0,
            line,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn bump(&mut self) {
        if self.peek() == Some(b'\n') {
            self.line += 1;
        }
        self.position += 1;
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|c| c.is_ascii_whitespace()) {
            self.bump();
        }
    }

    fn rest(&self) -> &'s str {
        &self.text[self.position..]
    }

    fn take_line(&mut self) -> &'s str {
        let length = self.rest().find('\n').unwrap_or(self.rest().len());
        let line = &self.rest()[..length];
        self.position += length;
        line.trim()
    }

    /// At `{`: moves past the matching `}` and returns what is between them.
    fn take_braces(&mut self) -> Result<&'s str, Error> {
        let (start, start_line) = (self.position + 1, self.line);
        let mut depth = 0;
        while let Some(c) = self.peek() {
            match c {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            self.bump();
            if depth == 0 {
                return Ok(&self.text[start..self.position - 1]);
            }
        }
        Err(Error::parse(start_line, "unbalanced braces"))
    }

    fn at_line_directive(&self) -> bool {
        LINE_DIRECTIVES.iter().any(|d| {
            let after = self.rest().strip_prefix(d);
            after.is_some_and(|r| r.starts_with(|c: char| c.is_whitespace()))
        })
    }
}

/// Collapses runs of white space to one space.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn module_items(text: &str) -> Result<Vec<Item<'_>>, Error> {
    let mut cursor = Cursor::new(text, 1);
    let mut items = Vec::new();
    loop {
        cursor.skip_blanks();
        if cursor.peek().is_none() {
            return Ok(items);
        }
        let line = cursor.line;
        if cursor.at_line_directive() {
            items.push(Item::Line {
                text: cursor.take_line(),
            });
            continue;
        }
        if cursor.rest().starts_with(".section") {
            // Debug information; of no interest here.
            while cursor.peek().is_some_and(|c| c != b'{') {
                cursor.bump();
            }
            cursor.take_braces()?;
            continue;
        }
        let start = cursor.position;
        loop {
            match cursor.peek() {
                None => {
                    let head = squeeze(&text[start..]);
                    return Err(Error::parse(line, format!("unfinished item: {head}")));
                }
                Some(b';') => {
                    items.push(Item::Statement {
                        text: squeeze(&text[start..cursor.position]),
                        line,
                    });
                    cursor.bump();
                    break;
                }
                Some(b'{') if text[start..cursor.position].contains('=') => {
                    cursor.take_braces()?;
                }
                Some(b'{') => {
                    let head = squeeze(&text[start..cursor.position]);
                    let body_line = cursor.line;
                    let body = cursor.take_braces()?;
                    items.push(Item::Function {
                        head,
                        body,
                        line,
                        body_line,
                    });
                    break;
                }
                Some(_) => cursor.bump(),
            }
        }
    }
}

/// One statement of a function body.
#[derive(Debug)]
pub(super) enum Statement {
    Open,
    Close,
    Label(String),
    /// `.loc file line`
    Location(u32, u32),
    /// A directive such as `.reg ...`.
    Directive(String),
    Instruction(String),
}

/// Cuts a function body into statements with their line numbers.
pub(super) fn body_statements(body: &str, first_line: u32) -> Result<Vec<(Statement, u32)>, Error> {
    let mut cursor = Cursor::new(body, first_line);
    let mut out = Vec::new();
    loop {
        cursor.skip_blanks();
        let line = cursor.line;
        let Some(c) = cursor.peek() else {
            return Ok(out);
        };
        let statement = match c {
            b'{' => {
                cursor.bump();
                Statement::Open
            }
            b'}' => {
                cursor.bump();
                Statement::Close
            }
            b';' => {
                cursor.bump();
                continue;
            }
            _ if cursor.at_line_directive() => {
                let text = cursor.take_line();
                let mut words = text.split_whitespace();
                let is_location = words.next() == Some(".loc");
                let mut number = || words.next().and_then(|w| w.parse().ok());
                match (is_location, number(), number()) {
                    (true, Some(file), Some(line)) => Statement::Location(file, line),
                    _ => continue,
                }
            }
            _ => {
                if let Some(length) = label_length(cursor.rest()) {
                    let name = cursor.rest()[..length].to_string();
                    while cursor.peek() != Some(b':') {
                        cursor.bump();
                    }
                    cursor.bump();
                    Statement::Label(name)
                } else {
                    let start = cursor.position;
                    loop {
                        match cursor.peek() {
                            None => return Err(Error::parse(line, "missing semicolon")),
                            Some(b';') => break,
                            Some(b'{') => {
                                cursor.take_braces()?;
                            }
                            Some(_) => cursor.bump(),
                        }
                    }
                    let text = squeeze(&body[start..cursor.position]);
                    if text.starts_with('.') {
                        Statement::Directive(text)
                    } else {
                        Statement::Instruction(text)
                    }
                }
            }
        };
        out.push((statement, line));
    }
}

/// If the text starts with `name:` (and not `name::`), the length of the name.
fn label_length(text: &str) -> Option<usize> {
    let ident = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%');
    let length = text.find(|c| !ident(c))?;
    let after = text[length..].trim_start();
    (length > 0 && after.starts_with(':') && !after.starts_with("::")).then_some(length)
}

/// Splits at `separator` outside brackets of any kind.
pub(super) fn split_top_level(text: &str, separator: char) -> Vec<String> {
    let mut depth = 0;
    let mut current = String::new();
    let mut out = Vec::new();
    for c in text.chars() {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            _ => {}
        }
        if c == separator && depth == 0 {
            out.push(std::mem::take(&mut current).trim().to_string());
        } else {
            current.push(c);
        }
    }
    if !current.trim().is_empty() {
        out.push(current.trim().to_string());
    }
    out
}
