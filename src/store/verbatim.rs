//! Header values and keys reach the server as they are.
//!
//! The SDK signs a header value with its runs of spaces folded to one, as AWS does. Supabase Storage compares the
//! signature with the value as it arrived (`constructCanonicalHeaders` in its `signature-v4.ts`), so that a value with
//! two spaces in a row is `SignatureDoesNotMatch`. The server looks only at the headers that `SignedHeaders` names:
//! such a value is sent unsigned, as the bodies are. TLS guards the way.
//!
//! The SDK also takes a key of spaces alone for an empty one. It is given another key, and the path is mended before
//! it is signed.

use std::borrow::Cow;

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_types::config_bag::{Storable, StoreReplace};

/// Begins what the SDK is given for a key of spaces. No key holds this character: the server refuses it.
const MARK: char = '\u{7f}';

/// How the beginning of such a key looks in a path.
const MARKED: &str = "/%7F%20";

/// Sends header values that the SDK would not sign as they are without a signature.
#[derive(Debug)]
pub(super) struct Verbatim;

/// Names and values of headers that join the request once it is signed.
#[derive(Debug)]
struct Unsigned(Vec<(String, String)>);

impl Storable for Unsigned {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Verbatim {
    fn name(&self) -> &'static str {
        "Verbatim"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        if request.uri().contains(MARKED) {
            let uri = request.uri().replacen(MARKED, "/%20", 1);
            request.set_uri(uri)?;
        }
        let headers = request.headers_mut();
        let folded = headers.iter().filter(|(_, value)| is_folded(value));
        let folded: Vec<_> = folded.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        for (name, _) in &folded {
            headers.remove(name);
        }
        config.interceptor_state().store_put(Unsigned(folded));
        Ok(())
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(Unsigned(headers)) = config.load::<Unsigned>() else { return Ok(()) };
        for (name, value) in headers {
            context.request_mut().headers_mut().try_append(name.clone(), value.clone())?;
        }
        Ok(())
    }
}

/// Whether the SDK signs another value than the one that it sends.
fn is_folded(value: &str) -> bool {
    value.contains("  ")
}

/// A key in a form that the SDK takes.
pub(super) fn spelled(key: &str) -> Cow<'_, str> {
    let is_blank = !key.is_empty() && key.bytes().all(|byte| byte == b' ');
    if is_blank { Cow::Owned(format!("{MARK}{key}")) } else { Cow::Borrowed(key) }
}

/// Whether an HTTP header arrives with this value. Spaces at its ends are lost on the way, bytes outside ASCII and
/// control characters are refused or read in another encoding, and an empty value is as good as none.
#[must_use]
pub fn is_header_value(value: &[u8]) -> bool {
    let is_inner = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
    value.iter().all(is_inner) && is_edge(value.first()) && is_edge(value.last())
}

/// Whether the server takes this as a Content-Type: `type/subtype` and parameters. A form is refused for its body, and
/// everything else by the server's web framework before it looks at the request (415).
#[must_use]
pub fn is_media_type(value: &str) -> bool {
    let kind = value.split(';').next().unwrap_or_default().trim();
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token);
    kind.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
        && !kind.eq_ignore_ascii_case("multipart/form-data")
}

/// What the name of a header and the halves of a media type consist of (RFC 9110, section 5.6.2).
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
