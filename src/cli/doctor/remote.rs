//! What only the server can tell: reachability, clock, whether the credential and the bucket work.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Check;
use crate::auth::Credential;
use crate::auth::jwt::Claims;
use crate::config::{Root, Service, Tuning};
use crate::identity::Refused;
use crate::stats::Stats;
use crate::store::s3::S3Service;
use crate::store::{ListRequest, ListedObject, ObjectStore, StoreError, StoreErrorKind, reach};

/// A person waits for the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Signatures are not held to the clock, tokens are: by the second.
const SKEW: Duration = Duration::from_secs(5);
/// How many names are looked through for one with bytes to read.
const LOOK_THROUGH: u16 = 100;

/// Runs the checks in order; what depends on a failed one is left out.
pub async fn checks(
    service: Service,
    credential: Option<Credential>,
    mut tuning: Tuning,
    bucket: Option<(String, String)>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let date = match reach::reach(&service.endpoint, PATIENCE).await {
        Ok(reached) => {
            checks.extend(answered(&reached));
            reached.date
        }
        Err(why) => {
            let text = why.to_string();
            let (detail, fix) = text.split_once("; ").unwrap_or((&text, "check the URL and the network"));
            checks.push(Check::fail("reachable", detail, fix));
            return checks;
        }
    };
    let Some(credential) = credential else { return checks };
    tuning.op_timeout = tuning.op_timeout.min(PATIENCE);
    let authority = Arc::clone(&credential.authority);
    let stats = Arc::new(Stats::default());
    let s3 = match S3Service::new(&service, credential.provider.clone(), authority, &tuning, stats) {
        Ok(s3) => s3,
        Err(why) => {
            checks.push(Check::fail("accepted", why, "see the message"));
            return checks;
        }
    };
    let accepted = accepted(&s3, &credential, date).await;
    let refused = accepted.status == super::Status::Fail;
    checks.push(accepted);
    if let (false, Some((bucket, prefix))) = (refused, bucket) {
        let store = s3.root(&Root::Bucket { bucket: bucket.clone(), prefix });
        checks.extend(bucket_checks(&*store, &bucket, credential.claims.as_ref()).await);
    }
    checks
}

fn answered(reached: &reach::Reached) -> Vec<Check> {
    let took = format!("{} ms", reached.round_trip.as_millis());
    let shape = if reached.speaks_s3 {
        Check::ok("reachable", format!("an S3 service answers in {took}"))
    } else {
        Check::warn(
            "reachable",
            format!("status {} in {took}, not in the way of an S3 service", reached.status),
            "check the endpoint: https://<project-ref>.storage.supabase.co/storage/v1/s3/",
        )
    };
    let Some(date) = reached.date else {
        return vec![
            shape,
            Check::warn("clock", "the server tells no time", "check the time of this machine"),
        ];
    };
    // The header has whole seconds, and was written about half a round trip ago.
    let here = SystemTime::now() - reached.round_trip / 2;
    let (ahead, difference) = match here.duration_since(date) {
        Ok(difference) => (true, difference.saturating_sub(Duration::from_secs(1))),
        Err(error) => (false, error.duration()),
    };
    let clock = if difference <= SKEW {
        Check::ok("clock", "agrees with the server's")
    } else {
        let direction = if ahead { "ahead of" } else { "behind" };
        Check::warn(
            "clock",
            format!("this machine is {} s {direction} the server", difference.as_secs()),
            "set the clock: tokens expire by it (sudo timedatectl set-ntp true)",
        )
    };
    vec![shape, clock]
}

/// Listing the buckets needs no right: a user without policies gets an empty list.
async fn accepted(s3: &S3Service, credential: &Credential, date: Option<SystemTime>) -> Check {
    match s3.buckets().await {
        Ok(buckets) if buckets.is_empty() && credential.claims.is_some() => Check::ok(
            "accepted",
            "the server accepts the token; it lists no bucket to this user, so name buckets when mounting",
        ),
        Ok(buckets) => Check::ok("accepted", format!("the server lists {} bucket(s)", buckets.len())),
        Err(error) if matches!(error.kind, StoreErrorKind::BadCredential | StoreErrorKind::Expired) => {
            let refusal = Refused { code: &error.code, message: &error.message, date };
            let check = failed("accepted", &error, credential.claims.as_ref());
            Check { fix: Some(credential.authority.explain(&refusal)), ..check }
        }
        Err(error) => failed("accepted", &error, credential.claims.as_ref()),
    }
}

async fn bucket_checks(store: &dyn ObjectStore, bucket: &str, claims: Option<&Claims>) -> Vec<Check> {
    let request = ListRequest { limit: LOOK_THROUGH, ..ListRequest::default() };
    let page = match store.list(&request).await {
        Ok(page) => page,
        Err(error) => return vec![failed("listable", &error, claims)],
    };
    if page.objects.is_empty() {
        let whose = if claims.is_some() {
            "it is empty, or no SELECT policy on storage.objects shows this user anything in it"
        } else {
            "it is empty there"
        };
        let fix = "upload something, check the prefix, or add a SELECT policy for this user";
        return vec![Check::warn("listable", format!("bucket {bucket} lists nothing: {whose}"), fix)];
    }
    let listable = Check::ok("listable", format!("bucket {bucket} lists objects"));
    let readable = match page.objects.iter().find(|object| object.size > 0) {
        Some(object) => readable(store, object, claims).await,
        None => {
            Check::warn("readable", "no object with bytes among the first ones", "upload one and try again")
        }
    };
    vec![listable, readable]
}

async fn readable(store: &dyn ObjectStore, object: &ListedObject, claims: Option<&Claims>) -> Check {
    let answer = async {
        let mut body = store.get(&object.key, Some(0..1), object.size).await?;
        body.body.next().await
    };
    match answer.await {
        Ok(_) => Check::ok("readable", format!("the first byte of {:?} arrived", object.key)),
        Err(error) => failed("readable", &error, claims),
    }
}

fn failed(check: &'static str, error: &StoreError, claims: Option<&Claims>) -> Check {
    // The key is empty, or in the detail already.
    let StoreError { operation, status, code, message, .. } = error;
    let answer = if *status == 0 { String::new() } else { format!(" {status} {code}") };
    Check::fail(check, format!("{operation}:{answer} {message}"), fix(error, claims))
}

fn fix(error: &StoreError, claims: Option<&Claims>) -> &'static str {
    let session = claims.is_some();
    match error.kind {
        StoreErrorKind::BadCredential if error.code == "SignatureDoesNotMatch" && session => {
            "try the project's other key: the legacy anon key (a JWT) in place of the publishable key, or the \
             other way round; and leave the region at us-east-1"
        }
        StoreErrorKind::BadCredential if error.code == "SignatureDoesNotMatch" => {
            "the secret does not belong to this access key id, or the region is not accepted: set both of one \
             pair, and leave the region at us-east-1"
        }
        StoreErrorKind::BadCredential if session && error.message.contains("Access Key") => {
            "the server does not know this project ref: correct --project-ref (self-hosted: the TENANT_ID of \
             the storage service, `stub` by default)"
        }
        StoreErrorKind::BadCredential if session => {
            "the server does not accept this token: take a new access_token of this project, and check the clock"
        }
        StoreErrorKind::BadCredential => {
            "the server does not know this access key id: make a pair in the dashboard under Storage > S3"
        }
        StoreErrorKind::Expired => "sign in again and give the new access_token",
        StoreErrorKind::NoSuchBucket => {
            "check the bucket's name (upper and lower case differ); see `supafs buckets`"
        }
        StoreErrorKind::Denied => "add a policy on storage.objects that allows this user to do it",
        StoreErrorKind::PolicyError => {
            "correct the policy on storage.objects, or the trigger, that raises this SQL error"
        }
        StoreErrorKind::NotFound if session => "add a SELECT policy on storage.objects for this user",
        StoreErrorKind::InvalidKey => "rename the object: the server refuses this name",
        StoreErrorKind::Unavailable | StoreErrorKind::TimedOut => {
            "try again; see the project's status in the dashboard (a paused project does not answer)"
        }
        StoreErrorKind::NotFound
        | StoreErrorKind::RangeNotSatisfiable
        | StoreErrorKind::Protocol
        | StoreErrorKind::TooLarge
        | StoreErrorKind::UnsupportedType
        | StoreErrorKind::NoSuchUpload
        | StoreErrorKind::Refused => "check the endpoint; if it is right, please report this message",
    }
}
