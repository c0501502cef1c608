//! The proxy that the environment names for a URL, read as curl reads it.
//!
//! `https_proxy` counts for `https://`, `http_proxy` for `http://`, `all_proxy` for what has none of its own; `no_proxy`
//! names the hosts that are reached directly. Names in lower case win over those in upper case, and an empty variable is
//! none. Other than curl, `HTTP_PROXY` in upper case counts: no CGI program sets it here.

use std::env;
use std::fmt;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use crate::secret::Secret;

/// The port of an HTTP proxy whose URL has none, as curl takes it.
const DEFAULT_PORT: u16 = 1080;

/// An HTTP proxy.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// With the user name and the password, where there are any.
    url: Secret,
    /// Host and port.
    place: String,
    /// The variable that names it.
    variable: &'static str,
}

impl Proxy {
    /// The proxy on the way to a URL.
    ///
    /// # Errors
    /// Where a variable names no proxy that can be used. Its value is not repeated: it may hold a password.
    pub fn to(url: &str) -> Result<Option<Self>, String> {
        Self::read(url, |name| env::var(name).ok())
    }

    fn read(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| Some((*name, variable(name).filter(|value| !value.is_empty())?)))
        };
        let is_encrypted = url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
        let named = if is_encrypted {
            first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
        } else {
            first(&["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
        };
        let Some((name, value)) = named else { return Ok(None) };
        let exceptions = first(&["no_proxy", "NO_PROXY"]).map(|(_, list)| list).unwrap_or_default();
        if is_excepted(url, &exceptions) {
            return Ok(None);
        }
        Self::parse(name, &value).map(Some)
    }

    fn parse(variable: &'static str, value: &str) -> Result<Self, String> {
        let value = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let uri: Option<Uri> = value.parse().ok();
        let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)));
        let Some((scheme, authority)) = parts.filter(|(_, authority)| !authority.host().is_empty()) else {
            return Err(format!(
                "{variable} is not the URL of a proxy; write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with \
                 special characters of the password as %XX"
            ));
        };
        if !["http", "https"].contains(&scheme) {
            return Err(format!(
                "{variable} names a {scheme} proxy, and supafs goes through HTTP proxies only; name one \
                 (http://HOST:PORT), or name the server's host in NO_PROXY"
            ));
        }
        let (host, port) = (authority.host(), authority.port_u16());
        let port = port.unwrap_or(if scheme == "https" { 443 } else { DEFAULT_PORT });
        let place = format!("{host}:{port}");
        let login = authority.as_str().rsplit_once('@').map(|(login, _)| format!("{login}@"));
        let url = Secret::new(format!("{scheme}://{}{place}", login.unwrap_or_default()));
        Ok(Self { url, place, variable })
    }

    /// With the credentials: for the HTTP client alone.
    #[must_use]
    pub fn url(&self) -> &Secret {
        &self.url
    }
}

/// Without the credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (the proxy of {})", self.place, self.variable)
    }
}

/// Whether a list of hosts, domains, addresses and networks has the host of a URL.
fn is_excepted(url: &str, list: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
    let entries: Vec<&str> = entries.map(|entry| entry.trim_matches(['[', ']'])).collect();
    let matcher = Matcher::builder().all("http://proxy.invalid").no(entries.join(",")).build();
    matcher.intercept(&uri).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Proxy::read(url, get).map(|proxy| proxy.map(|proxy| proxy.url.expose().to_owned()))
    }

    fn found(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        proxy(url, variables).expect("usable")
    }

    #[test]
    fn the_variables_count_as_for_curl() {
        let (https, http) = ("https://abc.supabase.co/storage", "http://127.0.0.1:54321/storage");
        let is = |found: Option<String>, proxy: &str| assert_eq!(found.as_deref(), Some(proxy));
        is(found(https, &[("HTTPS_PROXY", "http://p:3128")]), "http://p:3128");
        is(found(https, &[("https_proxy", "http://a:1"), ("HTTPS_PROXY", "http://b:2")]), "http://a:1");
        is(found(https, &[("https_proxy", ""), ("HTTPS_PROXY", "http://b:2")]), "http://b:2");
        is(found(https, &[("ALL_PROXY", "p:3128")]), "http://p:3128");
        is(found(https, &[("ALL_PROXY", "http://a:1"), ("HTTPS_PROXY", "http://b:2")]), "http://b:2");
        is(found(http, &[("HTTP_PROXY", "http://p")]), "http://p:1080");
        is(found(http, &[("http_proxy", "https://me:x%40y@p")]), "https://me:x%40y@p:443");
        assert_eq!(found(https, &[("HTTP_PROXY", "http://p:1")]), None);
        assert_eq!(found(http, &[("HTTPS_PROXY", "http://p:1")]), None);
        assert_eq!(found(http, &[]), None);
    }

    #[test]
    fn hosts_of_no_proxy_are_reached_directly() {
        let is_direct =
            |url: &str, list: &str| found(url, &[("ALL_PROXY", "http://p:1"), ("NO_PROXY", list)]).is_none();
        let host = "https://abc.supabase.co/";
        for list in ["*", "abc.supabase.co", "supabase.co", ".supabase.co", "x, supabase.co", "x supabase.co"]
        {
            assert!(is_direct(host, list), "{list}");
        }
        for list in ["", "co.uk", "base.co", "bc.supabase.co", "127.0.0.1"] {
            assert!(!is_direct(host, list), "{list}");
        }
        assert!(is_direct("http://127.0.0.1:54321/", "127.0.0.1"));
        assert!(is_direct("http://127.0.0.1:54321/", "127.0.0.0/8"));
        assert!(is_direct("http://[::1]:54321/", "[::1]"));
        assert!(!is_direct("http://127.0.0.1:54321/", "localhost"));
    }

    #[test]
    fn a_value_that_is_no_proxy_is_refused_and_not_repeated() {
        for value in ["http://me:hidden word@p:1", "http://", "http://:hidden@"] {
            let why = proxy("https://x/", &[("HTTPS_PROXY", value)]).expect_err(value);
            assert!(why.contains("HTTPS_PROXY") && !why.contains("hidden"), "{why}");
        }
        let why = proxy("https://x/", &[("ALL_PROXY", "socks5://me:hidden@p:1")]).expect_err("no HTTP proxy");
        assert!(why.contains("ALL_PROXY") && why.contains("socks5") && !why.contains("hidden"), "{why}");
        assert_eq!(found("https://x/", &[("ALL_PROXY", "socks5://p:1"), ("NO_PROXY", "x")]), None);
    }

    #[test]
    fn neither_debug_nor_display_shows_the_password() {
        let proxy = Proxy::parse("HTTPS_PROXY", "http://me:hidden@p:1").expect("a proxy");
        assert_eq!(proxy.to_string(), "p:1 (the proxy of HTTPS_PROXY)");
        assert!(!format!("{proxy:?}").contains("hidden"), "{proxy:?}");
    }
}
