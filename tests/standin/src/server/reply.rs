//! Answers before they become HTTP: status, headers that are left out when empty, body.

use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::body::ReplyBody;
use crate::error::S3Error;
use crate::xml::{self, Document};

/// An answer.
pub struct Reply {
    pub status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    pub body: ReplyBody,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: ReplyBody::empty() }
    }

    pub fn xml(document: Document) -> Self {
        Self::new(200).header("content-type", "application/xml; charset=utf-8").body(document.finish())
    }

    pub fn error(resource: &str, error: &S3Error) -> Self {
        Self::new(error.status)
            .header("content-type", "application/xml; charset=utf-8")
            .body(xml::error(resource, error))
    }

    /// The web framework's own errors, which are JSON even on the S3 routes.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status).header("content-type", "application/json; charset=utf-8").body(body.to_string())
    }

    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn body(mut self, text: String) -> Self {
        self.body = ReplyBody::bytes(text);
        self
    }

    pub fn stream(mut self, body: ReplyBody) -> Self {
        self.body = body;
        self
    }

    /// Adds a header unless its value is empty or cannot be one; the server leaves those out, too.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.push(name, value);
        }
        self
    }

    /// Adds a header, also an empty one.
    pub fn push(&mut self, name: &str, value: &str) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            self.headers.retain(|(known, _)| *known != name);
            self.headers.push((name, value));
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(known, _)| known.as_str() == name)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.as_str() == name).and_then(|(_, v)| v.to_str().ok())
    }

    pub fn into_response(self) -> Response<ReplyBody> {
        let mut response = Response::new(self.body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}
