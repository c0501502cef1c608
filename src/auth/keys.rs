//! S3 access keys: they do not expire, and pass Row Level Security by.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;

use super::Credential;
use super::diagnosis;
use crate::identity::{Authority, Identity, Refused, Renewal};
use crate::secret::Secret;

/// The credential of a pair of keys.
pub fn credential(access_key_id: &str, secret: &Secret, origin: &str) -> Credential {
    let keys = Credentials::new(access_key_id, secret.expose(), None, None, "supafs-access-keys");
    Credential {
        provider: SharedCredentialsProvider::new(keys),
        authority: Arc::new(AccessKeys { access_key_id: access_key_id.to_owned() }),
        description: format!("S3 access key {access_key_id} of {origin}"),
        renewal: "not at all: access keys do not expire".to_owned(),
        claims: None,
    }
}

#[derive(Debug)]
struct AccessKeys {
    access_key_id: String,
}

#[async_trait::async_trait]
impl Authority for AccessKeys {
    fn identity(&self) -> Identity {
        Identity::Keys { access_key_id: self.access_key_id.clone() }
    }

    fn expires_at(&self) -> Option<SystemTime> {
        None
    }

    async fn renew(&self, _says_expired: bool) -> Renewal {
        Renewal::StillValid
    }

    fn estranged(&self) -> Option<watch::Receiver<bool>> {
        None
    }

    fn explain(&self, refusal: &Refused<'_>) -> String {
        diagnosis::of_keys(refusal)
    }
}
