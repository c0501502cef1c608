//! The few XML documents of S3: written by hand, as the real server orders and escapes them; read with
//! quick-xml.

use std::fmt::Write as _;

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::error::{S3Error, S3Result};

const DECLARATION: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>"#;
const NAMESPACE: &str = r#" xmlns="http://s3.amazonaws.com/doc/2006-03-01/""#;

/// A document being written.
pub struct Document {
    text: String,
    root: &'static str,
}

impl Document {
    /// Opens a document with its root element.
    pub fn new(root: &'static str) -> Self {
        let mut text = String::with_capacity(512);
        let _ = write!(text, "{DECLARATION}<{root}{NAMESPACE}>");
        Self { text, root }
    }

    pub fn open(&mut self, name: &str) -> &mut Self {
        let _ = write!(self.text, "<{name}>");
        self
    }

    pub fn close(&mut self, name: &str) -> &mut Self {
        let _ = write!(self.text, "</{name}>");
        self
    }

    /// `<name>value</name>`, or `<name/>` for an empty value.
    pub fn leaf(&mut self, name: &str, value: &str) -> &mut Self {
        if value.is_empty() {
            let _ = write!(self.text, "<{name}/>");
            return self;
        }
        let _ = write!(self.text, "<{name}>");
        escape(value, &mut self.text);
        self.close(name)
    }

    /// As `leaf`; nothing at all for an absent value.
    pub fn optional(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.leaf(name, value);
        }
        self
    }

    /// Text of the root element itself.
    pub fn text(&mut self, value: &str) -> &mut Self {
        escape(value, &mut self.text);
        self
    }

    pub fn finish(mut self) -> String {
        let root = self.root;
        self.close(root);
        self.text
    }
}

/// Quotes and apostrophes stay raw: the `ETag`s in real listings do.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#xD;"),
            '\t' | '\n' | ' '.. => out.push(c),
            _ => out.push('\u{FFFD}'),
        }
    }
}

/// An error answer.
pub fn error(resource: &str, error: &S3Error) -> String {
    let mut doc = Document::new("Error");
    doc.leaf("Resource", resource).leaf("Code", &error.code).leaf("Message", &error.message);
    doc.finish()
}

fn malformed(error: impl std::fmt::Display) -> S3Error {
    S3Error::new(400, "MalformedXML", format!("Invalid XML payload: {error}"))
}

/// All elements as (path joined by `/`, own text), in the order in which they end: the root is last.
pub fn elements(body: &[u8]) -> S3Result<Vec<(String, String)>> {
    let text = std::str::from_utf8(body).map_err(malformed)?;
    let mut reader = Reader::from_str(text);
    let mut path: Vec<String> = Vec::new();
    let mut found = Vec::new();
    let mut value = String::new();
    loop {
        match reader.read_event().map_err(malformed)? {
            Event::Start(element) => {
                path.push(element.local_name().as_ref().to_owned());
                value.clear();
            }
            Event::Empty(element) => {
                let name = element.local_name().as_ref().to_owned();
                found.push((joined(&path, Some(&name)), String::new()));
            }
            Event::Text(piece) => value.push_str(&piece),
            Event::CData(piece) => value.push_str(&piece),
            Event::GeneralRef(entity) => value.push(entity_char(&entity)?),
            Event::End(_) => {
                found.push((joined(&path, None), std::mem::take(&mut value)));
                path.pop();
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if path.is_empty() { Ok(found) } else { Err(malformed("unclosed element")) }
}

fn joined(path: &[String], last: Option<&str>) -> String {
    let parts: Vec<&str> = path.iter().map(String::as_str).chain(last).collect();
    parts.join("/")
}

fn entity_char(entity: &quick_xml::events::BytesRef<'_>) -> S3Result<char> {
    if let Some(c) = entity.resolve_char_ref().map_err(malformed)? {
        return Ok(c);
    }
    match &**entity {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(malformed("Undeclared XML entity")),
    }
}
