//! Error answers as the S3 endpoint gives them: status, code and message, with one constructor per case so
//! that the wording is written once.

use std::borrow::Cow;

/// An error answer. `Display` is not needed: it only ever leaves the process as XML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Error {
    pub status: u16,
    pub code: Cow<'static, str>,
    pub message: Cow<'static, str>,
}

/// Shorthand of every fallible operation.
pub type S3Result<T> = Result<T, S3Error>;

const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
const SESSION_MISMATCH: &str = "The request signature we calculated does not match the signature you provided, Check your credentials. The session token should be a valid JWT token";

impl S3Error {
    /// Any answer, also those of injected faults.
    pub fn new(
        status: u16,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, code: code.into(), message: message.into() }
    }

    pub fn no_such_key() -> Self {
        Self::new(404, "NoSuchKey", "Object not found")
    }

    pub fn no_such_bucket() -> Self {
        Self::new(404, "NoSuchBucket", "Bucket not found")
    }

    pub fn bucket_not_empty() -> Self {
        Self::new(409, "ResourceNotEmpty", "The bucket you tried to delete is not empty")
    }

    pub fn bucket_referenced() -> Self {
        Self::new(
            409,
            "ResourceReferenced",
            "The bucket could not be updated because it is referenced by a pending multipart upload.",
        )
    }

    pub fn already_exists() -> Self {
        Self::new(409, "ResourceAlreadyExists", "The resource already exists")
    }

    pub fn invalid_mime(kind: &str) -> Self {
        Self::new(415, "InvalidMimeType", format!("mime type {kind} is not supported"))
    }

    /// What the storage behind the server said; the code is always this one.
    pub fn backend(status: u16, message: &'static str) -> Self {
        Self::new(status, "S3Error", message)
    }

    pub fn related_missing() -> Self {
        Self::new(404, "InvalidRequest", "The related resource does not exist")
    }

    pub fn access_denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(403, "AccessDenied", message)
    }

    pub fn row_security() -> Self {
        Self::access_denied("new row violates row-level security policy")
    }

    pub fn signature_mismatch(session: bool) -> Self {
        Self::new(403, "SignatureDoesNotMatch", if session { SESSION_MISMATCH } else { MISMATCH })
    }

    pub fn invalid_signature(message: &'static str) -> Self {
        Self::new(400, "InvalidSignature", message)
    }

    pub fn expired_token() -> Self {
        Self::new(400, "ExpiredToken", "The provided token has expired.")
    }

    pub fn invalid_key(key: &str) -> Self {
        Self::new(400, "InvalidKey", format!("Invalid key: {key}"))
    }

    pub fn invalid_bucket_name() -> Self {
        Self::new(400, "InvalidBucketName", "Bucket name invalid")
    }

    pub fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "InvalidRequest", message)
    }

    pub fn invalid_parameter(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "InvalidParameter", message)
    }

    pub fn missing_parameter(name: &str) -> Self {
        Self::new(400, "MissingParameter", format!("Missing Required Parameter {name}"))
    }

    pub fn invalid_range(status: u16) -> Self {
        Self::new(status, "InvalidRange", "invalid range provided")
    }

    pub fn too_large() -> Self {
        Self::new(413, "EntityTooLarge", "The object exceeded the maximum allowed size")
    }

    pub fn internal() -> Self {
        Self::new(500, "InternalError", "Internal Server Error")
    }
}

impl From<std::io::Error> for S3Error {
    /// The real server hides what its disk said, too.
    fn from(_: std::io::Error) -> Self {
        Self::internal()
    }
}
