//! Multipart uploads as the tests drive them.

use std::fmt::Write as _;

use crate::common::{Answer, Client};

pub const XML: [(&str, &str); 1] = [("content-type", "application/xml")];

/// An upload of one key.
#[derive(Clone, Debug)]
pub struct Upload<'a> {
    pub client: &'a Client,
    /// `/bucket/key`, encoded.
    pub target: String,
    pub id: String,
}

impl<'a> Upload<'a> {
    pub fn create(client: &'a Client, target: &str) -> Self {
        Self::create_with(client, target, &[])
    }

    pub fn create_with(client: &'a Client, target: &str, headers: &[(&str, &str)]) -> Self {
        let answer = client.send("POST", &format!("{target}?uploads"), headers, b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Self { client, target: target.to_owned(), id: answer.one("UploadId") }
    }

    /// The same upload in other hands.
    pub fn of<'b>(&self, client: &'b Client) -> Upload<'b> {
        Upload { client, target: self.target.clone(), id: self.id.clone() }
    }

    pub fn part_target(&self, number: u32) -> String {
        format!("{}?partNumber={number}&uploadId={}", self.target, self.id)
    }

    pub fn part(&self, number: u32, body: &[u8]) -> Answer {
        self.client.put(&self.part_target(number), body)
    }

    /// A part that must succeed: its number and `ETag`.
    pub fn put(&self, number: u32, body: &[u8]) -> (u32, String) {
        let answer = self.part(number, body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        (number, answer.header("etag").unwrap().to_owned())
    }

    pub fn copy(&self, number: u32, source: &str, range: Option<&str>) -> Answer {
        let mut headers = vec![("x-amz-copy-source", source)];
        headers.extend(range.map(|range| ("x-amz-copy-source-range", range)));
        self.client.send("PUT", &self.part_target(number), &headers, b"")
    }

    /// A copied part that must succeed.
    pub fn put_copy(&self, number: u32, source: &str, range: Option<&str>) -> (u32, String) {
        let answer = self.copy(number, source, range);
        assert_eq!(answer.status, 200, "{}", answer.text());
        (number, answer.one("ETag"))
    }

    pub fn complete(&self, parts: &[(u32, String)]) -> Answer {
        self.finish(&XML, &document(parts))
    }

    pub fn finish(&self, headers: &[(&str, &str)], body: &str) -> Answer {
        self.client.send("POST", &format!("{}?uploadId={}", self.target, self.id), headers, body.as_bytes())
    }

    pub fn abort(&self) -> Answer {
        self.client.delete(&format!("{}?uploadId={}", self.target, self.id))
    }

    pub fn listed(&self) -> Answer {
        self.client.get(&format!("{}?uploadId={}", self.target, self.id))
    }
}

pub fn document(parts: &[(u32, String)]) -> String {
    let mut text = "<CompleteMultipartUpload>".to_owned();
    for (number, etag) in parts {
        let _ = write!(text, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    text + "</CompleteMultipartUpload>"
}
