//! Why a server cannot be reached at all: what stands between this machine and the first byte of an answer.
//!
//! The HTTP client nests the cause several errors deep, and its own words are for programmers. Here the cause is found
//! by its type, and told in one sentence that names the host.

use std::error::Error;
use std::io::{self, ErrorKind};

use rustls::CertificateError;

use crate::proxy::Proxy;

/// What stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The resolver knows no address for the host's name.
    Name,
    /// Nothing listens at the address.
    Refused,
    /// The network has no way to the address.
    NoRoute,
    /// The server's certificate is not accepted.
    Certificate(Flaw),
    /// The server answers the TLS handshake with something else.
    NoTls,
    /// The connection was closed or reset before an answer.
    Cut,
    /// No answer in time.
    Silent,
    /// The proxy wants a user name and a password.
    ProxyLogin,
    /// The proxy makes no connection to the server.
    ProxyRefuses,
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    UnknownIssuer,
    /// It is an authority's own, in a server's place.
    Authority,
    Expired,
    NotYetValid,
    OtherName,
    Revoked,
    Other,
}

impl Flaw {
    fn words(self) -> &'static str {
        match self {
            Self::UnknownIssuer => {
                "it is signed by itself or by an authority that this machine does not know; put the authority's \
                 certificate (PEM) into a file and name that in SSL_CERT_FILE or AWS_CA_BUNDLE"
            }
            Self::Authority => {
                "it is the certificate of an authority, which cannot be a server's at the same time; give the server \
                 one that the authority has signed (basicConstraints CA:FALSE), and name the authority's in \
                 SSL_CERT_FILE or AWS_CA_BUNDLE"
            }
            Self::Expired => {
                "it has expired by this machine's clock; renew it on the server, or set the clock"
            }
            Self::NotYetValid => "it is not valid yet by this machine's clock; set the clock",
            Self::OtherName => {
                "it is for another host name; use the name that it is for, or give the server one for this name"
            }
            Self::Revoked => "it was revoked; the server needs another",
            Self::Other => {
                "the TLS library refuses it; see `openssl s_client -connect HOST:443` for what it holds"
            }
        }
    }
}

impl Obstacle {
    /// What a failed request ran into; `None` where the cause is something else.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        let mut found = None;
        while let Some(error) = next {
            // The innermost cause is the most precise.
            found = Self::of_one(error).or(found);
            next = inner(error);
        }
        found
    }

    fn of_one(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return of_tls(error);
        }
        // These have no type of their own: the words of the standard library and of the HTTP client tell.
        let words = error.to_string();
        if words.starts_with("failed to lookup address information") {
            return Some(Self::Name);
        }
        if words.starts_with("connection closed before message completed") {
            return Some(Self::Cut);
        }
        match words.as_str() {
            "tunnel error: proxy authorization required" => return Some(Self::ProxyLogin),
            "tunnel error: unsuccessful" => return Some(Self::ProxyRefuses),
            _ => {}
        }
        if words.starts_with("HTTP connect timeout") || words.starts_with("HTTP read timeout") {
            return Some(Self::Silent);
        }
        match error.downcast_ref::<io::Error>()?.kind() {
            ErrorKind::ConnectionRefused => Some(Self::Refused),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                Some(Self::NoRoute)
            }
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => Some(Self::Cut),
            ErrorKind::TimedOut => Some(Self::Silent),
            _ => None,
        }
    }

    /// Whether it may pass while one waits a moment. A name, a closed port, a missing route and a certificate stay as
    /// they are for longer than anybody waits for a command.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Cut | Self::Silent)
    }

    /// Whether even a machine that is still starting will not get past it.
    #[must_use]
    pub fn stays(&self) -> bool {
        matches!(self, Self::Certificate(_) | Self::NoTls)
    }

    /// With what to do.
    fn sentence(self, host: &str) -> String {
        let words = self.words(host);
        match self {
            Self::Name => format!("{words}; check --project-ref or the URL for a slip, and the network"),
            Self::Refused => format!("{words}; check the URL and its port, and that the server runs"),
            Self::NoRoute | Self::Cut | Self::Silent => {
                format!("{words}; check the URL and the network, and that the project is not paused")
            }
            Self::Certificate(_) | Self::NoTls | Self::ProxyLogin | Self::ProxyRefuses => words,
        }
    }

    /// In a part of a sentence that names the host.
    #[must_use]
    pub fn words(&self, host: &str) -> String {
        match self {
            Self::Name => format!("the name {host} does not resolve"),
            Self::Refused => format!("{host} refuses the connection"),
            Self::NoRoute => format!("the network has no route to {host}"),
            Self::Certificate(why) => format!("the certificate of {host} is not accepted: {}", why.words()),
            Self::NoTls => format!("{host} does not speak TLS: the URL should begin with http://"),
            Self::Cut => format!("{host} closes the connection without an answer"),
            Self::Silent => format!("no answer from {host} in time"),
            Self::ProxyLogin => format!(
                "{host} wants a user name and a password, and does not take those of the variable's URL, if it has any; \
                 write http://USER:PASSWORD@HOST:PORT, with special characters of the password as %XX"
            ),
            Self::ProxyRefuses => format!(
                "the proxy makes no connection to {host}; ask whoever runs the proxy, or name the host in NO_PROXY"
            ),
        }
    }
}

/// A server and the proxy on the way to it, for messages.
#[derive(Debug, Clone)]
pub struct Way {
    /// Host and port of the server.
    pub host: String,
    proxy: Option<String>,
}

impl Way {
    /// To the server of a URL.
    #[must_use]
    pub fn to(url: &str, proxy: Option<&Proxy>) -> Self {
        Self { host: host_of(url).to_owned(), proxy: proxy.map(ToString::to_string) }
    }

    /// An obstacle, with what to do.
    #[must_use]
    pub fn sentence(&self, obstacle: &Obstacle) -> String {
        let blamed = self.blamed_for(*obstacle);
        match obstacle {
            Obstacle::Name | Obstacle::Refused | Obstacle::NoRoute if self.proxy.is_some() => {
                format!(
                    "{}; check the URL in that variable, and that the proxy runs",
                    obstacle.words(&blamed)
                )
            }
            _ => obstacle.sentence(&blamed),
        }
    }

    /// An obstacle, in a part of a sentence.
    #[must_use]
    pub fn words(&self, obstacle: &Obstacle) -> String {
        obstacle.words(&self.blamed_for(*obstacle))
    }

    /// The proxy is to blame for what happens before there is a connection to it.
    fn blamed_for(&self, obstacle: Obstacle) -> String {
        match (&self.proxy, obstacle) {
            (None, _) => self.host.clone(),
            (Some(proxy), Obstacle::Name | Obstacle::Refused | Obstacle::NoRoute | Obstacle::ProxyLogin) => {
                proxy.clone()
            }
            (Some(proxy), _) => format!("{} by way of {proxy}", self.host),
        }
    }
}

/// The cause of an error. An [`io::Error`] hides the error that it holds from `source`.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    held.map(|held| held as &(dyn Error + 'static)).or_else(|| error.source())
}

fn of_tls(error: &rustls::Error) -> Option<Obstacle> {
    match error {
        rustls::Error::InvalidCertificate(error) => Some(Obstacle::Certificate(match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Flaw::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Flaw::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Flaw::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Flaw::OtherName
            }
            CertificateError::Revoked => Flaw::Revoked,
            CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
                Flaw::Authority
            }
            _ => Flaw::Other,
        })),
        rustls::Error::InvalidMessage(_) => Some(Obstacle::NoTls),
        _ => None,
    }
}

/// The host of a URL, with its port if it has one.
#[must_use]
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit('@').next().unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the HTTP client wraps what the TLS library says.
    fn wrapped(error: rustls::Error) -> io::Error {
        io::Error::other(io::Error::new(ErrorKind::InvalidData, error))
    }

    #[test]
    fn a_certificate_is_told_with_what_to_do() {
        let cases = [
            (CertificateError::UnknownIssuer, "SSL_CERT_FILE"),
            (CertificateError::Expired, "expired"),
            (CertificateError::NotValidYet, "clock"),
            (CertificateError::NotValidForName, "another host name"),
            (CertificateError::Revoked, "revoked"),
            (CertificateError::BadEncoding, "openssl"),
        ];
        for (error, word) in cases {
            let error = wrapped(rustls::Error::InvalidCertificate(error));
            let obstacle = Obstacle::of(&error).expect("it is known");
            let words = obstacle.words("storage.example");
            assert!(words.contains("certificate of storage.example") && words.contains(word), "{words}");
            assert!(!obstacle.may_pass() && obstacle.stays());
        }
    }

    #[test]
    fn what_is_found_within_is_what_counts() {
        let of = |kind: ErrorKind| Obstacle::of(&io::Error::other(io::Error::from(kind)));
        assert_eq!(of(ErrorKind::ConnectionRefused), Some(Obstacle::Refused));
        assert_eq!(of(ErrorKind::HostUnreachable), Some(Obstacle::NoRoute));
        assert_eq!(of(ErrorKind::ConnectionReset), Some(Obstacle::Cut));
        assert_eq!(of(ErrorKind::InvalidInput), None);
        let unresolved = std::net::ToSocketAddrs::to_socket_addrs("no-such-host.invalid:1").map(drop);
        assert_eq!(Obstacle::of(&unresolved.expect_err("it is reserved")), Some(Obstacle::Name));
    }

    #[test]
    fn the_host_of_a_url_has_its_port_and_no_password() {
        assert_eq!(host_of("https://abc.supabase.co/storage/v1/s3/"), "abc.supabase.co");
        assert_eq!(host_of("http://me:secret@127.0.0.1:9/x?y"), "127.0.0.1:9");
        assert_eq!(host_of("http://[::1]:54321"), "[::1]:54321");
    }
}
