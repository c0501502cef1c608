//! Policies that raise an SQL error instead of deciding: how the server's answers show it, and the line in the log.
//!
//! The server answers such an error of PostgreSQL by its SQLSTATE (storage's `DBError.fromDBError`): 22P02, a text that
//! is no value of its type, as 400 `InvalidParameter` with PostgreSQL's words; 42703 and 42P01, a missing column or
//! table, as 503 `DatabaseSchemaMismatch`; 42P17, a policy that asks itself, as 503 `DatabaseInvalidObjectDefinition`;
//! most others as 500 `DatabaseError` with `database error, code: ` and the SQLSTATE.

use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::retry::Call;
use super::{StoreError, StoreErrorKind};
use crate::identity::{Authority, Identity};

/// Classes of SQLSTATE that are about the database's state and not about a statement: connection, transaction,
/// resources, locks, operator, system, internal.
const PASSING: [&str; 9] = ["08", "25", "40", "53", "55", "57", "58", "F0", "XX"];

/// Invalid parameter value: PostgreSQL's answer to `SET ROLE` with a role that it does not have.
const UNKNOWN_ROLE: &str = "22023";

/// How long the log is silent about a policy error that it has told.
const SILENCE: Duration = Duration::from_mins(1);

/// Policy errors that are remembered as told.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(100).unwrap();

/// Whether an answer shows that a policy, or a trigger, raised an error.
pub(super) fn is_raised(status: u16, code: &str, message: &str) -> bool {
    match (status, code) {
        // The server's own words are about parameters of a request that is never sent from here.
        (400, "InvalidParameter") => !message.starts_with("Invalid Parameter"),
        (500, "DatabaseError") => {
            sqlstate(message).is_some_and(|state| !PASSING.iter().any(|class| state.starts_with(class)))
        }
        (503, "DatabaseSchemaMismatch") => message.contains("RLS policy"),
        (503, "DatabaseInvalidObjectDefinition") => true,
        _ => false,
    }
}

/// The SQLSTATE that the server's words end with.
fn sqlstate(message: &str) -> Option<&str> {
    let (_, state) = message.rsplit_once("code: ")?;
    (state.len() == 5 && state.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(state)
}

/// What the log has been told.
pub(super) struct PolicyErrors {
    told: Mutex<LruCache<(String, String), Instant>>,
}

impl Default for PolicyErrors {
    fn default() -> Self {
        Self { told: Mutex::new(LruCache::new(REMEMBERED)) }
    }
}

impl PolicyErrors {
    /// Tells an error that the token causes from one that a policy raises by itself, and logs the latter: once a minute
    /// for each bucket and message.
    pub(super) fn attribute(
        &self,
        call: Call<'_>,
        authority: &dyn Authority,
        mut error: StoreError,
    ) -> StoreError {
        if error.kind != StoreErrorKind::PolicyError {
            return error;
        }
        let identity = authority.identity();
        if is_about_the_token(&error.message, &identity) {
            error.kind = StoreErrorKind::BadCredential;
            if let Identity::User { role, .. } = identity
                && sqlstate(&error.message) == Some(UNKNOWN_ROLE)
            {
                // The server's words do not name it.
                error.message = format!("the database has no role {role:?}: {}", error.message);
            }
            return error;
        }
        let now = Instant::now();
        let error_in_bucket = (call.bucket.to_owned(), error.message.clone());
        let earlier = self.told.lock().put(error_in_bucket, now);
        if earlier.is_none_or(|earlier| now > earlier + SILENCE) {
            tracing::error!(
                bucket = call.bucket,
                operation = call.operation.name(),
                key = call.key,
                code = error.code,
                message = error.message,
                "policy error: a policy on storage.objects, or a trigger, raises an SQL error; correct it in the database"
            );
        }
        error
    }
}

/// Whether the words are about the user's id, which `auth.uid()` takes for a UUID, or about the user's role.
fn is_about_the_token(message: &str, identity: &Identity) -> bool {
    let Identity::User { sub, .. } = identity else { return false };
    let is_subject = |sub: &String| message.contains("uuid") && message.contains(&format!("\"{sub}\""));
    sub.as_ref().is_some_and(is_subject) || sqlstate(message) == Some(UNKNOWN_ROLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sql_error_of_a_policy_is_told_from_a_database_in_trouble() {
        for (status, code, message) in [
            (400, "InvalidParameter", "invalid input syntax for type uuid: \"docs\""),
            (400, "InvalidParameter", "malformed array literal: \"x\""),
            (500, "DatabaseError", "database error, code: 22012"),
            (500, "DatabaseError", "database error, code: P0001"),
            (
                503,
                "DatabaseSchemaMismatch",
                "There is a database schema mismatch in a trigger or RLS policy: x",
            ),
            (503, "DatabaseInvalidObjectDefinition", "The database schema is invalid or incompatible."),
        ] {
            assert!(is_raised(status, code, message), "{status} {code} {message}");
        }
        for (status, code, message) in [
            (400, "InvalidParameter", "Invalid Parameter continuation token"),
            (400, "InvalidRequest", "invalid input syntax"),
            (500, "DatabaseError", "database error, code: 57P01"),
            (500, "DatabaseError", "database error, code: 40001"),
            (500, "DatabaseError", "database error, code: undefined"),
            (503, "DatabaseSchemaMismatch", "The database schema is out of sync."),
            (500, "InternalError", "Internal Server Error"),
        ] {
            assert!(!is_raised(status, code, message), "{status} {code} {message}");
        }
    }

    #[test]
    fn a_user_id_that_is_no_uuid_and_an_unknown_role_are_the_tokens_fault() {
        let user = |sub: Option<&str>| Identity::User {
            project_ref: "stub".to_owned(),
            sub: sub.map(ToOwned::to_owned),
            role: "clerk".to_owned(),
        };
        let no_uuid = "invalid input syntax for type uuid: \"alice\"";
        assert!(is_about_the_token(no_uuid, &user(Some("alice"))));
        assert!(!is_about_the_token(no_uuid, &user(Some("bob"))));
        assert!(!is_about_the_token(no_uuid, &user(None)));
        assert!(is_about_the_token("database error, code: 22023", &user(None)));
        let keys = Identity::Keys { access_key_id: "id".to_owned() };
        assert!(!is_about_the_token("database error, code: 22023", &keys));
    }
}
