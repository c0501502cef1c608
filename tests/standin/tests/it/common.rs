//! A small signing HTTP client of the tests' own: it shares no code with the stand-in, so that a mistake
//! in one is not repeated in the other.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use supafs_standin::{Config, Credentials, Standin};

/// A request's answer, headers in lower case.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Texts of all elements of this name.
    pub fn all(&self, element: &str) -> Vec<String> {
        let text = self.text();
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        text.split(&open)
            .skip(1)
            .map(|part| part.split(&close).next().unwrap_or_default().replace("&amp;", "&"))
            .collect()
    }

    pub fn one(&self, element: &str) -> String {
        self.all(element).into_iter().next().unwrap_or_default()
    }

    /// Status and error code in one, to compare.
    pub fn refusal(&self) -> (u16, String, String) {
        (self.status, self.one("Code"), self.one("Message"))
    }
}

/// How requests are signed.
#[derive(Clone, Debug)]
pub struct Client {
    pub host: String,
    pub prefix: String,
    pub region: String,
    pub service: String,
    pub access_key: String,
    pub secret: String,
    pub token: Option<String>,
    pub date: String,
}

impl Client {
    pub fn admin(standin: &Standin) -> Self {
        let credentials = standin.credentials();
        Self::with(standin, &credentials.access_key_id, &credentials.secret_access_key, None)
    }

    pub fn user(standin: &Standin, token: &str) -> Self {
        let credentials = standin.credentials();
        Self::with(standin, &credentials.project_ref, &credentials.anon_key, Some(token.to_owned()))
    }

    fn with(standin: &Standin, access_key: &str, secret: &str, token: Option<String>) -> Self {
        Self {
            host: format!("127.0.0.1:{}", standin.port()),
            prefix: "/storage/v1/s3".to_owned(),
            region: "us-east-1".to_owned(),
            service: "s3".to_owned(),
            access_key: access_key.to_owned(),
            secret: secret.to_owned(),
            token,
            date: "20260102T030405Z".to_owned(),
        }
    }

    /// Sends one request on a connection of its own. `target` is path and query, encoded, without prefix.
    pub fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, target, headers, body).expect("an answer")
    }

    pub fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let head = self.head(method, target, headers, body.len());
        let mut stream = TcpStream::connect(&self.host)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(head.as_bytes())?;
        // A refusal may arrive, and the connection go, before all of a body is sent.
        let sent = stream.write_all(body);
        let mut raw = Vec::new();
        let read = stream.read_to_end(&mut raw);
        // A reset is told once, to whichever of the two comes first.
        let failure = || sent.err().or(read.err()).unwrap_or_else(|| std::io::Error::other("cut short"));
        parse(&raw, method).ok_or_else(failure)
    }

    /// The head of a request whose body the test sends itself.
    pub fn head_for(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> String {
        self.head(method, target, headers, 0)
    }

    fn head(&self, method: &str, target: &str, headers: &[(&str, &str)], length: usize) -> String {
        let path = format!("{}{target}", self.prefix);
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let mut signed: Vec<(String, String)> = vec![
            ("host".to_owned(), self.host.clone()),
            ("x-amz-date".to_owned(), self.date.clone()),
            ("x-amz-content-sha256".to_owned(), "UNSIGNED-PAYLOAD".to_owned()),
        ];
        if let Some(token) = &self.token {
            signed.push(("x-amz-security-token".to_owned(), token.clone()));
        }
        for (name, value) in headers {
            signed.retain(|(known, _)| known != name);
            signed.push(((*name).to_owned(), (*value).to_owned()));
        }
        signed.sort();
        let authorization = self.authorization(method, path, query, &signed);
        let mut head = format!("{method} {path}");
        if !query.is_empty() {
            let _ = write!(head, "?{query}");
        }
        head.push_str(" HTTP/1.1\r\nconnection: close\r\n");
        for (name, value) in &signed {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if ["PUT", "POST"].contains(&method) && !headers.iter().any(|(n, _)| *n == "content-length") {
            let _ = write!(head, "content-length: {length}\r\n");
        }
        let _ = write!(head, "authorization: {authorization}\r\n\r\n");
        head
    }

    fn authorization(&self, method: &str, path: &str, query: &str, signed: &[(String, String)]) -> String {
        let mut pairs: Vec<String> = query
            .split('&')
            .filter(|p| !p.is_empty())
            .map(|p| if p.contains('=') { p.to_owned() } else { format!("{p}=") })
            .collect();
        pairs.sort();
        let names: Vec<&str> = signed.iter().map(|(name, _)| name.as_str()).collect();
        let lines = signed.iter().fold(String::new(), |mut lines, (name, value)| {
            let _ = writeln!(lines, "{name}:{}", value.trim());
            lines
        });
        let sha = signed.iter().find(|(n, _)| n == "x-amz-content-sha256").map(|(_, v)| v.as_str());
        let canonical = format!(
            "{method}\n{path}\n{}\n{lines}\n{}\n{}",
            pairs.join("&"),
            names.join(";"),
            sha.unwrap_or("UNSIGNED-PAYLOAD")
        );
        let day = &self.date[..8];
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let hash = hex::encode(Sha256::digest(canonical));
        let text = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{hash}", self.date);
        let mut key = hmac(format!("AWS4{}", self.secret).as_bytes(), day);
        for part in [self.region.as_str(), self.service.as_str(), "aws4_request"] {
            key = hmac(&key, part);
        }
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={}, Signature={}",
            self.access_key,
            names.join(";"),
            hex::encode(hmac(&key, &text))
        )
    }

    pub fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    pub fn head_of(&self, target: &str) -> Answer {
        self.send("HEAD", target, &[], b"")
    }

    pub fn put(&self, target: &str, body: &[u8]) -> Answer {
        self.send("PUT", target, &[], body)
    }

    pub fn delete(&self, target: &str) -> Answer {
        self.send("DELETE", target, &[], b"")
    }

    /// One page of a V2 listing; `query` are further parameters.
    pub fn list(&self, bucket: &str, query: &[(&str, &str)]) -> Answer {
        let mut pairs = vec![("list-type".to_owned(), "2".to_owned())];
        pairs.extend(query.iter().map(|(name, value)| ((*name).to_owned(), encode(value))));
        pairs.sort();
        let query: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        self.get(&format!("/{bucket}?{}", query.join("&")))
    }

    /// All pages, followed by token: keys and common prefixes.
    pub fn list_all(&self, bucket: &str, query: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let (mut keys, mut prefixes) = (Vec::new(), Vec::new());
        let mut token: Option<String> = None;
        loop {
            let mut query = query.to_vec();
            if let Some(token) = &token {
                query.push(("continuation-token", token));
            }
            let page = self.list(bucket, &query);
            assert_eq!(page.status, 200, "{}", page.text());
            keys.extend(page.all("Key"));
            prefixes.extend(
                page.all("CommonPrefixes").iter().map(|p| p.replace("<Prefix>", "").replace("</Prefix>", "")),
            );
            if page.one("IsTruncated") != "true" {
                return (keys, prefixes);
            }
            token = Some(page.one("NextContinuationToken"));
        }
    }
}

/// Sends a request that is not S3's. `path` is the whole path.
pub fn json_request(
    standin: &Standin,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if method == "POST" && !headers.iter().any(|(name, _)| *name == "content-type") {
        head.push_str("content-type: application/json\r\n");
    }
    let _ = write!(head, "content-length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(("127.0.0.1", standin.port()))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(head.as_bytes())?;
    let mut raw = Vec::new();
    let read = stream.read_to_end(&mut raw);
    parse(&raw, method).ok_or_else(|| read.err().unwrap_or_else(|| std::io::Error::other("cut short")))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// RFC 3986 encoding of everything but unreserved characters.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// Nothing if the answer is incomplete.
fn parse(raw: &[u8], method: &str) -> Option<Answer> {
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut body = raw[end + 4..].to_vec();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    if status == 100 {
        return parse(&body, method);
    }
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length =
        headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse::<usize>().ok());
    if method != "HEAD" && status != 304 {
        if body.len() < length.unwrap_or(0) {
            return None;
        }
        body.truncate(length.unwrap_or(body.len()));
    }
    Some(Answer { status, headers, body })
}

/// A stand-in with one bucket `b` and the defaults.
pub fn standin() -> Standin {
    standin_with(Config::default())
}

/// A stand-in with one bucket `b`.
pub fn standin_with(config: Config) -> Standin {
    let standin = Standin::start(config).expect("starts");
    standin.create_bucket("b");
    standin
}

/// Other credentials, to rotate to.
pub fn other_credentials() -> Credentials {
    Credentials {
        access_key_id: "other".to_owned(),
        secret_access_key: "other-secret".to_owned(),
        project_ref: "otherref".to_owned(),
        anon_key: "other-anon".to_owned(),
        jwt_secret: "another-secret-of-at-least-32-characters".to_owned(),
    }
}
