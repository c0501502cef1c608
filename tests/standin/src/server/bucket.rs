//! Operations on buckets. Users see a bucket's own row only where a role was given sight of it, and never
//! create or delete one.

use super::Call;
use super::reply::Reply;
use crate::clock;
use crate::error::{S3Error, S3Result};
use crate::key::check_bucket_name;
use crate::store::Bucket;
use crate::xml::Document;

fn sees(call: &Call<'_>, bucket: &Bucket) -> bool {
    call.identity.bypasses_policies() || bucket.visible_to.contains(&call.identity.role)
}

fn must_see(call: &Call<'_>) -> S3Result<()> {
    let seen = call.shared.store.read(&call.target.bucket, |bucket| sees(call, bucket));
    if seen == Some(true) { Ok(()) } else { Err(S3Error::no_such_bucket()) }
}

/// `ListBuckets`
pub fn list(call: &Call<'_>) -> Reply {
    let mut doc = Document::new("ListAllMyBucketsResult");
    call.shared.store.read_all(|buckets| {
        let seen: Vec<_> = buckets.iter().filter(|(_, bucket)| sees(call, bucket)).collect();
        if seen.is_empty() {
            doc.leaf("Buckets", "");
            return;
        }
        doc.open("Buckets");
        for (name, bucket) in seen {
            doc.open("Bucket");
            doc.leaf("Name", name).leaf("CreationDate", &clock::iso(bucket.created_at));
            doc.close("Bucket");
        }
        doc.close("Buckets");
    });
    Reply::xml(doc)
}

/// `CreateBucket`
pub fn create(call: &Call<'_>) -> S3Result<Reply> {
    let name = &call.target.bucket;
    check_bucket_name(name)?;
    if !call.identity.bypasses_policies() {
        return Err(S3Error::row_security());
    }
    let public = call.header("x-amz-acl").as_deref() == Some("public-read");
    if !call.shared.store.create_bucket(name, public)? {
        return Err(S3Error::new(409, "BucketAlreadyExists", "The resource already exists"));
    }
    Ok(Reply::new(200).header("location", &format!("/{name}")))
}

/// `HeadBucket`
pub fn head(call: &Call<'_>) -> S3Result<Reply> {
    must_see(call)?;
    Ok(Reply::new(200).header("x-amz-bucket-region", &call.shared.region))
}

/// `DeleteBucket`
pub fn delete(call: &Call<'_>) -> S3Result<Reply> {
    let name = &call.target.bucket;
    if !call.identity.bypasses_policies() {
        // Emptiness is looked at as service role, the row is then deleted as the user, who has no right.
        let empty = call.shared.store.read(name, |bucket| bucket.objects.is_empty());
        return match empty {
            Some(false) => Err(S3Error::bucket_not_empty()),
            _ => Err(S3Error::no_such_bucket()),
        };
    }
    call.shared.store.delete_bucket(name)?;
    Ok(Reply::new(204))
}

/// `GetBucketLocation`
pub fn location(call: &Call<'_>) -> S3Result<Reply> {
    must_see(call)?;
    let mut doc = Document::new("LocationConstraint");
    doc.text(&call.shared.region);
    Ok(Reply::xml(doc))
}

/// `GetBucketVersioning`
pub fn versioning(call: &Call<'_>) -> S3Result<Reply> {
    must_see(call)?;
    let mut doc = Document::new("VersioningConfiguration");
    doc.leaf("Status", "Suspended").leaf("MfaDelete", "Disabled");
    Ok(Reply::xml(doc))
}
