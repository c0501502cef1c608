//! The standard AWS chain: environment and `~/.aws` files, with their `endpoint_url` and region.
//!
//! Instance and container metadata are never asked: on a machine in a cloud they would give keys that mean
//! nothing to Supabase, after seconds of waiting.

use std::fmt;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_types::service_config::ServiceConfigKey;

use super::source::TokenSource;
use super::{Credential, Session, jwt};
use crate::secret::Secret;

/// What the chain gives.
pub struct Chain {
    profile: Option<String>,
    credentials: Credentials,
    /// `endpoint_url` of the profile or of `AWS_ENDPOINT_URL(_S3)`.
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// Asks the chain, or only `profile` where one is named.
///
/// # Errors
/// Where it has no credentials, in the words of the SDK.
pub fn load(profile: Option<&str>) -> Result<Chain, String> {
    // A runtime of its own: this runs before the daemon's, and on its blocking pool. The chain reads
    // environment and files, and runs what `credential_process` of a profile names.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot read the AWS configuration: {error}"))?;
    runtime.block_on(ask(profile))
}

async fn ask(profile: Option<&str>) -> Result<Chain, String> {
    let credentials = credentials(profile).await.map_err(|error| none(profile, &error))?;
    let sdk = configuration(profile).await;
    let region = sdk.region().map(ToString::to_string);
    Ok(Chain { profile: profile.map(str::to_owned), credentials, endpoint_url: endpoint_url(&sdk), region })
}

/// Why the chain gives nothing. Where it is simply empty, the library's words tell of its own parts only.
fn none(profile: Option<&str>, error: &CredentialsError) -> String {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let cause = cause(error);
    match (profile, error) {
        (Some(name), CredentialsError::CredentialsNotLoaded(_)) => {
            format!(
                "the AWS profile {name:?} gives no credentials: there is none of that name with keys in ~/.aws"
            )
        }
        (Some(name), _) => format!("the AWS profile {name:?} gives no credentials: {cause}"),
        (None, CredentialsError::CredentialsNotLoaded(_)) => {
            let pair = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
            match pair.map(is_set) {
                [true, false] => format!("{} is set without {}", pair[0], pair[1]),
                [false, true] => format!("{} is set without {}", pair[1], pair[0]),
                _ => "nothing is set, and the AWS environment and files have none".to_owned(),
            }
        }
        (None, _) => format!("the AWS environment and files give none: {cause}"),
    }
}

/// The innermost cause: what is around it tells of the library's own parts.
fn cause(error: &CredentialsError) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    let words: Vec<String> = innermost.to_string().lines().map(|line| line.trim().to_owned()).collect();
    let words = words.join(" ");
    words.trim_start_matches("ProfileFile provider could not be built: ").trim_end_matches('.').to_owned()
}

async fn credentials(profile: Option<&str>) -> Result<Credentials, CredentialsError> {
    let mut files = ProfileFileCredentialsProvider::builder();
    for metadata in ["Ec2InstanceMetadata", "EcsContainer"] {
        files = files.with_custom_provider(metadata, NeverAsked);
    }
    if let Some(name) = profile {
        return files.profile_name(name).build().provide_credentials().await;
    }
    match EnvironmentVariableCredentialsProvider::new().provide_credentials().await {
        Err(CredentialsError::CredentialsNotLoaded(_)) => files.build().provide_credentials().await,
        answer => answer,
    }
}

async fn configuration(profile: Option<&str>) -> SdkConfig {
    let mut file_region = ProfileFileRegionProvider::builder();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).no_credentials();
    if let Some(name) = profile {
        file_region = file_region.profile_name(name);
        loader = loader.profile_name(name);
    }
    let file_region = file_region.build();
    let region = match profile {
        Some(_) => RegionProviderChain::first_try(file_region),
        None => RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(file_region),
    };
    loader.region(region).load().await
}

/// The one for S3 comes before the general one, as in every AWS SDK.
fn endpoint_url(sdk: &SdkConfig) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id("s3")
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    sdk.service_config()
        .and_then(|service| service.load_config(key))
        .or_else(|| sdk.endpoint_url().map(str::to_owned))
}

impl Chain {
    /// As the chain's source is named in messages.
    #[must_use]
    pub fn origin(&self) -> String {
        origin(self.profile.as_deref())
    }

    /// The credential: a user session where the session token is a JWT, else access keys.
    ///
    /// # Errors
    /// A session token that is no JWT: Supabase knows no other kind.
    pub fn credential(&self) -> Result<Credential, String> {
        let secret = Secret::new(self.credentials.secret_access_key());
        let access_key_id = self.credentials.access_key_id();
        let Some(token) = self.credentials.session_token().filter(|token| !token.is_empty()) else {
            if let Some(why) = super::mistake(access_key_id, secret.expose()) {
                return Err(format!("{}: {why}", self.origin()));
            }
            return Ok(super::access_keys(access_key_id, &secret, &self.origin()));
        };
        jwt::user_claims(token).map_err(|why| {
            format!(
                "the session token of {} is none of Supabase: {why}. Unset AWS_SESSION_TOKEN, or give \
                 Supabase's own settings",
                self.origin()
            )
        })?;
        Session {
            project_ref: access_key_id.to_owned(),
            api_key: secret.clone(),
            source: Box::new(ChainToken {
                profile: self.profile.clone(),
                access_key_id: access_key_id.to_owned(),
                secret,
            }),
            token: Secret::new(token),
        }
        .credential()
    }
}

fn origin(profile: Option<&str>) -> String {
    profile
        .map_or_else(|| "the AWS environment and files".to_owned(), |name| format!("the AWS profile {name}"))
}

/// The chain asked again: another program may have written a new token to `~/.aws/credentials`.
struct ChainToken {
    profile: Option<String>,
    access_key_id: String,
    secret: Secret,
}

impl fmt::Debug for ChainToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainToken").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl TokenSource for ChainToken {
    fn describe(&self) -> String {
        origin(self.profile.as_deref())
    }

    fn load(&self) -> Result<Secret, String> {
        let Chain { credentials, .. } = load(self.profile.as_deref())?;
        if credentials.access_key_id() != self.access_key_id
            || credentials.secret_access_key() != self.secret.expose()
        {
            return Err("it now gives other keys; unmount and mount again to use them".to_owned());
        }
        credentials
            .session_token()
            .map(Secret::new)
            .ok_or_else(|| "it gives no session token any more".to_owned())
    }

    fn remedy(&self) -> String {
        "write a new aws_session_token to the credentials file, or mount again".to_owned()
    }

    fn renewal(&self) -> String {
        format!("from {}, ahead of expiry", origin(self.profile.as_deref()))
    }
}

/// Stands where the SDK would ask the metadata services.
#[derive(Debug)]
struct NeverAsked;

impl ProvideCredentials for NeverAsked {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        aws_credential_types::provider::future::ProvideCredentials::ready(Err(
            CredentialsError::invalid_configuration("supafs never asks instance or container metadata"),
        ))
    }
}
