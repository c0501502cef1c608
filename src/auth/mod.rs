//! Credentials: what signs the requests, and how a user's token stays fresh.
//!
//! Every kind of credential ends in one [`Credential`]. Only layers below are imported: the object store is
//! given the provider and the [`Authority`], and knows nothing of where they come from.
//!
//! Invariant: whatever is asked of a provider is answered from memory, so that the SDK's identity cache
//! (which cannot be invalidated after a refusal) can be off.

pub mod aws_chain;
pub mod diagnosis;
pub mod gotrue;
pub mod jwt;
mod keys;
pub mod mint;
pub mod session;
pub mod session_store;
pub mod sign_in;
pub mod source;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::provider::SharedCredentialsProvider;

use crate::identity::Authority;
use crate::secret::Secret;
use jwt::Claims;
use session::SessionCredentials;
use source::TokenSource;

/// Something to sign requests with.
#[derive(Clone)]
pub struct Credential {
    pub provider: SharedCredentialsProvider,
    pub authority: Arc<dyn Authority>,
    /// What it is and where it comes from, for a person; never the secret.
    pub description: String,
    /// How it stays good, for a person.
    pub renewal: String,
    /// Of a user's token: what it said when it was read first.
    pub claims: Option<Claims>,
}

pub use keys::mistake;

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The provider would show the whole id.
        f.debug_struct("Credential").field("description", &self.description).finish_non_exhaustive()
    }
}

/// S3 access keys.
#[must_use]
pub fn access_keys(access_key_id: &str, secret: &Secret, origin: &str) -> Credential {
    keys::credential(access_key_id, secret, origin)
}

/// One user of a project.
#[derive(Debug)]
pub struct Session {
    /// Access key id of the session protocol.
    pub project_ref: String,
    /// The anon or publishable key: the secret of the session protocol.
    pub api_key: Secret,
    pub source: Box<dyn TokenSource>,
    /// The token that `source` gave first.
    pub token: Secret,
}

impl Session {
    /// Starts with the first token; later ones are asked of the source ahead of expiry.
    ///
    /// # Errors
    /// A token that is no JWT or has expired, with what to do.
    pub fn credential(self) -> Result<Credential, String> {
        let description = format!("user session with the token of {}", self.source.describe());
        let renewal = self.source.renewal();
        let session = SessionCredentials::start(self, SystemTime::now)?;
        let claims = session.first_claims().clone();
        Ok(Credential {
            provider: SharedCredentialsProvider::new(session.clone()),
            authority: Arc::new(session),
            description,
            renewal,
            claims: Some(claims),
        })
    }
}
