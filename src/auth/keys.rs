//! S3 access keys: they do not expire, and pass Row Level Security by.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;

use super::Credential;
use super::{diagnosis, jwt};
use crate::identity::{Authority, Identity, Refused, Renewal};
use crate::secret::{Secret, masked};

/// The credential of a pair of keys.
pub fn credential(access_key_id: &str, secret: &Secret, origin: &str) -> Credential {
    let keys = Credentials::new(access_key_id, secret.expose(), None, None, "supafs-access-keys");
    Credential {
        provider: SharedCredentialsProvider::new(keys),
        authority: Arc::new(AccessKeys { access_key_id: access_key_id.to_owned() }),
        description: format!("S3 access key {} of {origin}", masked(access_key_id)),
        renewal: "not at all: access keys do not expire".to_owned(),
        claims: None,
    }
}

/// What was mistaken for what in a pair of keys, with what to do; `None` where the pair may be one.
///
/// Supabase makes ids of 32 hexadecimal digits and secrets of 64. Others may look otherwise, so that only what no pair
/// can be is refused.
#[must_use]
pub fn mistake(id: &str, secret: &str) -> Option<String> {
    let is_hex =
        |text: &str, len: usize| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_swapped =
        (is_hex(id, 64) && !is_hex(secret, 64)) || (is_hex(secret, 32) && id.len() > secret.len());
    for (which, text) in [("id", id), ("secret", secret)] {
        if let Some(what) = jwt::api_key(text) {
            return Some(format!(
                "the {which} is an API key ({what}), not part of an S3 access key; S3 access keys are made in the \
                 dashboard under Storage > S3"
            ));
        }
    }
    if is_swapped {
        Some("id and secret look swapped; give the shorter one as the id".to_owned())
    } else if id == secret {
        Some("id and secret are the same; give both of the pair".to_owned())
    } else {
        None
    }
}

struct AccessKeys {
    access_key_id: String,
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKeys({})", masked(&self.access_key_id))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_mistaken_for_what_is_told() {
        let (id, secret) = ("625729a08b95bf1b7ff351a663f3a23c", "850181e4652dd023b7a98c58ae0d2d34".repeat(2));
        let is = |id: &str, secret: &str, word: &str| {
            let why = mistake(id, secret).unwrap_or_else(|| panic!("{word} was overlooked"));
            assert!(why.contains(word), "{why}");
        };
        assert_eq!(mistake(id, &secret), None);
        is(&secret, id, "swapped");
        is(&secret, "anything", "swapped");
        is("a-long-name-that-somebody-chose-for-an-id", id, "swapped");
        is("sb_secret_abc", &secret, "API key");
        is(id, "sb_publishable_abc", "API key");
        is(&secret, &secret, "same");
        // Of a server of one's own.
        for (id, secret) in [("minio", "minio123"), (id, id.replace('6', "7").as_str()), ("a", "b")] {
            assert_eq!(mistake(id, secret), None, "{id}");
        }
    }

    #[test]
    fn an_id_is_shown_by_its_first_characters() {
        let id = "625729a08b95bf1b7ff351a663f3a23c";
        let credential = credential(id, &Secret::new("secret"), "a test");
        let shown = format!(
            "{credential:?} {} {:?}",
            credential.authority.identity(),
            credential.authority.identity()
        );
        assert!(shown.contains("625729a0…") && !shown.contains("625729a08"), "{shown}");
        assert_eq!(
            credential.authority.identity().tag(),
            "Keys { access_key_id: \"625729a08b95bf1b7ff351a663f3a23c\" }"
        );
    }
}
